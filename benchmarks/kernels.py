"""Convolution kernels, layer by layer: time on this host against PyTorch eager (one thread, batch
1), and instructions per multiply-accumulate on an emulated Cortex-M7. Prints; asserts nothing.

The first layer of a network (3 channels) needs no gradient of its input, on either side.

    PYTHONPATH=src:. python benchmarks/kernels.py
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import capstone
import numpy as np
import torch
import unicorn
from elftools.elf.elffile import ELFFile
from tests.conformance.c_cases import RUNTIME, Case, build, c_function
from unicorn import arm_const

from kilograd.ir import Example, f32
from kilograd.ir.operator import Operator
from kilograd.ops.conv import Conv2d, Conv2dGradInput, Conv2dGradWeight
from kilograd.ops.depthwise import (
    DepthwiseConv2d,
    DepthwiseConv2dGradInput,
    DepthwiseConv2dGradWeight,
)
from kilograd.ops.reduce import Reduce

# size, channels in, channels out (0: depthwise), kernel, stride
LAYERS = [
    (32, 3, 16, 3, 1), (32, 16, 16, 3, 1), (32, 16, 32, 3, 2), (16, 32, 32, 3, 1),
    (16, 32, 64, 3, 2), (8, 64, 64, 3, 1), (32, 16, 48, 1, 1), (16, 144, 24, 1, 1),
    (8, 96, 160, 1, 1), (7, 40, 240, 1, 1), (32, 48, 0, 3, 1), (32, 48, 0, 3, 2),
    (16, 96, 0, 3, 1), (8, 192, 0, 3, 1), (16, 96, 0, 5, 1), (16, 96, 0, 5, 2), (8, 192, 0, 7, 1),
]  # fmt: skip
LINKER = """ENTRY(_start) SECTIONS { . = 0x08000000; .text : { *(.text*) *(.rodata*) }
/DISCARD/ : { *(.ARM*) } }"""
FLASH, RAM, STACK = 0x08000000, 0x20000000, 0x20080000


def operators(layer: tuple[int, ...]) -> list[tuple[Operator, list[tuple[int, ...]]]]:
    """Forward, gradients of weight, bias and input, with the shapes of their inputs."""
    size, c, o, k, s = layer
    pad = ((k // 2, k // 2), (k // 2, k // 2))
    out = (size + 2 * (k // 2) - k) // s + 1
    x, y = (1, size, size, c), (1, out, out, o or c)
    w = (k, k, c, o) if o else (k, k, c)
    how = ((s, s), pad)
    dense = (Conv2d, Conv2dGradInput, Conv2dGradWeight)
    forward, grad_input, grad_weight = (
        dense if o else (DepthwiseConv2d, DepthwiseConv2dGradInput, DepthwiseConv2dGradWeight)
    )
    backward = [(grad_weight((k, k), *how), [x, y]), (Reduce((0, 1, 2)), [y])]
    if c > 3:
        backward.append((grad_input((size, size), *how), [y, w]))
    return [(forward(*how), [x, w, (o or c,)]), *backward]


def best_seconds(call: Callable[[], object]) -> float:
    """The best of eight runs, each long enough to be timed."""
    call()
    begin = time.perf_counter()
    call()
    repeats = max(1, int(0.01 / (time.perf_counter() - begin)))
    results = []
    for _ in range(8):
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        results.append((time.perf_counter() - begin) / repeats)
    return min(results)


def torch_seconds(layer: tuple[int, ...]) -> float:
    """Forward and backward of one layer, in the faster of the two memory formats."""
    size, c, o, k, s = layer
    groups = 1 if o else c
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(1, c, size, size).to(memory_format=memory_format).requires_grad_()
        w = torch.randn(o or c, c // groups, k, k, requires_grad=True)
        b = torch.randn(o or c, requires_grad=True)

        wanted = (w, b, x) if c > 3 else (w, b)

        def step(x=x, w=w, b=b, wanted=wanted) -> None:
            y = torch.nn.functional.conv2d(x, w, b, s, k // 2, 1, groups)
            torch.autograd.grad(y, wanted, torch.ones_like(y))

        results.append(best_seconds(step))
    return min(results)


def buffers(case: Case) -> list[np.ndarray]:
    """Inputs, outputs, scratch."""
    types = case.example.op.infer(*case.types)
    scratch = case.example.op.cost(*case.types).scratch_bytes
    return [*case.example.inputs, *(np.zeros(t.shape, np.float32) for t in types),
            np.zeros(scratch + 8, np.uint8)]  # fmt: skip


class CortexM7:
    """Counts instructions of the cases, block by block."""

    def __init__(self, cases: list[Case], directory: Path) -> None:
        headers = "".join(f'#include "kilograd/{p.name}"\n' for p in RUNTIME.glob("kilograd/*.h"))
        source, script, image = (directory / name for name in ("m7.c", "m7.ld", "m7.elf"))
        functions = "".join(f"__attribute__((used)) {c_function(case)}" for case in cases)
        start = "__attribute__((used)) void _start(void) { for (;;) {} }\n"
        source.write_text(headers + functions + start)
        script.write_text(LINKER)
        subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", "-std=c99", "-O2", "-ffp-contract=off",
             "-fno-math-errno",
             "-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m7+fp_armv8d16sp",
             f"-I{RUNTIME}", "-T", str(script), str(source), "-o", str(image)],
            check=True, capture_output=True,
        )  # fmt: skip
        with image.open("rb") as file:
            elf = ELFFile(file)
            symbols = elf.get_section_by_name(".symtab").iter_symbols()
            self.symbols = {symbol.name: symbol["st_value"] for symbol in symbols}
            segments = [(s["p_vaddr"], s.data()) for s in elf.iter_segments() if s["p_filesz"]]
        self.machine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB)
        self.machine.ctl_set_cpu_model(arm_const.UC_CPU_ARM_CORTEX_M7)
        self.machine.mem_map(FLASH, 4 << 20)
        self.machine.mem_map(RAM, 64 << 20)
        for address, data in segments:
            if address >= FLASH:
                self.machine.mem_write(address, data)
        self.machine.reg_write(arm_const.UC_ARM_REG_FPEXC, 1 << 30)
        self.decoder = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB)
        self.lengths: dict[tuple[int, int], int] = {}
        self.machine.hook_add(unicorn.UC_HOOK_BLOCK, self._block)

    def _block(self, machine: unicorn.Uc, address: int, size: int, _: object) -> None:
        key = (address, size)
        if key not in self.lengths:
            code = bytes(machine.mem_read(address, size))
            self.lengths[key] = len(list(self.decoder.disasm(code, address)))
        self.count += self.lengths[key]

    def instructions(self, case: Case) -> int:
        """Of one call."""
        address, pointers = RAM + 0x100000, b""
        for array in buffers(case):
            self.machine.mem_write(address, array.tobytes())
            pointers += address.to_bytes(4, "little")
            address += (array.nbytes + 63) & ~63
        self.machine.mem_write(RAM, pointers)
        end = self.symbols["_start"] & ~1
        for register, content in (("R0", RAM), ("SP", STACK), ("LR", end | 1)):
            self.machine.reg_write(getattr(arm_const, f"UC_ARM_REG_{register}"), content)
        self.count = 0
        self.machine.emu_start(self.symbols[f"case_{case.index}"] | 1, end)
        return self.count


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    groups: list[list[Case]] = []
    for layer in LAYERS:
        group = []
        for op, shapes in operators(layer):
            inputs = tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)
            index = sum(map(len, groups)) + len(group)
            group.append(Case(index, op.name, Example(op, inputs)))
        groups.append(group)
    cases = [case for group in groups for case in group]
    with tempfile.TemporaryDirectory() as name:
        library = build(cases, Path(name), ("-O3",))
        board = CortexM7(cases, Path(name))
    print("                       host, microseconds (forward + backward)     Cortex-M7, instr/MAC")
    print("layer                     MACs  kilograd   PyTorch     ratio      fwd   d_w   d_x")
    for layer, group in zip(LAYERS, groups, strict=True):
        seconds, counts = 0.0, []
        for case in group:
            arrays = buffers(case)
            pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
            function = library[f"case_{case.index}"]
            seconds += best_seconds(lambda f=function, p=pointers: f(p))
            macs = case.example.op.cost(*(f32(*t.shape) for t in case.types)).macs
            if macs:
                counts.append(board.instructions(case) / macs)
        size, c, o, k, s = layer
        macs = group[0].example.op.cost(*group[0].types).macs
        reference = torch_seconds(layer)
        title = f"{k}x{k}/{s} {c}->{o or 'dw'} @{size}"
        rest = "".join(f"{count:6.2f}" for count in counts)
        print(
            f"{title:20s} {macs:9d} {seconds * 1e6:9.1f} {reference * 1e6:9.1f} "
            f"{reference / seconds:9.1f}   {rest}",
            flush=True,
        )


if __name__ == "__main__":
    main()
