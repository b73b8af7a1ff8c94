"""`cmsis-pack`: a software pack by the Open-CMSIS-Pack specification, schema 1.7.

Source: https://open-cmsis-pack.github.io/Open-CMSIS-Pack-Spec/main/html/packFormat.html and
`schema/PACK.xsd`. The examples are user code templates, since examples proper are bound to a board.
"""

from __future__ import annotations

from kilograd.codegen.layouts.package import EXAMPLES, VERSION, Package

VENDOR = "kilograd"
_LONGEST_SUB = 32


def files(package: Package) -> dict[str, str]:
    """Every file by relative path."""
    headers = sorted(path for path in package.sources if path.endswith(".h"))
    result = {
        f"{VENDOR}.{package.name}.pdsc": package.render(
            "cmsis_pack/pack.pdsc.j2",
            vendor=VENDOR,
            public=f"{package.name}.h",
            private=[path for path in headers if path != f"{package.name}.h"],
            sub=f"Network {package.name}"[:_LONGEST_SUB],
        ),
        "README.md": package.render("cmsis_pack/README.md.j2", vendor=VENDOR),
        "tools/stream.py": package.stream(),
        # A component of a pack cannot set compiler flags.
        **package.sources_in("source", prologue=True),
    }
    for example in EXAMPLES:
        result[f"templates/{example}.c"] = package.example(example, "cmsis_pack", "tools")
    return result


def archive_name(package: Package) -> str:
    """The name that the specification gives the zip of the pack."""
    return f"{VENDOR}.{package.name}.{VERSION}.pack"
