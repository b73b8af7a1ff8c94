"""Overlap of paging and computing on a device with DMA.

A page that moves while the processor computes costs no time if it is asked for early and waited for
late. So pages are read ahead of their use, as far as RAM allows, and a tensor that is written out
is dropped only when its room is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from kilograd.planning.remat.problem import Problem
from kilograd.planning.remat.solution import Event


def prefetched(problem: Problem, events: Sequence[Event], ram_bytes: int | None) -> list[Event]:
    """The same events in an order in which pages have time to move; no more than `ram_bytes`.

    Page-ins keep their order, and so do the others.
    """
    if not any(event.kind in ("page_in", "page_out") for event in events):
        return list(events)
    most = problem.plain_peak_bytes if ram_bytes is None else ram_bytes
    return _read_ahead(problem, _drop_late(problem, _early(problem, events), most), most)


def _early(problem: Problem, events: Sequence[Event]) -> list[Event]:
    """Tensors are written behind their first run and dropped behind their last use."""
    result: list[Event] = []
    touched: dict[int, int] = {}
    behind: dict[int, list[Event]] = {}
    for event in events:
        if event.kind in ("page_out", "drop"):
            behind.setdefault(touched.get(event.node, -1), []).append(event)
            continue
        if event.kind == "compute":
            for u in problem.nodes[event.node].inputs:
                touched[u] = len(result)
        touched[event.node] = len(result)
        result.append(event)
    early = list(behind.get(-1, []))
    for index, event in enumerate(result):
        early += [event, *behind.get(index, [])]
    return early


def _drop_late(problem: Problem, events: list[Event], most: int) -> list[Event]:
    """Drops of tensors that are being written wait until something needs the room."""
    result: list[Event] = []
    waiting: list[Event] = []
    writing: set[int] = set()
    used = sum(node.bytes for node in problem.nodes if node.given)
    for event in events:
        node = problem.nodes[event.node]
        if event.kind == "page_out":
            writing.add(event.node)
        elif event.kind == "drop":
            if event.node in writing:
                writing.discard(event.node)
                waiting.append(event)
                continue
            used -= node.bytes
        else:
            grows = node.bytes
            if event.over is not None:
                grows -= problem.nodes[event.over].bytes
            peak = grows + (node.scratch_bytes if event.kind == "compute" else 0)
            while waiting and (used + peak > most or any(w.node == event.node for w in waiting)):
                dropped = waiting.pop(0)
                used -= problem.nodes[dropped.node].bytes
                result.append(dropped)
            used += grows
        result.append(event)
    return result + waiting


def _read_ahead(problem: Problem, events: list[Event], most: int) -> list[Event]:
    """Move page-ins forward in time, the first ones first, past events that leave room."""
    nodes = problem.nodes
    used = sum(node.bytes for node in nodes if node.given)
    during: list[int] = []
    after: list[int] = [used]
    for event in events:
        size, scratch = nodes[event.node].bytes, 0
        if event.kind == "compute":
            over = 0 if event.over is None else nodes[event.over].bytes
            used += size - over
            scratch = nodes[event.node].scratch_bytes
        elif event.kind == "page_in":
            used += size
        elif event.kind == "drop":
            used -= size
        during.append(used + scratch)
        after.append(used)
    result, barrier = list(events), 0
    for index, event in enumerate(events):
        if event.kind != "page_in":
            continue
        size, place = nodes[event.node].bytes, index
        while (
            place > barrier
            and _may_precede(event, result[place - 1])
            and max(during[place - 1], after[place - 1]) + size <= most
        ):
            place -= 1
        # after[k] is the RAM in front of event k.
        if place < index:
            result[place : index + 1] = [event, *result[place:index]]
            passed = [used + size for used in during[place:index]]
            during[place : index + 1] = [after[place] + size, *passed]
            after[place + 1 : index + 1] = [used + size for used in after[place:index]]
        barrier = place + 1
    return result


def _may_precede(page_in: Event, other: Event) -> bool:
    """Whether a page-in can come before an event: pages keep their order, tensors do not meet."""
    return other.kind != "page_in" and other.node != page_in.node
