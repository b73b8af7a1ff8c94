"""`plain`: a folder with a Makefile and a CMakeLists.txt, for the host and for any firmware."""

from __future__ import annotations

from kilograd.codegen.layouts.package import EXAMPLES, Package
from kilograd.codegen.wrapping import wrap


def files(package: Package) -> dict[str, str]:
    """Every file by relative path."""
    result = {
        **package.sources,
        "main.c": wrap(package.render("plain/main.c.j2")),
        "Makefile": package.render("plain/Makefile.j2"),
        "CMakeLists.txt": package.render("plain/CMakeLists.txt.j2"),
        "README.md": package.render("plain/README.md.j2"),
        "examples/stream.py": package.stream(),
    }
    for example in EXAMPLES:
        result[f"examples/{example}.c"] = package.example(example, "plain", "examples")
    return result
