"""Training steps in less SRAM, built and run: bytes, energy, time, pages, and the same bits.

    python benchmarks/planned.py [vgg16 resnet18 bert scheme gestures] [--width N]
        [--device cortex-m7] [--storage sd] [--shares 50 25 least 32KB] [--steps 5]
        [--time-limit 60] [--json FILE]

`scheme` is the int8 MCUNet-5FPS at 128x128 with the published sparse update "124 KB", `gestures`
the network of gestures.py with momentum, untrained; the others train all of their float32 weights.

Each network is compiled as it stands, and for shares of the SRAM that this program has in all, or
for so many bytes. The emulated device has exactly that much, rounded down to eight bytes. After the
steps, losses and weights are compared bit for bit with those of the program as it stands, on the
host. Energy and time are estimates of the device file; instructions are counted.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gestures
import numpy as np
from real_data import data_file

import kilograd as kg
from kilograd import zoo
from kilograd.compiler import draft
from kilograd.devices import Device, load
from kilograd.fitting import plain_sram_bytes, sram_bytes
from kilograd.options import parse_bytes
from kilograd.program import Program

FULL = {"vgg16": 64, "resnet18": 64, "bert": 128}
"""Widths of the networks as published; that of BERT is its smallest, with two layers."""
OTHERS = ("scheme", "gestures")

# The rest of the address space below and above: what is asked of the planner is SRAM alone.
ROOM = {"flash_base": 0x08000000, "flash_bytes": 0x10000000, "sram_base": 0x20000000}
BOARDS = {"cortex-m7": "stm32f746", "cortex-m4": "nrf52840", "cortex-m0plus": "mkr1000"}


def network(name: str, width: int) -> tuple[Any, Any, dict[str, Any]]:
    """A network, an example of its input, and what `compile` is told of it."""
    sgd = kg.SGD(lr=0.01)
    if name == "scheme":
        weights = data_file("models/mcunet-5fps.safetensors")
        model, example = zoo.create("mcunet_5fps", num_classes=10, weights=weights, resolution=128)
        calibration = np.random.default_rng(1).standard_normal((16, *example.shape[1:]))
        told = {"precision": "int8", "calibration": calibration.astype(np.float32)}
        return (
            model,
            example,
            {**told, "optimizer": sgd, "update": zoo.scheme("mcunet-5fps", "124kb")},
        )
    if name == "gestures":
        recordings, _ = gestures.recordings()
        return gestures.fresh(0), recordings[0][:1], {"optimizer": kg.SGD(lr=0.01, momentum=0.9)}
    options: dict[str, Any] = {"width": width}
    if name == "bert":
        options |= {"heads": 4, "hidden": 4 * width, "vocabulary": 1000, "sequence": 32}
    return *zoo.create(name, **options), {"optimizer": sgd}


def device(cpu: str, sram_bytes: int) -> Device:
    """The board of that processor with another amount of memory."""
    return load(BOARDS[cpu]).model_copy(update={**ROOM, "sram_bytes": sram_bytes // 8 * 8})


def samples(example: Any, count: int) -> list[tuple[np.ndarray, int]]:
    rng = np.random.default_rng(0)
    if "int" in str(example.dtype):
        inputs = rng.integers(0, 50, (count, *example.shape)).astype(np.int32)
    else:
        inputs = rng.standard_normal((count, *example.shape)).astype(np.float32)
    return [(x, index % 2) for index, x in enumerate(inputs)]


def learn(session: Any, data: list[tuple[np.ndarray, int]]) -> tuple[list[float], list[bytes]]:
    losses = [session.train_step(x, y, 0.01) for x, y in data]
    return losses, [array.tobytes() for _, array in sorted(session.raw_state().items())]


class Bench:
    """One network on one processor."""

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        self.width = arguments.width or FULL.get(name, 0)
        self.name, self.arguments = name, arguments
        self.model, self.example, told = network(name, self.width)
        self.data = samples(self.example, arguments.steps)
        roomy = device(arguments.device, 0x20000000)
        planning = kg.Planning(time_limit=arguments.time_limit)
        self.options = {**told, "storage": arguments.storage, "planning": planning}
        self.plain = kg.compile(self.model, self.example, device=roomy, **self.options)
        self.full_bytes = plain_sram_bytes(self.plain)
        self.expected = learn(self.plain.on_host(), self.data)

    def row(self, share: str) -> dict[str, Any]:
        start = time.monotonic()
        row: dict[str, Any] = {"network": self.name, "width": self.width, "share": share}
        try:
            program = self.program(share)
        except kg.InfeasibleError as error:
            return {**row, "sram_bytes": None, "why": str(error)}
        board = program.on_emulator()
        compiled = time.monotonic()
        same = learn(board, self.data) == self.expected
        cost, plain = program.step_cost, self.plain.step_cost
        assert cost is not None and plain is not None
        train = program.train.graph
        return {
            **row,
            "sram_bytes": program.device.memory_map().sram_bytes,
            "used_bytes": program.memory.sram_bytes,
            "of_all": program.device.memory_map().sram_bytes / self.full_bytes,
            "joules": cost.joules,
            "joules_more": cost.joules / plain.joules - 1,
            "seconds": cost.seconds,
            "seconds_more": cost.seconds / plain.seconds - 1,
            "instructions": board.instructions,
            "page_ins": sum(n.op.name == "page_in" for n in train.nodes),
            "page_outs": sum(n.op.name == "page_out" for n in train.nodes),
            "chunked": sum(n.op.name == "stored_sgd_step" for n in train.nodes),
            "again": sum(".again" in (n.outputs[0].name if n.outputs else "") for n in train.nodes),
            "stored_bytes": sum(v.type.bytes for v in train.stored),
            "gap": program.plans[-1].solution.gap if program.plans else 0.0,
            "same_bits": same,
            "plan_seconds": compiled - start,
            "run_seconds": time.monotonic() - compiled,
        }

    def program(self, share: str) -> Program:
        if share == "100":
            target = device(self.arguments.device, self.full_bytes + 7)
            return kg.compile(self.model, self.example, device=target, **self.options)
        if share == "least":
            return self.leanest()
        share_bytes = share.isdecimal() and int(self.full_bytes * int(share) / 100)
        target = device(self.arguments.device, share_bytes or parse_bytes(share))
        return kg.compile(self.model, self.example, device=target, **self.options)

    def leanest(self) -> Program:
        """In the least SRAM in which a plan was found."""
        roomy = device(self.arguments.device, 0x20000000)
        drafted = draft(self.model, self.example, device=roomy, **self.options)
        fitter = drafted.fitter(drafted.forms[0])
        program = fitter.built(fitter.lean())
        return replace(program, device=device(self.arguments.device, sram_bytes(program) + 7))


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network (width) | SRAM, B | of all | energy | time | reads | writes | again | weights "
        "in storage, B | gap | same bits |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if r["sram_bytes"] is None:
            name = f"{r['network']} ({r['width']})"
            lines.append(f"| {name} | no plan at {r['share']} % | | | | | | | | | |")
            continue
        lines.append(
            f"| {r['network']} ({r['width']}) | {r['sram_bytes']:,} | {r['of_all']:.0%} | "
            f"{r['joules'] * 1e3:,.3g} mJ ({r['joules_more']:+.1%}) | "
            f"{r['seconds']:.3g} s ({r['seconds_more']:+.1%}) | {r['page_ins'] + r['chunked']} | "
            f"{r['page_outs'] + r['chunked']} | {r['again']} | {r['stored_bytes']:,} | "
            f"{r['gap']:.1%} | {'yes' if r['same_bits'] else 'NO'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "networks", nargs="*", default=list(FULL), metavar=f"{{{','.join((*FULL, *OTHERS))}}}"
    )
    parser.add_argument("--width", type=int, help="by default that of the network in full")
    parser.add_argument("--device", choices=BOARDS, default="cortex-m7")
    parser.add_argument("--storage", default="sd")
    parser.add_argument("--shares", nargs="+", default=["100", "50", "25", "least"])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--time-limit", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in arguments.networks:
        bench = Bench(name, arguments)
        for share in arguments.shares:
            row = bench.row(share)
            print(json.dumps(row), flush=True)
            rows.append(row)
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
