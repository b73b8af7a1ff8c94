"""What a search found, as choices of a report and as plots."""

from __future__ import annotations

from fractions import Fraction

import pytest
from tests.report.programs import full_mlp
from tests.report.test_report import charts, text_of, values

from kilograd.search.found import Found, Point
from kilograd.search.table import Contributions, Gain

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from kilograd.report import render
from kilograd.report.contributions import front, write_charts


@pytest.fixture(scope="module")
def found() -> Found:
    whole = Fraction(1)
    points = tuple(
        Point(k, {f"hidden.{i}": whole for i in range(k)}, 0.02 * k, 20_000 + 4_096 * k, 9_000, gap)
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
    assert [bool(c.note) for c in choices] == [False, True, False]
    assert "1.3 more" in choices[1].note


def test_the_plot_tells_what_is_proven(found):
    marks = max((values(layer)[0] for layer in front(found)["layer"]), key=len)
    assert [row["kind"] for row in marks] == [
        "proven best", "a better one is not excluded", "proven best",
    ]  # fmt: skip


def test_a_report_takes_the_choices(found):
    page = render(full_mlp(), fronts={"schemes": found.choices()})
    assert "front-schemes" in charts(page)
    assert "3 biases, 3 weights chosen 32,288 6" in text_of(page)


def test_plots_are_pictures(found, tmp_path):
    written = write_charts(found, tmp_path)
    assert [path.name for path in written] == ["contributions.svg", "front.svg"]
    texts = [path.read_text(encoding="utf-8") for path in written]
    assert all(text.startswith("<svg") for text in texts)
    assert "proven best" in texts[1] and "SRAM, KB" in texts[1] and "hidden.0" in texts[0]
