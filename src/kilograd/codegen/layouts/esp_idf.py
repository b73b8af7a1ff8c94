"""`esp-idf`: a component for Espressif's IoT Development Framework, version 5.2 or later.

Sources: https://docs.espressif.com/projects/idf-component-manager/en/latest/reference/manifest_file.html
and, for `idf_component_register`, the chapter "Build System" of the ESP-IDF programming guide.
"""

from __future__ import annotations

from kilograd.codegen.layouts.package import EXAMPLES, Package


def files(package: Package) -> dict[str, str]:
    """Every file by relative path."""
    result = {
        "idf_component.yml": package.render("esp_idf/idf_component.yml.j2"),
        "CMakeLists.txt": package.render("esp_idf/CMakeLists.txt.j2"),
        "README.md": package.render("esp_idf/README.md.j2"),
        "tools/stream.py": package.stream(),
        **package.sources_in("src"),
    }
    for example in EXAMPLES:
        root = f"examples/{example}"
        for file in ("CMakeLists.txt", "sdkconfig.defaults", "main/CMakeLists.txt"):
            template = f"esp_idf/example/{file.replace('/', '_')}.j2"
            result[f"{root}/{file}"] = package.render(template, example=example)
        result[f"{root}/main/main.c"] = package.example(example, "esp_idf", "tools")
    return result
