"""The figures of a program as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kilograd.planning.costs import in_words
from kilograd.planning.explain import describe_peak
from kilograd.planning.explain_plan import PlanExplanation, more

if TYPE_CHECKING:
    from kilograd.figures import Figures
    from kilograd.program import Program


def summary(program: Program) -> str:
    """Memory by use, work by direction, the tensors that make the peak, and what is trained."""
    figures, device = program.figures, program.device
    memory, macs = figures.memory, figures.macs
    directions = f"{figures.forward_operators:>4} forward, {figures.backward_operators} backward"
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
        f"  predict    {macs.predict:>12,} MACs  {figures.predict_operators:>4} operators",
        f"  train step {macs.train_step:>12,} MACs  {directions}",
        *_estimates(figures),
        "",
        f"  the arena's peak, {figures.peak_bytes:,} B alive:",
        *("  " + line for line in describe_peak(program.train).splitlines()),
        "",
        *_plan(figures.plan),
        f"  trained: {_trained(figures)}",
        *(f"  {line}" for line in figures.quantization),
        *(f"  note: {note}" for note in figures.notes),
    ]
    if device.is_host:
        lines.insert(8, "    (data, stack and flash are measured for microcontrollers only)")
    return "\n".join(lines)


def _plan(plan: PlanExplanation, limit: int = 8) -> Iterator[str]:
    """What a plan does, the dearest tensors first."""
    for told in plan.functions:
        if not told.tensors:
            continue
        yield (
            f"  {told.function} planned: {told.plain_peak_bytes:,} B alive as it stands, "
            f"{told.peak_bytes:,} B as planned"
        )
        yield f"    {told.price}{more(told)}, gap {told.gap:.1%}"
        rows = sorted(told.tensors, key=lambda t: (-(t.price.joules or t.size_bytes), t.name))
        for tensor in rows[:limit]:
            where = f"%{tensor.name} of {tensor.layer}"
            yield f"    {tensor.size_bytes:>10,} B  {where}: {tensor.counts}"
        if rows[limit:]:
            yield f'    and {len(rows) - limit} more; see explain("plan")'
        yield ""
    if plan.storage:
        yield from (f"  {line}" for line in str(plan.storage).splitlines())
        yield ""


def _estimates(figures: Figures) -> list[str]:
    """What prediction and training step take, and how far to trust that."""
    rows = (("predict", figures.predict), ("train step", figures.train_step))
    told = [(name, in_words(estimate)) for name, estimate in rows]
    if not all(words for _, words in told):
        return []
    return [
        "",
        *(f"  {name:<10} {words}" for name, words in told),
        *(f"    estimate: {sentence}" for sentence in figures.estimates),
    ]


def _of(available: int | None) -> str:
    return "" if available is None else f"   of {available:,}"


def _trained(figures: Figures) -> str:
    parts = figures.trained_tensors
    shown = ", ".join(parts[:6]) + (f", and {len(parts) - 6} more" if len(parts) > 6 else "")
    return f"{figures.trained_parameters:,} parameters in {len(parts)} tensors: {shown}"
