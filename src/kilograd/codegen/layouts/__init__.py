"""The C project in the form that a build system or an IDE opens: one module for each layout.

A layout is a function from a `Package` to the text of every file by relative path. The network's C
is the same in all of them; what differs is where it lies, the manifest, and the hardware interface
of the examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kilograd.codegen.layouts import arduino, cmsis_pack, esp_idf, plain, platformio, zephyr
from kilograd.codegen.layouts.package import Package
from kilograd.errors import InputError

__all__ = ["LAYOUTS", "Package", "archive_name", "arrange", "check"]

LAYOUTS: Mapping[str, Callable[[Package], dict[str, str]]] = {
    "plain": plain.files,
    "arduino": arduino.files,
    "platformio": platformio.files,
    "esp-idf": esp_idf.files,
    "zephyr": zephyr.files,
    "cmsis-pack": cmsis_pack.files,
}
"""Every layout by the name that users write."""


def check(layout: str) -> None:
    """Raise InputError for a layout that does not exist."""
    if layout not in LAYOUTS:
        raise InputError(f"layout={layout!r} is unknown; there are {', '.join(LAYOUTS)}")


def arrange(layout: str, package: Package) -> dict[str, str]:
    """The text of every file of the package in a layout, by relative path.

    Raises InputError for a layout that does not exist.
    """
    check(layout)
    return LAYOUTS[layout](package)


def archive_name(layout: str, package: Package) -> str | None:
    """The file name that the layout prescribes for an archive, None where any will do."""
    return cmsis_pack.archive_name(package) if layout == "cmsis-pack" else None
