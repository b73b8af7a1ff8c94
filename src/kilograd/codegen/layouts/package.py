"""What every layout is made from, and how its templates are filled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2

from kilograd.codegen.calls import format_float
from kilograd.codegen.wrapping import wrap
from kilograd.ir import TensorType
from kilograd.options import Loss
from kilograd.transforms.ports import Port

VERSION = "1.0.0"
"""Version of every package; the user raises it in the manifest when they publish another."""

REQUIRED_FLAGS = ("-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing")
"""Without them floats differ between targets, or the optimiser reorders accesses of the arena."""

EXAMPLES: Mapping[str, str] = {
    "learn_from_serial": "Learn from a serial stream",
    "keep_in_flash": "Keep what was learned in flash",
    "learn_by_button": "Learn or predict by a button",
}
"""The firmware examples and what they show."""

_NEEDS: Mapping[str, tuple[str, ...]] = {
    "learn_from_serial": ("receive", "send"),
    "keep_in_flash": ("receive", "send", "flash"),
    "learn_by_button": ("send", "button", "sensor"),
}
_STACK_MARGIN_BYTES = 2048
_LONGEST_FOLDER = 63
_STACK_UNKNOWN_BYTES = 8192

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)

# For build systems in which a library cannot ask for flags. Clang has no pragma for aliasing.
_PROLOGUE = """\
/* The flags that results depend on, for build systems in which a library cannot ask for them. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off", "no-math-errno", "no-strict-aliasing")
#endif

"""


@dataclass(frozen=True)
class Package:
    """A network as a layout sees it.

    `sources` are the network's C files by path: `<name>.c`, `<name>.h`, `<name>_tables.h` and
    `kilograd/*.h`. `target` is None where nothing but the input is learned from. `stack_bytes` is
    the worst case of the network's functions, 0 where it was not measured. `cpu` is a device's.
    `pages` says whether the network wants a storage, whose image lies beside the files.
    """

    name: str
    sources: Mapping[str, str]
    input: TensorType
    output: TensorType
    target: TensorType | None
    input_port: Port
    output_port: Port
    loss: Loss
    learning_rate: float
    cpu: str
    stack_bytes: int = 0
    pages: bool = False

    @property
    def task_stack_bytes(self) -> int:
        """A stack for the task that calls the network, with room for the example around it."""
        if not self.stack_bytes:
            return _STACK_UNKNOWN_BYTES
        return -(-(self.stack_bytes + _STACK_MARGIN_BYTES) // 1024) * 1024

    @property
    def folder_name(self) -> str:
        """The name as a folder or library: starts with a letter or digit, at most 63 characters."""
        return self.name.strip("_")[:_LONGEST_FOLDER].rstrip("_")

    def sources_in(self, directory: str, *, prologue: bool = False) -> dict[str, str]:
        """The network's C files below a directory; with `prologue`, its flags are in the file."""
        files = {f"{directory}/{path}": text for path, text in self.sources.items()}
        if prologue:
            files[f"{directory}/{self.name}.c"] = _PROLOGUE + self.sources[f"{self.name}.c"]
        return files

    def render(self, template: str, **more: object) -> str:
        """A template of this package, filled."""
        return _TEMPLATES.get_template(template).render({**self._context(), **more})

    def example(self, example: str, board: str, directory: str = "") -> str:
        """The C (or C++) of a firmware example for the hardware interface of a framework.

        `directory` is where the file will lie, for the comment that says how to build it.
        """
        text = self.render(
            f"examples/{example}.c.j2",
            board=f"{board}/board.c.j2",
            example=example,
            directory=directory,
            needs=_NEEDS[example],
        )
        return wrap(re.sub(r"\n{3,}", "\n\n", text).rstrip())

    def stream(self) -> str:
        """The Python script that feeds the serial examples from a computer."""
        return self.render(
            "examples/stream.py.j2",
            input_axes=list(self.input_port.axes),
            input_shape=list(self.input_port.shape[1:]),
            output_axes=list(self.output_port.axes),
            output_shape=list(self.output_port.shape[1:]),
        )

    def _context(self) -> dict[str, object]:
        meaning = self.input.quantization
        return {
            "input_scale": repr(meaning.scales[0]) if meaning else "",
            "input_scale_c": format_float(meaning.scales[0]) if meaning else "",
            "input_zero_point": meaning.zero_point if meaning else 0,
            "name": self.name,
            "folder_name": self.folder_name,
            "upper": self.name.upper(),
            "title": f"{self.name}, a network that learns",
            "sentence": f"The network {self.name}: predicts, and learns on the device.",
            "version": VERSION,
            "input": self.input,
            "output": self.output,
            "target": self.target,
            "loss": self.loss.value,
            "learning_rate": format_float(self.learning_rate),
            "stack_bytes": self.task_stack_bytes,
            "flags": REQUIRED_FLAGS,
            "examples": EXAMPLES,
            "pages": self.pages,
            "start": "start();" if self.pages else f"{self.name}_init(&net);",
        }
