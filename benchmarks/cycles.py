"""Print how many cycles an instruction of a training step takes by Arm's instruction timings, on an
emulated Cortex-M4 and Cortex-M0+: the figures of `cycles_per_instruction` in the device files.

PYTHONPATH=src:. python benchmarks/cycles.py [network ...]

Memory without wait states is assumed, so a board takes longer where its flash is slower than its
processor. Timings: Arm DDI 0484C, Cortex-M0+ Technical Reference Manual, table 3-1 (single-cycle
multiplier); Arm DDI 0439B, Cortex-M4 Technical Reference Manual, tables 3-1 and 7-1. What these
leave open is taken in the middle: a taken branch of the M4 refills its pipeline in two cycles of
one to three, a division takes seven of two to twelve. A conditional branch at the end of a block
is taken as often as the block behind it ran less often than it. A Cortex-M7 issues two
instructions at once; no such sum holds for it.
"""

from __future__ import annotations

import sys
from typing import Any

import capstone
import numpy as np

from kilograd import calibrate, devices
from kilograd.calibrate import Network
from kilograd.execution.emulated import EmulatedBackend
from kilograd.execution.instruction_counter import Block

NETWORKS = ("mlp", "lenet", "tcn", "face_detector")
BOARDS = ("nrf52840", "rp2040")
CONDITIONS = (
    "eq",
    "ne",
    "hs",
    "lo",
    "cs",
    "cc",
    "mi",
    "pl",
    "vs",
    "vc",
    "hi",
    "ls",
    "ge",
    "lt",
    "gt",
    "le",
)


def registers(operands: str) -> int:
    """How many registers a list such as {r4, r5, d8-d15} names."""
    count = 0
    for part in operands[operands.index("{") + 1 : operands.index("}")].split(","):
        first, _, last = part.strip().partition("-")
        count += int(last[1:]) - int(first[1:]) + 1 if last else 1
    return count


def is_conditional(name: str) -> bool:
    return name in ("cbz", "cbnz") or (name.startswith("b") and name[1:] in CONDITIONS)


def cycles_m0plus(name: str, operands: str, previous: str) -> float:
    """Cycles of one instruction of a Cortex-M0+, a branch being taken."""
    if name.startswith(("ldm", "stm", "push", "pop")):
        return 1 + registers(operands) + (2 if "pc" in operands and name == "pop" else 0)
    if name.startswith(("ldr", "str")):
        return 2
    if name == "bl":
        return 3
    if name.startswith("b") and not name.startswith("bic"):
        return 2
    if name.startswith(("mov", "add")) and operands.startswith("pc"):
        return 2
    return 3 if name.startswith(("mrs", "msr", "dmb", "dsb", "isb")) else 1


def cycles_m4(name: str, operands: str, previous: str) -> float:
    """Cycles of one instruction of a Cortex-M4, a branch being taken."""
    refill = 2
    name = name.removesuffix(".w")
    if name.startswith(("vldm", "vstm", "vpush", "vpop", "ldm", "stm", "push", "pop")):
        return 1 + registers(operands) + (refill if "pc" in operands else 0)
    if name.startswith(("ldrd", "strd")):
        return 3
    if name.startswith(("ldr", "vldr")):
        return 1 if previous.startswith(("ldr", "str", "vldr")) else 2
    if name.startswith("vstr"):
        return 2
    if name.startswith("str"):
        return 1
    if name.startswith(("vdiv", "vsqrt")):
        return 14
    if name.startswith(("vmla", "vmls", "vnmla", "vnmls", "vfma", "vfms", "vfnm")):
        return 3
    if name.startswith(("sdiv", "udiv")):
        return 7
    if name in ("mla", "mls"):
        return 2
    branches = ("b", "bl", "bx", "blx", "cbz", "cbnz", "tbb", "tbh")
    if name in branches or is_conditional(name):
        return 1 + refill
    return 1


TIMINGS = {"cortex-m4": cycles_m4, "cortex-m0plus": cycles_m0plus}


def cycles(blocks: list[Block], cpu: str) -> float:
    """Cycles of all runs of these blocks."""
    decoder = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    runs = {block.address: block.runs for block in blocks}
    total = 0.0
    for block in blocks:
        name = previous = ""
        size = 0
        for instruction in decoder.disasm(block.code, block.address):
            name, size = instruction.mnemonic, size + instruction.size
            total += block.runs * TIMINGS[cpu](name, instruction.op_str, previous)
            previous = name
        if size != len(block.code):
            raise ValueError(f"{block.code[size:].hex()} at {block.address + size:#x}")
        if is_conditional(name.removesuffix(".w")):
            untaken = min(block.runs, runs.get(block.address + size, 0))
            total -= untaken * (TIMINGS[cpu](name, "", "") - 1)
    return total


def measure(network: Network, form: Any, board: devices.Device) -> tuple[int, float]:
    """Instructions and cycles of one training step."""
    program, example = calibrate.compiled(network, form, board)
    interface = program.interface
    backend = EmulatedBackend(interface, program.image, board, program.arena_bytes)
    target = interface.target_type
    data = None if target is None else np.zeros(target.size, target.dtype.numpy).tobytes()
    sample = interface.input.to_program(np.asarray(example))
    backend.initialise()
    backend.train_step(sample.tobytes(), data, 0.01, 0)
    emulator = backend._emulator
    return emulator.executed, cycles(emulator.blocks(), board.cpu)


def main() -> None:
    names = tuple(sys.argv[1:]) or NETWORKS
    chosen = [
        network
        for network in (*calibrate.FITTED, *calibrate.HELD_OUT)
        if network.name in names and not network.arguments
    ]
    for name in BOARDS:
        board = calibrate.roomy(devices.load(name))
        ratios = []
        for network in chosen:
            for form in network.forms:
                count, total = measure(network, form, board)
                ratios.append(total / count)
                what = " ".join(form.values())
                print(f"{board.cpu:14} {network!s:24} {what:15} {count:12,} {ratios[-1]:6.3f}")
        print(
            f"{board.cpu:14} mean {np.mean(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}\n"
        )


if __name__ == "__main__":
    main()
