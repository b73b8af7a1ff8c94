"""`zephyr`: a module for the Zephyr build system, with samples.

Source: https://docs.zephyrproject.org/latest/develop/modules.html and the schema in
`scripts/zephyr_module.py` of Zephyr.
"""

from __future__ import annotations

from kilograd.codegen.layouts.package import EXAMPLES, Package


def files(package: Package) -> dict[str, str]:
    """Every file by relative path."""
    result = {
        "zephyr/module.yml": package.render("zephyr/module.yml.j2"),
        "zephyr/CMakeLists.txt": package.render("zephyr/CMakeLists.txt.j2"),
        "zephyr/Kconfig": package.render("zephyr/Kconfig.j2"),
        "README.md": package.render("zephyr/README.md.j2"),
        "tools/stream.py": package.stream(),
        **package.sources_in("src"),
    }
    for example, title in EXAMPLES.items():
        root = f"samples/{example}"
        for file in ("CMakeLists.txt", "prj.conf", "sample.yaml"):
            result[f"{root}/{file}"] = package.render(
                f"zephyr/sample/{file}.j2", example=example, example_title=title
            )
        if example == "learn_by_button":
            result[f"{root}/boards/nrf52840dk_nrf52840.overlay"] = package.render(
                "zephyr/sample/adc.overlay.j2"
            )
        result[f"{root}/src/main.c"] = package.example(example, "zephyr", "tools")
    return result
