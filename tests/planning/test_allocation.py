"""Every solver against the validator, and against brute force where the problem is tiny."""

from __future__ import annotations

import itertools
import random
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kilograd.errors import InputError
from kilograd.planning import allocation
from kilograd.planning.allocation import (
    Allocation,
    AllocationProblem,
    Buffer,
    Method,
    NativeSearchError,
    isolated,
    native,
    search,
)

SOLVERS: tuple[Method, ...] = ("heuristic", "search", "cp-sat", "auto")


@st.composite
def problems(
    draw: st.DrawFn, most: int, alignments: tuple[int, ...] = (1, 2, 3, 4)
) -> AllocationProblem:
    count = draw(st.integers(1, most))
    buffers = []
    for index in range(count):
        first = draw(st.integers(-2, 6))
        buffers.append(
            Buffer(
                name=f"b{index}",
                size_bytes=draw(st.integers(1, 12)),
                first=first,
                last=first + draw(st.integers(1, 5)),
                alignment_bytes=draw(st.sampled_from(alignments)),
                at_bottom=index == 0 and draw(st.booleans()),
            )
        )
    return AllocationProblem(tuple(buffers))


def lowest_height(problem: AllocationProblem) -> int:
    """Every allocation that can be pushed down no further comes from placing the buffers, in some
    order, each on top of the ones before it that it lives together with; all orders are tried.
    """
    best = None
    for order in itertools.permutations(problem.buffers):
        offsets: dict[Buffer, int] = {}
        for buffer in order:
            below = [offsets[o] + o.size_bytes for o in offsets if o.overlaps(buffer)]
            offset = max(below, default=0)
            offsets[buffer] = offset + -offset % buffer.alignment_bytes
        if any(buffer.at_bottom and offsets[buffer] for buffer in order):
            continue
        height = max(offsets[buffer] + buffer.size_bytes for buffer in order)
        best = height if best is None else min(best, height)
    assert best is not None
    return best


@pytest.mark.parametrize("method", SOLVERS)
@settings(max_examples=30, deadline=None)
@given(problem=problems(most=25))
def test_every_solver_obeys_every_rule(method: Method, problem: AllocationProblem) -> None:
    answer = allocation.solve(problem, method=method, time_limit_seconds=0.2)
    assert allocation.validate(problem, answer) == []
    assert answer.lower_bound_bytes >= allocation.lower_bound_bytes(problem.buffers)


@pytest.mark.parametrize("method", ["search", "auto"])
@settings(max_examples=60, deadline=None)
@given(problem=problems(most=6))
def test_tiny_problems_are_solved_to_the_proven_optimum(
    method: Method, problem: AllocationProblem
) -> None:
    check_optimum(problem, method)


# CP-SAT runs in a process of its own, which takes a second to start.
@settings(max_examples=8, deadline=None)
@given(problem=problems(most=6))
def test_cp_sat_proves_the_optimum_of_tiny_problems(problem: AllocationProblem) -> None:
    check_optimum(problem, "cp-sat")


def check_optimum(problem: AllocationProblem, method: Method) -> None:
    answer = allocation.solve(problem, method=method, time_limit_seconds=60)
    assert answer.proven
    assert answer.height_bytes == lowest_height(problem)


def test_a_dying_solver_leaves_the_answer_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated.sys, "executable", "/bin/false")
    problem = dense_problem(40, 30, 1)
    heuristic = allocation.solve(problem, method="heuristic")
    assert not heuristic.proven
    answer = allocation.solve(problem, method="cp-sat", time_limit_seconds=5)
    assert answer.height_bytes == heuristic.height_bytes
    assert allocation.validate(problem, answer) == []


@settings(max_examples=200, deadline=None)
@given(problem=problems(most=6))
def test_bounds_are_below_the_optimum(problem: AllocationProblem) -> None:
    optimum = lowest_height(problem)
    answer = allocation.solve(problem, method="heuristic")
    assert allocation.lower_bound_bytes(problem.buffers) <= answer.lower_bound_bytes <= optimum
    assert optimum <= answer.height_bytes


@settings(max_examples=8, deadline=None)
@given(problem=problems(most=12), data=st.data())
def test_search_and_cp_sat_agree(problem: AllocationProblem, data: st.DataObject) -> None:
    by_search = allocation.solve(problem, method="search", time_limit_seconds=20)
    by_cp_sat = allocation.solve(problem, method="cp-sat", time_limit_seconds=20)
    assert by_search.proven and by_cp_sat.proven
    assert by_search.height_bytes == by_cp_sat.height_bytes


def dense_problem(count: int, steps: int, seed: int) -> AllocationProblem:
    generator = random.Random(seed)
    buffers = []
    for index in range(count):
        first = generator.randrange(steps)
        last = first + 1 + min(int(generator.expovariate(0.2)), steps)
        buffers.append(Buffer(f"b{index}", generator.randrange(1, 4096), first, last, 4))
    return AllocationProblem(tuple(buffers))


@pytest.mark.parametrize("method", SOLVERS)
def test_equal_problems_get_equal_answers(method: Method) -> None:
    problem = dense_problem(count=14, steps=12, seed=5)
    first = allocation.solve(problem, method=method, time_limit_seconds=60)
    second = allocation.solve(problem, method=method, time_limit_seconds=60)
    assert first == second
    assert method == "heuristic" or first.proven


