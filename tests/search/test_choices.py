"""What a search found, as choices of a report and as plots."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from kilograd.planning.front import FrontPoint
from kilograd.search.found import Found, Point
from kilograd.search.table import Contributions, Gain
from tests.report.programs import full_mlp
from tests.report.test_report import charts, text_of, values

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from kilograd.report import render
from kilograd.report.choices import front as draw
from kilograd.report.choices import kind_marks
from kilograd.report.contributions import additivity, front, write_charts
from kilograd.report.drawing import svg


@pytest.fixture(scope="module")
def found() -> Found:
    whole = Fraction(1)
    points = tuple(
        Point(
            k,
            {f"hidden.{i}": whole for i in range(k)},
            0.02 * k,
            20_000 + 4_096 * k,
            9_000,
            gap,
            Gain(0.05 / k, 0.01, 2) if k < 3 else None,
        )
        for k, gap in ((1, 0.0), (2, 0.013), (3, 0.0))
    )
    gain = Gain(0.02, 0.001, 2)
    table = Contributions(
        network="mlp",
        layers=("hidden.0", "hidden.1", "hidden.2"),
        head=Gain(0.5, 0.0, 1),
        biases={1: gain, 2: gain, 3: gain},
        weights={("hidden.0", whole): gain},
        method="measured",
    )
    return Found("mlp", "nrf52840", None, table, points[-1], points)


def test_choices_are_the_front_in_points(found):
    choices = found.choices()
    assert [c.gain for c in choices] == [100 * p.gain for p in found.front]
    assert [c.sram_bytes for c in choices] == [p.sram_bytes for p in found.front]
    assert [c.chosen for c in choices] == [False, False, True]
    assert [c.note for c in choices] == [
        "trained +5.0 ± 1.0",
        "another could gain 1.3 more, trained +2.5 ± 1.0",
        "",
    ]
    assert [(c.gain, c.spread) for c in found.realised()] == [(5.0, 1.0), (2.5, 1.0)]


def test_the_plot_tells_what_is_proven(found):
    marks = max((values(layer)[0] for layer in front(found)["layer"]), key=len)
    assert [row["kind"] for row in marks] == [
        *("sum of contributions", "sum, not proven the best", "sum of contributions"),
        *("trained", "trained"),
    ]
    line = values(front(found)["layer"][0])[0]
    assert {row["kind"] for row in line} <= {row["kind"] for row in marks[:3]}
    assert len(line) == 3, "what is beside the front has no part in it"


def test_what_is_written_by_hand_is_a_choice_too(found):
    hand = Point(3, {}, 0.01, 25_000, 9_000, realised=Gain(0.08, 0.0, 2), kind="biases")
    assert not hand.proven and hand.told() == "written by hand: biases"
    whole = replace(found, best=hand, by_hand=(hand,))
    (own,) = (choice for choice in whole.choices() if choice.chosen)
    assert own.label.startswith("biases: ") and own.note == "trained +8.0 ± 0.0"
    sizes = [choice.sram_bytes for choice in whole.choices()]
    assert sizes == sorted(sizes) and len(sizes) == 4
    assert 8 in [choice.gain for choice in whole.realised()]


def test_what_was_refined_is_told_apart(found):
    point = Point(2, {}, 0.01, 25_000, 9_000, realised=Gain(0.09, 0.0, 2), kind="refined")
    assert not point.proven and point.told() == "chosen by what was trained"
    whole = replace(found, best=point, refined=(point,))
    (own,) = (choice for choice in whole.choices() if choice.chosen)
    assert own.label.startswith("refined: ") and own.kind == "sum, refined"


def test_a_report_takes_the_choices(found):
    page = render(full_mlp(), fronts={"schemes": found.choices()})
    assert "front-schemes" in charts(page)
    assert "3 biases, 3 weights chosen 32,288 6" in text_of(page)


def test_plots_are_pictures(found, tmp_path):
    written = write_charts(found, tmp_path)
    assert [path.name for path in written] == ["contributions.svg", "front.svg"]
    texts = [path.read_text(encoding="utf-8") for path in written]
    assert all(text.startswith("<svg") for text in texts)
    assert "not proven the best" in texts[1] and "trained" in texts[1]
    assert "SRAM, KB" in texts[1] and "hidden.0" in texts[0]


def test_predicted_and_realised_gains_are_set_against_each_other():
    rows = [
        {"name": "a", "kind": "found", "predicted": 0.02, "realised": 0.01},
        {"name": "b", "kind": "biases", "predicted": 0.05, "realised": 0.07},
    ]
    diagonal, marks = (values(layer)[0] for layer in additivity(rows)["layer"])
    pairs = [(row["predicted"], row["realised"]) for row in marks]
    assert pairs == [(100 * row["predicted"], 100 * row["realised"]) for row in rows]
    assert [row["predicted"] for row in diagonal] == pytest.approx([1, 7])
    assert svg(additivity(rows)).startswith("<svg")


def test_kinds_differ_in_colour_and_shape():
    looks = [(mark["scale"]["domain"], mark["scale"]["range"]) for mark in
             (each.to_dict() for each in kind_marks(["x", "y", "x", "z"]).values())]  # fmt: skip
    assert all(domain == ["x", "y", "z"] and len(set(range_)) == 3 for domain, range_ in looks)


def test_a_spread_is_drawn_where_it_is_known():
    points = [FrontPoint("a", 1024, gain=1.0, spread=0.5), FrontPoint("b", 2048, gain=3.0)]
    bars = [row for layer in draw(points)["layer"] for rows in values(layer)
            for row in rows if "low" in row and layer["mark"]["type"] == "rule"]  # fmt: skip
    assert [(row["low"], row["high"]) for row in bars] == [(0.5, 1.5), (3.0, 3.0)]
