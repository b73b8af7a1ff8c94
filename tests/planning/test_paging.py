"""Planned steps: the problem measures what the graph does, and the planned graph means the same."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from tests.agreement.networks import NARROW, NETWORKS, Network

import kilograd as kg
from kilograd.devices import load
from kilograd.ir import Graph, Value
from kilograd.ir.interpret import evaluate
from kilograd.ops.page import PageIn, PageOut, Paging
from kilograd.ops.stored_step import StoredSgdStep
from kilograd.options import Planning
from kilograd.planning.lifetimes import measure
from kilograd.planning.paging import Mover, Planned, Request, fit, node_prices
from kilograd.planning.paging.function import plan, pose
from kilograd.planning.paging.tasks import Kind, update_groups
from kilograd.planning.remat import Node, NoPlanError, validate
from kilograd.program import Program

DEVICE = load("stm32f746")
MOVER = Mover(DEVICE.storage[0], DEVICE)
QUICK = Planning(time_limit=3, gap=0.2)
SGD = kg.SGD(lr=0.01)
PLAIN = [n for n in (*NETWORKS[:3], *NETWORKS[6:10], *NARROW) if "weights" not in n.options]
CASES = [
    *((network, "float32", SGD, "float32") for network in PLAIN),
    (Network("lenet"), "float32", kg.SGD(lr=0.01, momentum=0.9, weight_decay=1e-3), "float32"),
    (Network("lenet"), "float32", kg.SGD(lr=0.01, atomic=False), "float32"),
    (Network("resnet8"), "int8", SGD, "float32"),
    (Network("dscnn"), "int8", kg.SGD(lr=0.01, momentum=0.9), "float32"),
    (Network("se_net"), "int8", kg.SGD(lr=0.01, rounding="residual"), "float32"),
    (Network("resnet8"), "int8", SGD, "int8"),
]
Case = tuple[Network, str, kg.SGD, str]


@cache
def program(case: Case) -> Program:
    network, precision, optimizer, gradients = case
    model, example = network.build()
    shape = (8, *example.shape[1:])
    data = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    return kg.compile(
        model, example, loss=network.loss, precision=precision, gradients=gradients,
        calibration=data if precision == "int8" else None, optimizer=optimizer,
        name=network.name,
    )  # fmt: skip


@pytest.fixture(params=CASES, ids=lambda c: f"{c[0]}-{c[1]}-{c[3]}-{c[2].momentum}-{c[2].atomic}")
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def request_of(case: Case) -> Request:
    graph = program(case).train.graph
    return Request(graph, node_prices(graph, DEVICE, None), case[2].atomic)


def all_stored(graph: Graph) -> frozenset[Value]:
    return frozenset(state for group in update_groups(graph) for state in group)


def step(graph: Graph, case: Case) -> list[np.ndarray]:
    """Loss and states after two steps, by the interpreter."""
    rng, state, losses = np.random.default_rng(3), None, []
    for index in range(2):
        arrays = {}
        for value in graph.inputs:
            if value.name == "learning_rate":
                arrays[value.name] = np.float32(0.05)
            elif value.name == "step":
                arrays[value.name] = np.uint32(index)
            elif value.type.dtype.text == "i32":
                arrays[value.name] = rng.integers(0, 2, value.type.shape).astype(np.int32)
            else:
                data = rng.standard_normal(value.type.shape)
                data = np.clip(40 * data, -128, 127) if value.type.dtype.text == "i8" else data
                arrays[value.name] = data.astype(value.type.dtype.numpy)
        result = evaluate(graph, arrays, state)
        state, losses = result.state, [*losses, result.outputs[0]]
    return [*losses, *(state[value] for value in graph.state)]


def check(planned: Planned, request: Request, ram_bytes: int, case: Case) -> None:
    assert validate(planned.problem, planned.solution) == []
    lives = measure(planned.graph)
    assert lives.peak_bytes <= ram_bytes
    for one, other in zip(step(request.graph, case), step(planned.graph, case), strict=True):
        np.testing.assert_array_equal(one, other)


def test_plain_peak_is_that_of_the_lifetimes(case: Case):
    """Where every task is one node, the problem counts the bytes that the arena would."""
    request = request_of(case)
    _, problem = pose(request, frozenset(), None)
    real = measure(request.graph).peak_bytes
    assert real <= problem.plain_peak_bytes <= 1.1 * real


def test_a_plain_problem_costs_what_its_nodes_do(case: Case):
    """An operator with several outputs, such as a pool with its mask, counts once."""
    request = request_of(case)
    _, problem = pose(request, frozenset(), None)
    assert problem.plain_joules == pytest.approx(sum(cost.joules for cost in request.costs))
    assert problem.plain_seconds == pytest.approx(sum(cost.seconds for cost in request.costs))


@pytest.mark.parametrize("memory", ["sram", "storage", "weights in storage"])
def test_a_plan_costs_what_its_graph_does(case: Case, memory: str):
    """Runs that several outputs share, reloads behind updates, pages and their checksums."""
    request = request_of(case)
    mover = None if memory == "sram" else MOVER
    stored = all_stored(request.graph) if memory == "weights in storage" else frozenset()
    _, problem = pose(request, stored, mover)
    ram_bytes = (problem.plain_peak_bytes + 2 * problem.least_bytes) // 3 + 512
    try:
        planned = plan(request, stored, ram_bytes, mover, QUICK)
    except NoPlanError as error:
        assert ram_bytes < (error.found_bytes or problem.plain_peak_bytes)
        return
    real = node_prices(planned.graph, DEVICE, MOVER.storage)
    unread = first_runs_that_nobody_reads(planned)
    joules = sum(cost.joules for cost in real) + sum(node.joules for node in unread)
    seconds = sum(cost.seconds for cost in real) + sum(node.seconds for node in unread)
    assert planned.solution.joules == pytest.approx(joules, rel=1e-6)
    assert planned.solution.seconds == pytest.approx(seconds, rel=1e-6)


def first_runs_that_nobody_reads(planned: Planned) -> list[Node]:
    """A plan runs every node in its turn; where it drops the result at once, the graph does not."""
    last, unread = -1, []
    made_by = zip(planned.graph.nodes, planned.trace.event_of, strict=True)
    real = {index for node, index in made_by if not node.op.alias}
    for index, event in enumerate(planned.solution.events):
        if event.kind == "compute":
            node = planned.problem.nodes[event.node]
            free = node.with_previous and last == event.node - 1
            if index not in real and not free:
                unread.append(node)
            last = event.node
    return unread


@pytest.mark.parametrize("memory", ["sram", "storage", "weights in storage"])
def test_planned_steps_mean_the_same(case: Case, memory: str):
    request = request_of(case)
    mover = None if memory == "sram" else MOVER
    stored = all_stored(request.graph) if memory == "weights in storage" else frozenset()
    assert stored or memory != "weights in storage"
    _, problem = pose(request, stored, mover)
    plain, least = problem.plain_peak_bytes, problem.least_bytes
    for ram_bytes in (plain, (plain + 2 * least) // 3 + 512):
        try:
            planned = plan(request, stored, ram_bytes, mover, QUICK)
        except NoPlanError as error:
            assert ram_bytes < (error.found_bytes or plain)
            continue
        check(planned, request, ram_bytes, case)


def test_pages_come_before_what_cannot_be_undone(case: Case):
    """In atomic programs no page is moved once a state in SRAM has been overwritten."""
    request = request_of(case)
    _, problem = pose(request, frozenset(), MOVER)
    ram_bytes = (problem.plain_peak_bytes + 2 * problem.least_bytes) // 3 + 512
    try:
        graph = plan(request, frozenset(), ram_bytes, MOVER, QUICK).graph
    except NoPlanError:
        pytest.skip("weights have to lie in storage for that")
    changed = {value for state, value in graph.updates.items() if state not in graph.stored}
    pages = [i for i, n in enumerate(graph.nodes) if isinstance(n.op, PageIn | PageOut)]
    writes = [i for i, n in enumerate(graph.nodes) if not changed.isdisjoint(n.outputs)]
    if case[2].atomic:
        assert not pages or max(pages) < min(writes)


def test_stored_states_are_read_and_written_through_pages_alone(case: Case):
    request = request_of(case)
    stored = all_stored(request.graph)
    _, problem = pose(request, stored, MOVER)
    graph = plan(request, stored, problem.plain_peak_bytes + 1024, MOVER, QUICK).graph
    assert graph.stored == stored
    written = {
        v for n in graph.nodes if isinstance(n.op, Paging) and n.op.writes for v in n.outputs
    }
    for node in graph.nodes:
        assert isinstance(node.op, Paging) or stored.isdisjoint(node.inputs)
    assert all((graph.updates[state] in written) == (state in stored) for state in graph.updates)


def test_constants_can_lie_in_storage():
    case = (Network("resnet8"), "float32", SGD, "float32")
    model, example = case[0].build()
    compiled = kg.compile(model, example, update=kg.update.last(1), name="resnet8")
    graph = compiled.train.graph
    constants = frozenset(v for v in graph.constants if v.type.bytes > 64)
    assert len(constants) > 4
    request = Request(graph, node_prices(graph, DEVICE, None))
    step_, problem = pose(request, constants, MOVER)
    assert sum(task.kind is Kind.LOAD for task in step_.tasks) == len(constants)
    ram_bytes = (problem.plain_peak_bytes + problem.least_bytes) // 2
    planned = plan(request, constants, ram_bytes, MOVER, QUICK)
    check(planned, request, ram_bytes, case)


def test_a_weight_that_was_updated_is_not_recomputed_from():
    """Without pages, updates stay where they are, and nothing that read a weight runs behind."""
    case = (Network("lenet"), "float32", kg.SGD(lr=0.01, atomic=False), "float32")
    request = request_of(case)
    _, problem = pose(request, frozenset(), None)
    writers = [n for n in problem.nodes if n.writes_state]
    assert writers and not any(n.recomputable for n in writers)
    broken = replace(problem, nodes=tuple(replace(n, reads_state=()) for n in problem.nodes))
    assert broken.last_rerun != problem.last_rerun


def test_large_updates_are_taken_in_chunks():
    """Where the step of a weight would need more than anything else, it never holds the weight."""
    case = (Network("mlp"), "float32", kg.SGD(lr=0.01, momentum=0.9), "float32")
    request = request_of(case)
    stored = all_stored(request.graph)
    _, problem = pose(request, stored, MOVER)
    largest = max(value.type.bytes for value in stored)
    assert problem.least_bytes < 3 * largest
    ram_bytes = problem.least_bytes + 1024
    planned = plan(request, stored, ram_bytes, MOVER, QUICK)
    assert any(isinstance(n.op, StoredSgdStep) for n in planned.graph.nodes)
    check(planned, request, ram_bytes, case)


def test_another_choice_of_weights_is_planned_where_the_cheapest_has_no_arena(monkeypatch):
    """Offsets may take more than the sum of bytes: the heuristic's first choice need not fit."""
    case = (Network("lenet"), "float32", SGD, "float32")
    request = request_of(case)
    refused: list[frozenset[Value]] = []

    def room(stored: frozenset[Value]) -> int:
        states = request.graph.state
        return 400_000 - sum(v.type.bytes for v in states if v not in stored)

    def refuse_first(request, stored, *rest):
        if not refused or stored in refused:
            refused.append(stored)
            raise NoPlanError("no arena fits", 0, None)
        return plan(request, stored, *rest)

    monkeypatch.setattr(sys.modules[fit.__module__], "plan", refuse_first)
    (planned,) = fit([request], room, MOVER, QUICK)
    assert refused and planned.step.stored not in refused
    check(planned, request, room(planned.step.stored), case)
