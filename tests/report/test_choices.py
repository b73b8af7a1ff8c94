"""Fronts of choices, and tensors that leave the arena: data in, charts and tables out."""

from __future__ import annotations

import itertools

import pytest
from tests.planning.planned import planned
from tests.report.programs import fronts, full_mlp, paged_figures, sparse_lenet
from tests.report.test_report import charts, text_of, values

import kilograd as kg
from kilograd.planning.facts import GapKind
from kilograd.planning.front import FrontPoint, Measure, efficient, measure_of

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from kilograd.report import render
from kilograd.report.charts import front, memory_map
from kilograd.report.choices import quantity

pytestmark = pytest.mark.xdist_group("report")


def test_a_front_is_what_no_other_beats():
    points = [
        FrontPoint(f"{s},{g}", s, gain=float(g)) for s, g in itertools.product((1, 2, 3), repeat=2)
    ]
    best = {p.label for p, on in zip(points, efficient(points, Measure.GAIN), strict=True) if on}
    assert best == {"1,3"}
    costs = [FrontPoint("a", 10, joules=3.0), FrontPoint("b", 20, joules=2.0),
             FrontPoint("c", 20, joules=2.0), FrontPoint("d", 30, joules=2.0),
             FrontPoint("e", 15, joules=3.5)]  # fmt: skip
    assert efficient(costs, Measure.JOULES) == [True, True, True, False, False]


def test_the_measure_is_one_that_all_points_have():
    assert measure_of([FrontPoint("a", 1, seconds=1.0, joules=1.0)]) is Measure.JOULES
    mixed = [FrontPoint("a", 1, seconds=1.0, gain=1.0), FrontPoint("b", 2, seconds=2.0)]
    assert measure_of(mixed) is Measure.SECONDS
    with pytest.raises(kg.InputError, match="a front needs points"):
        measure_of([])
    with pytest.raises(kg.InputError, match="need one of gain, joules, seconds"):
        measure_of([FrontPoint("a", 1, seconds=1.0), FrontPoint("b", 2, joules=2.0)])


@pytest.mark.parametrize("name", fronts())
def test_a_chart_has_every_point_and_a_line_through_the_front(name):
    points = fronts()[name]
    spec = front(points, limit_bytes=100 * 1024)
    line, marks = (values(layer)[0] for layer in spec["layer"][:2])
    assert [row["label"] for row in marks] == [point.label for point in points]
    measure = measure_of(points)
    assert [row["value"] for row in marks] == [getattr(p, measure.value) for p in points]
    on_front = efficient(points, measure)
    assert [row["label"] for row in line] == [
        point.label for point, on in zip(points, on_front, strict=True) if on
    ]
    assert [r["label"] for r in marks if r["what"] == "chosen"] == [
        point.label for point in points if point.chosen
    ]


def test_the_page_has_a_table_of_those_on_the_front():
    page = render(sparse_lenet(), fronts=fronts())
    text = text_of(page)
    assert {"front-energy-of-the-plan", "front-search-for-a-scheme"} <= set(charts(page))
    assert "64 KB chosen 65,536 1.625 s 5.125 mJ" in text
    assert "and 1 that another beats in both" in text and "greedy" not in text
    assert "head chosen 50,000 0.2" in text, "the chosen one is told even where it is beaten"
    assert "Choices" not in text_of(render(full_mlp()))


@pytest.mark.parametrize(
    ("amount", "text"),
    [(None, ""), (0.0, "0 µs"), (12.5, "12.5 s"), (0.005125, "5.125 ms"), (3.2e-6, "3.2 µs")],
)
def test_quantities_have_a_fitting_prefix(amount, text):
    assert quantity(amount, "s") == text


def test_gaps_join_the_boxes_of_a_tensor():
    told = paged_figures()
    spec = memory_map(told, sparse_lenet().train.graph)
    rows = next(rows for rows in values(spec) if "absence" in rows[0])
    assert {row["tensor"]: (row["from"], row["to"], row["absence"]) for row in rows} == {
        "relu": (6, 30, "paged out"),
        "relu_2": (10, 36, "dropped, and computed again"),
    }
    boxes = {row["name"]: row for row in max(values(spec), key=len)}
    assert boxes["relu.again"]["again"] == "again, after it was paged out"
    assert boxes["relu"]["again"] == "for the first time"


@pytest.mark.parametrize(
    ("network", "share", "ways", "kinds"),
    [
        ("conv", 0.75, {"recompute": False}, {GapKind.PAGED}),
        ("conv", 0.9, {"page": False}, {GapKind.RECOMPUTED}),
        ("dense", 0.97, {"page": False}, {GapKind.RECOMPUTED}),
    ],
)
def test_gaps_of_a_plan_are_its_absences(network, share, ways, kinds):
    program = planned(network, share, **ways)
    told, graph = program.figures, program.train.graph
    absences = [
        (tensor.name, away.first + 1, away.last)
        for tensor in program.plan.functions[-1].tensors
        for away in tensor.away
    ]
    assert absences and [(gap.tensor, gap.first, gap.last) for gap in told.gaps] == absences
    assert kinds == {gap.kind for gap in told.gaps}
    buffers = {buffer.name: buffer.lifetime for buffer in told.buffers}
    for gap in told.gaps:
        assert buffers[gap.before].first < gap.first < gap.last
        assert buffers[gap.after].first <= gap.last < buffers[gap.after].last
        pages = graph.nodes[gap.last].op.name == "page_in"
        assert gap.kind is (GapKind.PAGED if pages else GapKind.RECOMPUTED)
    text = text_of(render(program))
    assert all(kind.value in text for kind in kinds)
    rows = next(rows for rows in values(memory_map(told, graph)) if "absence" in rows[0])
    assert len(rows) == len(absences)


def test_without_gaps_nothing_is_said_of_them():
    spec = memory_map(sparse_lenet().figures, sparse_lenet().train.graph)
    assert "paged" not in str(spec)
    assert not any("absence" in rows[0] for rows in values(spec))
