"""`arduino`: a library by the Arduino library specification, format 1.5, revision 2.2.

Source: https://docs.arduino.cc/arduino-cli/library-specification. Its folder, zipped, installs by
"Add .ZIP Library".
"""

from __future__ import annotations

from kilograd.codegen.layouts.package import EXAMPLES, Package


def files(package: Package) -> dict[str, str]:
    """Every file by relative path."""
    result = {
        "library.properties": package.render("arduino/library.properties.j2"),
        "keywords.txt": package.render("arduino/keywords.txt.j2"),
        "README.md": package.render("arduino/README.md.j2"),
        "extras/stream.py": package.stream(),
        # An Arduino library cannot set compiler flags.
        **package.sources_in("src", prologue=True),
    }
    for example in EXAMPLES:
        sketch = sketch_name(example)
        result[f"examples/{sketch}/{sketch}.ino"] = package.example(example, "arduino", "extras")
    return result


def sketch_name(example: str) -> str:
    """`learn_from_serial` is `LearnFromSerial` in the menu of the Arduino IDE."""
    return "".join(word.capitalize() for word in example.split("_"))