def cut_rectangle(count: int, steps: int, height_bytes: int, seed: int) -> AllocationProblem:
    """A rectangle of time by bytes in so many pieces, of which nobody says where they lay."""
    generator = random.Random(seed)
    pieces = [(0, steps, height_bytes)]
    while len(pieces) < count:
        area = [(last - first) * size * generator.uniform(0.3, 1) for first, last, size in pieces]
        index = area.index(max(area))
        first, last, size = pieces[index]
        if last - first > 1 and (size < 8 or generator.random() < 0.5):
            middle = generator.randrange(first + 1, last)
            pieces[index : index + 1] = [(first, middle, size), (middle, last, size)]
        elif size > 8:
            part = 4 * generator.randrange(1, size // 4)
            pieces[index : index + 1] = [(first, last, part), (first, last, size - part)]
    buffers = (Buffer(f"b{k}", size, *span, 4) for k, (*span, size) in enumerate(pieces))
    return AllocationProblem(tuple(buffers))


def test_without_a_time_limit_slow_machines_give_the_same_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = cut_rectangle(count=150, steps=64, height_bytes=65536, seed=2)
    monkeypatch.setattr(sys.modules[allocation.solve.__module__], "MOST_PLACEMENTS", 60_000)
    fast = allocation.solve(problem)
    assert allocation.validate(problem, fast) == [] and not fast.proven
    execute, tried = search._Run.execute, []

    def slowly(run: search._Run) -> int:
        time.sleep(0.03)
        tried.append(run.most_placements)
        return execute(run)

    monkeypatch.setattr(search._Run, "execute", slowly)
    assert allocation.solve(problem) == fast
    assert 60_000 <= sum(tried) < 120_000
    tried.clear()
    allocation.solve(AllocationProblem(problem.buffers, capacity_bytes=65536))
    assert sum(tried) < 120_000  # both goals, the capacity and the least, together


def test_heuristics_place_five_thousand_buffers() -> None:
    problem = dense_problem(count=5000, steps=1500, seed=1)
    answer = allocation.solve(problem, method="heuristic")
    assert allocation.validate(problem, answer) == []
    assert answer.height_bytes < 1.5 * answer.lower_bound_bytes


def test_more_buffers_than_search_and_cp_sat_take() -> None:
    problem = dense_problem(count=2500, steps=700, seed=2)
    for limit in (1, None):
        answer = allocation.solve(problem, time_limit_seconds=limit)
        assert allocation.validate(problem, answer) == []
        assert answer.method == "heuristic"


def test_search_beats_the_heuristics_where_they_leave_a_gap() -> None:
    problem = dense_problem(count=14, steps=12, seed=5)
    greedy = allocation.solve(problem, method="heuristic")
    answer = allocation.solve(problem, method="search", time_limit_seconds=60)
    assert allocation.validate(problem, answer) == []
    assert answer.proven
    assert answer.method == "search"
    assert answer.height_bytes < greedy.height_bytes


def test_parts_that_never_meet_share_the_arena() -> None:
    low = [Buffer(f"low{k}", 10, k, k + 2) for k in range(4)]
    high = [Buffer(f"high{k}", 50, 10 + k, 12 + k) for k in range(4)]
    answer = allocation.solve(AllocationProblem((*low, *high)))
    assert answer.height_bytes == 100
    assert answer.proven
    assert allocation.validate(AllocationProblem((*low, *high)), answer) == []


def test_a_target_is_good_enough() -> None:
    problem = dense_problem(count=30, steps=10, seed=3)
    greedy = allocation.solve(problem, method="heuristic")
    answer = allocation.solve(problem, target_bytes=greedy.height_bytes)
    assert answer.method == "heuristic"
    assert answer.height_bytes <= greedy.height_bytes


def test_an_answer_above_the_capacity_says_so() -> None:
    buffers = (Buffer("a", 60, 0, 2), Buffer("b", 60, 1, 3))
    problem = AllocationProblem(buffers, capacity_bytes=100)
    answer = allocation.solve(problem)
    assert answer.proven
    assert answer.height_bytes == 120
    assert [text for text in allocation.validate(problem, answer) if "20 bytes above" in text]


def test_no_buffers() -> None:
    assert allocation.solve(AllocationProblem(())) == Allocation({}, 0, 0, "none")


def test_rounding_does_not_cost_the_topmost_buffer() -> None:
    buffers = (Buffer("a", 5, 0, 1, 4), Buffer("b", 4, 0, 1, 4))
    answer = allocation.solve(AllocationProblem(buffers))
    assert (answer.height_bytes, answer.proven) == (9, True)
    assert answer.offsets == {"b": 0, "a": 4}


def test_pinned_buffers_lie_at_the_bottom() -> None:
    buffers = (Buffer("large", 100, 0, 4), Buffer("input", 4, 0, 2, 4, at_bottom=True))
    for method in SOLVERS:
        answer = allocation.solve(AllocationProblem(buffers), method=method)
        assert answer.offsets == {"input": 0, "large": 4}


@pytest.mark.parametrize("arguments", [{"method": "luck"}, {"time_limit_seconds": -1}])
def test_bad_arguments(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"luck|-1"):
        allocation.solve(AllocationProblem(()), **arguments)  # type: ignore[arg-type]


def test_without_a_compiler_auto_goes_on_and_search_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    monkeypatch.setenv("KILOGRAD_CACHE", str(blocked))
    native.library.cache_clear()
    problem = dense_problem(count=14, steps=12, seed=5)
    assert not allocation.solve(problem, method="heuristic").proven
    try:
        with pytest.raises(NativeSearchError, match="KILOGRAD_CACHE"):
            allocation.solve(problem, method="search")
        answer = allocation.solve(problem, time_limit_seconds=60)
    finally:
        native.library.cache_clear()
    assert answer.proven
    assert allocation.validate(problem, answer) == []


def test_the_search_is_built_where_the_cache_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KILOGRAD_CACHE", str(tmp_path / "cache"))
    native.library.cache_clear()
    try:
        native.library()
    finally:
        native.library.cache_clear()
    (built,) = (tmp_path / "cache").iterdir()
    assert built.name.startswith("allocation_search-")
