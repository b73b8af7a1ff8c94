"""`platformio`: a library with `library.json`, whose examples are projects for Arduino boards.

Source: https://docs.platformio.org/en/latest/manifests/library-json/index.html.
"""

from __future__ import annotations

import json
import re

from kilograd.codegen.layouts.package import EXAMPLES, REQUIRED_FLAGS, VERSION, Package

_BOARDS = {
    "cortex-m0plus": ("raspberrypi", "pico"),
    "cortex-m4": ("nordicnrf52", "nano33ble"),
    "cortex-m7": ("ststm32", "nucleo_f746zg"),
}
"""PlatformIO's platform and board for the examples, by processor."""


def files(package: Package) -> dict[str, str]:
    """Every file by relative path."""
    result = {
        "library.json": _manifest(package),
        "README.md": package.render("platformio/README.md.j2"),
        "extras/stream.py": package.stream(),
        **package.sources_in("src"),
    }
    platform, board = _BOARDS.get(package.cpu, _BOARDS["cortex-m4"])
    for example in EXAMPLES:
        root = f"examples/{example}"
        result[f"{root}/platformio.ini"] = package.render(
            "platformio/platformio.ini.j2", example=example, platform=platform, board_id=board
        )
        result[f"{root}/src/main.cpp"] = package.example(example, "arduino", "extras")
    return result


def _manifest(package: Package) -> str:
    content = {
        "$schema": (
            "https://raw.githubusercontent.com/platformio/platformio-core/develop/platformio/"
            "assets/schema/library.json"
        ),
        # Letters, digits and dashes are what PlatformIO's registry takes.
        "name": re.sub("_+", "-", package.folder_name),
        "version": VERSION,
        "description": f"The network {package.name}: predicts, and learns on the device.",
        "keywords": ["neural network", "on-device training", "machine learning"],
        "authors": [{"name": "Your Name", "email": "you@example.org"}],
        "frameworks": "*",
        "platforms": "*",
        "headers": f"{package.name}.h",
        "examples": [
            {
                "name": title,
                "base": f"examples/{example}",
                "files": ["platformio.ini", "src/main.cpp"],
            }
            for example, title in EXAMPLES.items()
        ],
        "build": {"flags": list(REQUIRED_FLAGS)},
    }
    return json.dumps(content, indent=2) + "\n"
