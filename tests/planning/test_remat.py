"""Plans against the validator, and against every schedule where the problem is tiny."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from all_schedules import any_problem, best_value, least_peak, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from kilograd.errors import InputError
from kilograd.planning import remat
from kilograd.planning.remat import (
    Limits,
    Node,
    NoPlanError,
    Problem,
    Solution,
    highs,
)


@st.composite
def tiny(draw: st.DrawFn, most: int, *, rules: bool) -> tuple[Problem, Limits]:
    def integer(least: int, most: int) -> int:
        return draw(st.integers(least, most))

    return any_problem(integer, draw(st.integers(2, most)), rules=rules)


def solved(problem: Problem, limits: Limits, **options: object) -> Solution | None:
    timed = limits.seconds is not None and problem.plain_seconds > 0
    deadline = limits.seconds / problem.plain_seconds if timed else None
    try:
        plan = remat.solve(
            problem, ram_bytes=limits.ram_bytes, deadline=deadline, gap=0.0, **options
        )
    except NoPlanError:
        return None
    assert remat.validate(problem, plan) == []
    return plan


def chain(layers: int, *, page_joules: float = 1.0, **options: bool) -> Problem:
    """Layers of one size and their gradients."""
    page = {"page_in_joules": page_joules, "page_out_joules": page_joules}
    nodes = [Node("x", 100, 0.0, 0.0, **page)]
    nodes += [Node(f"f{i}", 100, 1.0, 1.0, (i - 1,), **page) for i in range(1, layers + 1)]
    nodes.append(Node("loss", 4, 1.0, 1.0, (layers,), **page))
    for i in range(layers, 0, -1):
        nodes.append(Node(f"b{i}", 100, 2.0, 2.0, (i - 1, i, len(nodes) - 1), **page))
    return Problem(tuple(nodes), **options)


FREEDOMS = [{}, {"page": False}, {"recompute": False}]


@pytest.mark.parametrize("freedom", FREEDOMS, ids=["both", "recompute", "page"])
@pytest.mark.parametrize("rules", [False, True], ids=["free", "rules"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_schedule_needs_less_energy(
    data: st.DataObject, rules: bool, freedom: dict[str, bool]
) -> None:
    problem, limits = data.draw(tiny(7, rules=rules))
    best = best_value(problem, limits, "energy", **freedom)
    plan = solved(problem, limits, **freedom)
    assert (plan is None) == (best is None)
    if plan is not None and best is not None:
        assert plan.joules == pytest.approx(best)
        assert plan.bound == pytest.approx(best)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_schedule_of_eight_nodes_needs_less_energy(data: st.DataObject) -> None:
    problem, limits = data.draw(tiny(8, rules=data.draw(st.booleans())))
    best = best_value(problem, limits, "energy")
    plan = solved(problem, limits)
    assert (plan and plan.joules) == (None if best is None else pytest.approx(best))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_schedule_is_faster(data: st.DataObject) -> None:
    problem, limits = data.draw(tiny(6, rules=True))
    within = Limits(limits.ram_bytes, None)
    best = best_value(problem, within, "time")
    plan = solved(problem, within, objective="time")
    assert (plan and plan.seconds) == (None if best is None else pytest.approx(best))


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_no_schedule_needs_less_ram(data: st.DataObject) -> None:
    problem, limits = data.draw(tiny(5, rules=True))
    least = least_peak(problem, Limits(None, limits.seconds))
    plan = solved(problem, Limits(None, limits.seconds), objective="peak")
    assert (plan and plan.peak_bytes) == least


@pytest.mark.parametrize("seed", range(12))
def test_the_formulation_alone_finds_the_best_schedule(seed: int) -> None:
    problem, limits = random_problem(seed, 6, rules=False)
    best = best_value(problem, limits, "energy")
    plan = solved(problem, limits, method="gap")
    assert (plan and plan.joules) == (None if best is None else pytest.approx(best))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_greedy_plans_obey_every_rule(data: st.DataObject) -> None:
    problem, limits = data.draw(tiny(14, rules=True))
    for freedom in FREEDOMS:
        try:
            plan = remat.solve(
                problem, ram_bytes=limits.ram_bytes, deadline=None, method="greedy", **freedom
            )
        except NoPlanError:
            continue
        assert remat.validate(problem, plan) == []


@pytest.mark.parametrize("seed", range(6))
def test_the_formulation_obeys_every_rule_of_larger_graphs(seed: int) -> None:
    problem, limits = random_problem(100 + seed, 24, rules=True)
    solved(problem, limits, time_limit=20)


def test_relaxed_formulations_prove_a_recomputed_chain_optimal() -> None:
    problem = chain(24)
    ram_bytes = problem.plain_peak_bytes // 2
    plan = remat.solve(problem, ram_bytes=ram_bytes, deadline=3, page=False, gap=0.001)
    assert remat.validate(problem, plan) == []
    assert plan.gap <= 0.001
    assert plan.count("compute") > len(problem.nodes)
    assert plan.count("page_in") == 0


def test_switches() -> None:
    problem = chain(12)
    ram_bytes = problem.plain_peak_bytes // 2
    paged = remat.solve(problem, ram_bytes=ram_bytes, recompute=False)
    assert paged.count("compute") == len(problem.nodes)
    assert paged.count("page_in") > 0
    plain = remat.solve(
        problem, ram_bytes=problem.plain_peak_bytes, recompute=False, page=False, deadline=1.0
    )
    assert plain.joules == problem.plain_joules and plain.gap == 0.0


def test_the_deadline_makes_a_plan_page_instead_of_recompute() -> None:
    problem = chain(12, page_joules=3.0)
    ram_bytes = problem.plain_peak_bytes // 3
    slow = remat.solve(problem, ram_bytes=ram_bytes, deadline=None, gap=0.0)
    fast = remat.solve(problem, ram_bytes=ram_bytes, deadline=1.05, gap=0.0)
    assert slow.count("page_in") < fast.count("page_in")
    assert slow.count("compute") > fast.count("compute")
    assert fast.seconds <= 1.05 * problem.plain_seconds
    assert fast.joules > slow.joules


def test_energy_limits_the_other_objectives() -> None:
    problem = chain(7, page_joules=3.0)
    limit = 1.2
    lean = remat.solve(problem, objective="peak", energy=limit, deadline=None, gap=0.0)
    assert lean.joules <= limit * problem.plain_joules
    free = remat.solve(problem, objective="peak", deadline=None, gap=0.0)
    assert free.peak_bytes < lean.peak_bytes < problem.plain_peak_bytes


def test_a_tensor_is_not_recomputed_from_an_updated_weight() -> None:
    """x -> a (reads w) -> big -> update of w (reads big) -> last (reads a, big)."""
    nodes = (
        Node("x", 1, 1.0, 1.0),
        Node("a", 8, 1.0, 1.0, (0,), reads_state=("w",), page_in_joules=50.0),
        Node("big", 10, 1.0, 1.0, (0,)),
        Node("update", 0, 1.0, 1.0, (2,), writes_state=("w",)),
        Node("last", 1, 1.0, 1.0, (1, 2)),
    )
    free = replace(nodes[1], reads_state=())
    stale = remat.solve(Problem(nodes), ram_bytes=19, deadline=None, gap=0.0)
    fresh = remat.solve(Problem((nodes[0], free, *nodes[2:])), ram_bytes=19, deadline=None, gap=0.0)
    assert remat.validate(Problem(nodes), stale) == []
    assert fresh.joules <= stale.joules
    update = next(i for i, e in enumerate(stale.events) if e.node == 3)
    assert all(e.node != 1 or e.kind != "compute" for e in stale.events[update:])


def test_pages_overlap_with_computing() -> None:
    problem = chain(10)
    nodes = tuple(
        replace(n, page_in_seconds=0.4, page_out_seconds=0.4, joules=9 * n.joules)
        for n in problem.nodes
    )
    ram_bytes = problem.plain_peak_bytes // 2
    waits = remat.solve(Problem(nodes), ram_bytes=ram_bytes, deadline=None)
    moves = remat.solve(Problem(nodes, dma=True), ram_bytes=ram_bytes, objective="time")
    assert remat.validate(Problem(nodes, dma=True), moves) == []
    assert waits.count("page_in") > 0
    assert waits.seconds > problem.plain_seconds
    in_order = remat.replay(Problem(nodes, dma=True), waits.events)
    assert moves.seconds < in_order.seconds <= waits.seconds
    assert moves.seconds == pytest.approx(problem.plain_seconds)
    assert moves.seconds >= moves.bound


def test_plans_and_problems_survive_json(tmp_path: Path) -> None:
    problem, _ = random_problem(3, 8, rules=True)
    remat.save(problem, tmp_path / "problem.json")
    assert remat.load(tmp_path / "problem.json") == problem
    plan = solved(*random_problem(0, 6, rules=False))
    assert plan is not None
    remat.save_solution(plan, tmp_path / "plan.json")
    assert remat.load_solution(tmp_path / "plan.json") == plan


def test_the_same_problem_gives_the_same_plan() -> None:
    problem = chain(14)
    first, second = (remat.solve(problem, ram_bytes=900, gap=0.0) for _ in range(2))
    assert first == second


def test_the_frontier_falls() -> None:
    problem = chain(7)
    plans = remat.frontier(problem, points=5, deadline=None, gap=0.001)
    assert len(plans) >= 3
    assert plans[0].peak_bytes == problem.least_bytes
    assert plans[-1].joules == problem.plain_joules
    for leaner, richer in itertools.pairwise(plans):
        assert remat.validate(problem, richer) == []
        assert richer.joules < leaner.joules
        assert richer.limits.ram_bytes > leaner.limits.ram_bytes


def test_a_solver_that_dies_leaves_the_greedy_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(highs, "_CHILD", "/nowhere/child.py")
    problem = chain(12)
    plan = remat.solve(problem, ram_bytes=600)
    assert plan.method == "greedy"
    assert remat.validate(problem, plan) == []


def test_importing_the_planner_does_not_import_or_tools() -> None:
    code = (
        "import sys, kilograd.planning as p; p.load; p.solve; p.validate; p.frontier;"
        "print(any(name.startswith('ortools') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "cost"}, "objective 'cost' is none of energy, time, peak"),
        ({"method": "magic"}, "method 'magic' is none of auto, greedy, gap"),
        ({"ram_bytes": 0}, "ram_bytes is 0; it has to be positive"),
        ({"deadline": 0.5}, "deadline is 0.5 times the plain step's"),
        ({"energy": 0.9}, "energy is 0.9 times the plain step's"),
        ({"time_limit": -1.0}, "time_limit is -1.0 s and gap 0.01; neither can be negative"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        remat.solve(chain(2), **options)


def test_too_little_ram_names_the_least_and_what_makes_it() -> None:
    problem = chain(4)
    with pytest.raises(NoPlanError) as caught:
        remat.solve(problem, ram_bytes=399)
    assert caught.value.least_bytes == caught.value.found_bytes == 400
    text = str(caught.value)
    assert "the step does not fit 399 bytes of RAM; the least that does is 400 bytes" in text
    assert "node 'b3' alone needs 400 bytes: its output (100), 'f2' (100), 'f3' (100)" in text
    assert "split node 'b3' or make its tensors smaller" in text


def test_tensors_that_cannot_leave_are_named() -> None:
    nodes = (
        Node("held", 50, 1.0, 1.0, pageable=False, recomputable=False),
        Node("big", 100, 1.0, 1.0, ()),
        Node("small", 1, 1.0, 1.0, (1,)),
        Node("end", 1, 1.0, 1.0, (0, 2)),
    )
    with pytest.raises(NoPlanError) as caught:
        remat.solve(Problem(nodes), ram_bytes=120)
    assert caught.value.least_bytes == caught.value.found_bytes == 151
    assert "beside 'held' (50), which cannot leave RAM" in str(caught.value)
    assert "let 'held' be paged or run again" in str(caught.value)


def test_a_deadline_that_is_too_short_is_told_from_ram_that_is_too_small() -> None:
    problem = chain(3)
    ram_bytes = problem.least_bytes
    with pytest.raises(NoPlanError) as caught:
        remat.solve(problem, ram_bytes=ram_bytes, page=False, deadline=1.0)
    text = str(caught.value)
    assert f"no plan exists within {ram_bytes} bytes of RAM and 10 s" in text
    assert "allow more time, or allow `page`" in text
    assert ram_bytes < caught.value.found_bytes < problem.plain_peak_bytes


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((Node("a", 1, 1.0, 1.0, (0,)),), "node 0 'a' reads"),
        ((Node("a", 1, 1.0, 1.0), Node("a", 1, 1.0, 1.0)), "nodes 0 and 1 are both named 'a'"),
        ((Node("a", -1, 1.0, 1.0),), "bytes is -1; it has to be finite and not negative"),
        ((Node("a", 1, 1.0, float("nan")),), "joules is nan"),
        ((Node("a", 1, 1.0, 1.0), Node("b", 1, 1.0, 1.0, in_place=(0,))), "does not read"),
        (
            (Node("a", 1, 1.0, 1.0), Node("b", 2, 1.0, 1.0, (0,), in_place=(0,))),
            "has 2 bytes and cannot take over the buffer of 'a', which has 1",
        ),
        ((Node("a", 1, 1.0, 1.0), Node("b", 1, 0.0, 0.0, given=True)), "only given nodes"),
        ((Node("a", 1, 1.0, 1.0, pageable=False, saved=True),), "may not be paged"),
    ],
)
def test_problems_that_make_no_sense(nodes: tuple[Node, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Problem(nodes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "the top level is no object"),
        ("{}", "this is no planning problem"),
        ('{"nodes": [{"name": "a", "colour": 1}]}', "unknown fields: colour"),
        ('{"nodes": [{"name": "a"}], "edges": []}', "an instance of POET lacks"),
    ],
)
def test_files_that_hold_no_problem(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "problem.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        remat.load(path)


@pytest.mark.parametrize("content", ["{", json.dumps({"events": [["compute", 0]]})])
def test_files_that_hold_no_plan(tmp_path: Path, content: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(InputError):
        remat.load_solution(path)
