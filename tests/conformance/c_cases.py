"""Compiles the C calls of every operator example into one shared library and runs them on
arrays.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kilograd.codegen.calls import format_call
from kilograd.ir import DType, Example, Operand, Operands, TensorType
from kilograd.ops import all_operators
from kilograd.ops.page import Paging

RUNTIME = Path(__file__).parents[2] / "src/kilograd/runtime/include"
GUARD = 64


@dataclass(frozen=True)
class Case:
    """One operator example; `index` is its place in the library."""

    index: int
    name: str
    example: Example

    @property
    def types(self) -> tuple[TensorType, ...]:
        if self.example.types is not None:
            return self.example.types
        return tuple(TensorType(np.shape(a), DType.of(np.asarray(a))) for a in self.example.inputs)


def all_cases() -> list[Case]:
    cases: list[Case] = []
    for operator in all_operators():
        for number, example in enumerate(operator.examples()):
            cases.append(Case(len(cases), f"{operator.name}-{number}", example))
    return cases


def c_function(case: Case) -> str:
    """`int case_7(void **p)`: inputs, then outputs, then scratch; scalars are passed by value."""
    types = case.types
    results = case.example.op.infer(*types)

    def pointer(slot: int, type_: TensorType, const: bool) -> str:
        return f"(({'const ' if const else ''}{type_.dtype.c_name} *)p[{slot}])"

    inputs = tuple(
        Operand(
            f"*{pointer(i, t, True)}"
            if i in case.example.op.scalars
            else pointer(i, t, not case.example.op.mutates),
            t,
        )
        for i, t in enumerate(types)
    )
    outputs = tuple(Operand(pointer(len(types) + i, t, False), t) for i, t in enumerate(results))
    scratch = f"((void *)p[{len(types) + len(results)}])"
    setup = ""
    operands = [*inputs, *outputs]
    for slot in stored_slots(case):
        size = operands[slot].type.bytes
        setup += (
            f"  kg_storage_t storage_{slot} = kg_ram_storage(p[{slot}], 4096);\n"
            f"  storage_{slot}.block_bytes = {case.example.op.block_bytes};\n"
            f"  uint32_t crc_{slot} = kg_crc32_tensor(0, p[{slot}], {size});\n"
        )
        operands[slot] = replace(operands[slot], text=f"(&storage_{slot}), 0, &crc_{slot}")
    inputs, outputs = tuple(operands[: len(types)]), tuple(operands[len(types) :])
    calls = case.example.op.emit(Operands(inputs, outputs, scratch))
    body = "\n".join(
        "  " + format_call(call).replace("return KG_", "return -KG_") for call in calls
    )
    return f"int case_{case.index}(void **p) {{\n  (void)p;\n{setup}{body}\n  return 0;\n}}\n"


def stored_slots(case: Case) -> set[int]:
    """The operands that lie in storage, each a storage in memory."""
    op, types = case.example.op, case.types
    if not isinstance(op, Paging):
        return set()
    outputs = range(len(types), len(types) + len(op.infer(*types))) if op.writes else ()
    return {*(i for i in range(len(types)) if op.reads(i)), *outputs}


def build(cases: list[Case], directory: Path, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    headers = sorted(path.name for path in (RUNTIME / "kilograd").glob("*.h"))
    text = "".join(f'#include "kilograd/{name}"\n' for name in headers)
    text += "".join(c_function(case) for case in cases)
    source, library = directory / "cases.c", directory / "cases.so"
    source.write_text(text)
    command = [
        sys.executable, "-m", "ziglang", "cc", "-std=c99", "-O2", "-mcpu=native", "-shared",
        "-fPIC",
        "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra",
        "-Wconversion", "-Wshadow", "-Werror",
        "-Wno-unused-function", *flags, f"-I{RUNTIME}", str(source), "-o", str(library),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-8000:]
    return ctypes.CDLL(str(library))


def run(
    library: ctypes.CDLL, case: Case, in_place: tuple[tuple[int, int], ...]
) -> tuple[int, list]:
    """Status and outputs; outputs start as 0xFF bytes, and a guard zone behind each must
    survive.
    """
    types, op = case.types, case.example.op
    results = op.infer(*types)
    scratch_type = TensorType((op.cost(*types).scratch_bytes,), DType.U8)
    stored = stored_slots(case)
    buffers = [
        _guarded(t, op.block_bytes if slot in stored else 1)
        for slot, t in enumerate((*types, *results, scratch_type))
    ]
    for buffer, array in zip(buffers, case.example.inputs, strict=False):
        data = np.asarray(array).tobytes()
        buffer[: len(data)] = np.frombuffer(data, np.uint8)
    for output, source in in_place:
        buffers[len(types) + output] = buffers[source]
    pointers = (ctypes.c_void_p * len(buffers))(*(b.ctypes.data for b in buffers))
    status = library[f"case_{case.index}"](pointers)
    for buffer, type_ in zip(buffers, (*types, *results, scratch_type), strict=True):
        assert (buffer[-GUARD:] == 0xA5).all(), f"{case.name}: wrote past the end of {type_}"
    arrays = [
        buffer[: t.bytes].copy().view(t.dtype.numpy).reshape(t.shape)
        for buffer, t in zip(buffers[len(types) :], results, strict=False)
    ]
    return status, arrays


def _guarded(type_: TensorType, unit: int = 1) -> np.ndarray:
    buffer = np.full(-(-type_.bytes // unit) * unit + GUARD, 0xFF, np.uint8)
    buffer[-GUARD:] = 0xA5
    return buffer
