"""What each operator takes in instructions: tables fitted on counts of the emulator.

    instructions = sum over features of (instructions per unit of the feature) * feature

    start             1
    mac               multiply-accumulates
    run_of_input      multiply-accumulates / last dimension of the first operand: how often an inner
                      loop over it starts; run_of_operand, run_of_output: likewise for the second
                      operand and the result
    line_of_input     size of the first operand / its last dimension but one: the lines of an image
                      in each channel; line_of_output: likewise for the result
    read, write       bytes read and written

`kilograd calibrate` writes such a table; `kilograd.planning.costs` applies it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kilograd.errors import InputError

Feature = Literal[
    "start",
    "mac",
    "run_of_input",
    "run_of_operand",
    "run_of_output",
    "line_of_input",
    "line_of_output",
    "read",
    "write",
]

FEATURES: tuple[Feature, ...] = get_args(Feature)


class Kernel(BaseModel):
    """The fit of one operator: instructions per unit of each feature, the number of `nodes` that it
    was fitted on, and the mean relative `error` on them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    instructions: Mapping[Feature, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    nodes: int = Field(gt=0)
    error: float = Field(ge=0, allow_inf_nan=False)


class KernelTable(BaseModel):
    """The kernels of a processor by name; `generic` stands in for operators that are not among
    them. `networks` are those whose nodes were counted, `step_error` the largest relative error of
    a whole training step of a network that was not, and `node_error` the largest sum of errors of
    its nodes as a share of the step; None where none was tried.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    networks: tuple[str, ...]
    step_error: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    node_error: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    kernels: Mapping[str, Kernel]
    generic: Kernel


def table_json(table: KernelTable) -> str:
    """The table as `read_table` reads it: one line a kernel, sorted."""
    rows = ",\n".join(
        f"    {json.dumps(name)}: {_row(kernel)}" for name, kernel in sorted(table.kernels.items())
    )
    return (
        f'{{\n  "cpu": {json.dumps(table.cpu)},\n  "networks": {json.dumps(table.networks)},\n'
        f'  "step_error": {json.dumps(table.step_error)},\n'
        f'  "node_error": {json.dumps(table.node_error)},\n'
        f'  "generic": {_row(table.generic)},\n  "kernels": {{\n{rows}\n  }}\n}}\n'
    )


def _row(kernel: Kernel) -> str:
    content = {
        "instructions": {
            name: kernel.instructions[name] for name in FEATURES if name in kernel.instructions
        },
        "nodes": kernel.nodes,
        "error": kernel.error,
    }
    return json.dumps(content)


def read_table(path: Path) -> KernelTable:
    """Read a table that `kilograd calibrate` wrote.

    Raises:
        InputError: the file is missing, unreadable or no kernel table.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the kernel table {path}: {error}") from error
    return _parse(text, str(path))


@functools.cache
def table_of_cpu(cpu: str) -> KernelTable | None:
    """The table that comes with kilograd, None for a processor without one."""
    file = resources.files(__package__) / "kernels" / f"{cpu}.json"
    return _parse(file.read_text(encoding="utf-8"), file.name) if file.is_file() else None


def _parse(text: str, where: str) -> KernelTable:
    try:
        return KernelTable.model_validate_json(text)
    except ValidationError as error:
        problems = "\n".join(
            f"  {'.'.join(map(str, item['loc'])) or 'table'}: {item['msg']}"
            for item in error.errors()
        )
        raise InputError(f"{where} is no kernel table:\n{problems}") from error
