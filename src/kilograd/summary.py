"""The figures of a program as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kilograd.planning.explain import describe_peak

if TYPE_CHECKING:
    from kilograd.program import Program


def summary(program: Program) -> str:
    """Memory by use, work by direction, the tensors that make the peak, and what is trained."""
    memory, macs, device = program.memory, program.macs, program.device
    train = program.train.graph
    forward = sum(not node.location.backward for node in train.nodes)
    backward = len(train.nodes) - forward
    lines = [
        f"{program.name} for {device.title}",
        "",
        f"  SRAM    {memory.sram_bytes:>12,} B" + _of(device.sram_bytes),
        f"    arena {memory.arena_bytes:>12,} B   lower bound {memory.lower_bound_bytes:,}",
        f"    state {memory.state_bytes:>12,} B   trained weights and optimiser",
        f"    data  {memory.data_bytes:>12,} B   other static data",
        f"    stack {memory.stack_bytes:>12,} B   worst case of the linked image",
        f"  flash   {memory.flash_bytes:>12,} B" + _of(device.flash_bytes),
        "",
        f"  predict    {macs.predict:>12,} MACs  {len(program.predict.graph.nodes):>4} operators",
        f"  train step {macs.train_step:>12,} MACs  {forward:>4} forward, {backward} backward",
        "",
        f"  the arena's peak, {program.train.lifetimes.peak_bytes:,} B alive:",
        *("  " + line for line in describe_peak(program.train).splitlines()),
        "",
        f"  trained: {_trained(program)}",
        *_precision(program),
        *(f"  note: {note}" for note in program.notes),
    ]
    if device.is_host:
        lines.insert(8, "    (data, stack and flash are measured for microcontrollers only)")
    return "\n".join(lines)


def _precision(program: Program) -> list[str]:
    report = program.quantized
    if report is None:
        return []
    kept = [f"  float32: {layer}, {operator}: {why}" for layer, operator, why in report.kept]
    score = [f"  {report.score}"] if report.score else []
    return ["  precision: int8", *kept, *score]


def _of(available: int | None) -> str:
    return "" if available is None else f"   of {available:,}"


def _trained(program: Program) -> str:
    parts, total = [], 0
    for value, tensor in program.train.graph.state.items():
        if tensor.origin is None:
            continue
        total += value.type.size
        part = tensor.origin.part
        share = f" [{part.stop - part.start}/{part.whole} channels]" if part else ""
        parts.append(tensor.origin.name + share)
    shown = ", ".join(parts[:6]) + (f", and {len(parts) - 6} more" if len(parts) > 6 else "")
    return f"{total:,} parameters in {len(parts)} tensors: {shown}"
