"""Each rule of the validator, broken once by a plan that obeys all others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kilograd.planning import remat
from kilograd.planning.remat import Event, Limits, Node, Problem, Solution

PAGE = {
    "page_in_seconds": 0.5,
    "page_in_joules": 0.25,
    "page_out_seconds": 0.5,
    "page_out_joules": 0.25,
}
PROBLEM = Problem(
    (
        Node("x", 10, 0.0, 0.0, given=True, **PAGE),
        Node("a", 10, 1.0, 2.0, (0,), in_place=(0,), reads_state=("w",), **PAGE),
        Node("b", 20, 1.0, 2.0, (1,), scratch_bytes=5, recomputable=False, pageable=False),
        Node("update", 0, 1.0, 2.0, (1,), writes_state=("w",)),
        Node("loss", 4, 1.0, 2.0, (1, 2), resident=True, saved=True, **PAGE),
        Node("end", 4, 1.0, 2.0, (1, 4)),
    )
)
RIGHT: tuple[Event, ...] = (
    Event("compute", 1, over=0),
    Event("page_out", 1),
    Event("compute", 2),
    Event("drop", 1),
    Event("page_in", 1),
    Event("compute", 3),
    Event("drop", 3),
    Event("compute", 4),
    Event("page_out", 4),
    Event("drop", 2),
    Event("compute", 5),
)
STALE = (Event("drop", 1), Event("page_in", 0), Event("compute", 1))
LIMITS = Limits(ram_bytes=35, seconds=7.0, joules=12.0)


def plan(events: tuple[Event, ...] = RIGHT, **changes: object) -> Solution:
    figures = remat.replay(PROBLEM, events)
    right = Solution(
        events, figures.joules, figures.seconds, figures.peak_bytes, 10.0, LIMITS, "energy", "hand"
    )
    return replace(right, **changes)


def rules(solution: Solution) -> list[tuple[str, int | None]]:
    return [(b.rule, b.event) for b in remat.validate(PROBLEM, solution)]


def changed(index: int, *events: Event, drop: int = 1) -> Solution:
    """The right plan with `drop` events from `index` on replaced, and no limits."""
    return plan((*RIGHT[:index], *events, *RIGHT[index + drop :]), limits=Limits())


def test_the_right_plan_breaks_none() -> None:
    assert rules(plan()) == []
    assert (plan().joules, plan().seconds, plan().peak_bytes) == (10.75, 6.5, 35)


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (changed(0, Event("compute", 9), drop=0), ("known", 0)),
        (changed(10, Event("halt", 5)), ("known", 10)),
        (changed(0, Event("compute", 0), drop=0), ("given", 0)),
        (changed(2, Event("compute", 4), drop=0), ("order", 2)),
        (changed(10), ("complete", None)),
        (changed(4), ("input", 4)),
        (changed(4, Event("page_in", 1), Event("page_in", 1)), ("present", 5)),
        (changed(5, Event("compute", 1), drop=0), ("present", 5)),
        (changed(9, Event("drop", 2), Event("drop", 2)), ("absent", 10)),
        (changed(9, Event("drop", 2), Event("compute", 2)), ("rerun", 10)),
        (changed(7, *STALE, drop=0), ("state", 9)),
        (changed(3, Event("page_out", 2), drop=0), ("pageable", 3)),
        (changed(4, Event("page_in", 0), drop=0), ("stored", 4)),
        (changed(2, Event("page_out", 1), drop=0), ("written", 2)),
        (changed(1, Event("page_out", 3), drop=0), ("absent", 1)),
        (changed(9, Event("drop", 4), drop=0), ("resident", 9)),
        (changed(8), ("saved", None)),
        (changed(2, Event("compute", 2, over=1)), ("in_place", 2)),
        (plan(limits=Limits(ram_bytes=34)), ("ram", 2)),
        (plan(limits=Limits(seconds=6.4)), ("deadline", None)),
        (plan(limits=Limits(joules=10.7)), ("energy", None)),
        (plan(joules=10.0), ("figures", None)),
        (plan(seconds=6.0), ("figures", None)),
        (plan(peak_bytes=34), ("figures", None)),
        (plan(bound=11.0), ("bound", None)),
    ],
)  # fmt: skip
def test_each_rule(broken: Solution, expected: tuple[str, int | None]) -> None:
    assert expected in rules(broken)


def test_a_rule_tells_the_numbers() -> None:
    (broken,) = remat.validate(PROBLEM, plan(limits=Limits(ram_bytes=34)))
    assert str(broken) == "[ram] event 2: 35 bytes in RAM, 1 above the limit of 34"


def test_a_processor_with_dma_waits_only_for_what_it_reads() -> None:
    problem = replace(PROBLEM, dma=True)
    # a is written while b runs; its way back, update, loss and the end wait for each other.
    assert remat.replay(problem, RIGHT).seconds == 5.5
    early = (*RIGHT[:3], RIGHT[4], *RIGHT[5:])
    assert [b.rule for b in remat.replay(problem, early).broken] == ["present"]
