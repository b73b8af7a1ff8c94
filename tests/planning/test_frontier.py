"""A frontier: programs that can be built, from the least SRAM to what the step needs unplanned."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.planning.planned import NETWORKS, QUICK, unplanned

import kilograd as kg
from kilograd import frontend
from kilograd.report import frontier_charts, write_frontier

OPTIONS = {"conv": {}, "dense": {"update": kg.update.last(2)}}
DEVICES = {"conv": "nrf52840", "dense": "stm32f746"}


@pytest.fixture(scope="module", params=NETWORKS)
def found(request: pytest.FixtureRequest) -> tuple[str, kg.Frontier]:
    network = request.param
    model, example = NETWORKS[network]()
    device = DEVICES[network]
    options = OPTIONS[network]
    return network, kg.plan_frontier(
        model, example, device=device, points=4, planning=QUICK, **options
    )


def test_energy_falls_as_sram_grows(found):
    _, frontier = found
    assert len(frontier) >= 2 and list(frontier) == list(frontier.points)
    for lean, rich in zip(frontier, frontier.points[1:], strict=False):
        assert lean.sram_bytes < rich.sram_bytes and lean.joules > rich.joules


def test_every_point_is_a_program_of_that_much_sram(found):
    _, frontier = found
    for point in frontier:
        program = point.program()
        assert program.memory.sram_bytes == point.sram_bytes
        assert program.arena_bytes == point.arena_bytes
        assert program.step_cost.joules == point.joules
        assert program.step_cost.seconds == point.seconds
        assert bool(program.plans) == point.planned
        stored = program.train.graph.stored
        assert point.stored_bytes == sum(value.type.bytes for value in stored)
        program.check_fit()
    assert [point.planned for point in frontier] == [True] * (len(frontier) - 1) + [False]


def test_the_ends(found):
    network, frontier = found
    plain = unplanned(network, DEVICES[network])
    assert frontier[-1].sram_bytes == plain.memory.sram_bytes
    model, example = NETWORKS[network]()
    options = {"device": DEVICES[network], "planning": QUICK, **OPTIONS[network]}
    least = frontier[0].sram_bytes
    program = kg.compile(model, example, budget=kg.Budget(sram=least), **options)
    assert program.memory.sram_bytes <= least
    with pytest.raises(kg.InfeasibleError, match="least"):
        kg.compile(model, example, budget=kg.Budget(sram=least - 600), **options)


def test_the_leanest_program_learns_the_same(found):
    _, frontier = found
    sessions = [p.program().on_emulator() for p in (frontier[0], frontier[-1])]
    rng = np.random.default_rng(0)
    shape = sessions[0]._interface.input.shape
    for label in range(3):
        x = rng.normal(size=shape).astype(np.float32)
        assert sessions[0].train_step(x, label) == sessions[1].train_step(x, label)
    lean, plain = (session.raw_state() for session in sessions)
    assert all(np.array_equal(lean[name], plain[name]) for name in plain)


def test_the_table_and_the_data(found):
    _, frontier = found
    lines = str(frontier).splitlines()
    assert frontier.network in lines[0] and frontier.device in lines[0]
    for point, line in zip(frontier, lines[3:], strict=False):
        assert f"{point.sram_bytes:,}" in line.split()[0] and f"{point.joules * 1e3:.4g}" in line
    rows = json.loads(json.dumps(frontier.to_json()))["points"]
    assert [row["sram_bytes"] for row in rows] == [point.sram_bytes for point in frontier]
    assert set(rows[0]) >= {"seconds", "joules", "gap", "page_ins", "page_outs", "recomputations"}


def test_the_page_has_the_points(found, tmp_path):
    _, frontier = found
    charts = frontier_charts(frontier)
    assert set(charts) == {"joules", "seconds"}
    for measure in charts:
        _, marks, _ = charts[measure]["layer"]
        rows = marks["data"]["values"]
        assert [row["sram"] for row in rows] == [point.sram_bytes for point in frontier]
        assert [row["value"] for row in rows] == [getattr(point, measure) for point in frontier]
        reads = ["reads" in row["note"] for row in rows]
        assert reads == [point.page_ins > 0 for point in frontier]
    page = write_frontier(frontier, tmp_path / "front.html").read_text()
    assert "http://" not in page.split("<script>", 1)[0] and str(frontier[0].sram_bytes) in page
    assert str(frontier).splitlines()[-1] in page


def test_a_report_shows_the_points_as_choices(found, tmp_path):
    _, frontier = found
    program = frontier[0].program()
    page = program.report(tmp_path / "r.html", fronts={"plans": frontier.choices(program)})
    text = page.read_text()
    assert f"plan for {program.memory.sram_bytes:,} B<div>" in text and "as it stands" in text
    assert [point.chosen for point in frontier.choices(program)].index(True) == 0
    assert not any(point.chosen for point in frontier.choices())


def test_the_model_is_imported_once(monkeypatch):
    calls, load = [], frontend.load
    monkeypatch.setattr(frontend, "load", lambda *a: calls.append(a) or load(*a))
    model, example = NETWORKS["dense"]()
    update = kg.update.last(1)
    kg.plan_frontier(model, example, update=update, device="rp2040", points=2, planning=QUICK)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 1}, "at least 2"),
        ({"points": True}, "at least 2"),
        ({"budget": kg.Budget(sram="64KB")}, "what a frontier varies"),
        ({"planning": kg.Planning(recompute=False, page=False)}, "but one program"),
        ({"storage": "tape", "device": "rp2040"}, "no storage 'tape'"),
    ],
)
def test_wrong_arguments(options, message):
    model, example = NETWORKS["dense"]()
    with pytest.raises(kg.InputError, match=message):
        kg.plan_frontier(model, example, **options)


def test_a_step_time_that_nothing_keeps():
    model, example = NETWORKS["dense"]()
    with pytest.raises(kg.InfeasibleError, match="a training step takes"):
        kg.plan_frontier(model, example, device="rp2040", budget=kg.Budget(step_time="1us"))
