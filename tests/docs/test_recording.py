"""The recording of the README shows each line when it was printed, and loads nothing."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
sys.path.append(str(DOCS))

from recording import HOLD_SECONDS, Recorder  # noqa: E402


def at(picture: str, text: str) -> float:
    """The share of the recording after which a text is there."""
    place = re.search(rf'class="[\w-]+ t-at-(\d+)"[^>]*>{text}', picture)
    assert place, text
    rule = re.search(rf"@keyframes t-{place[1]} {{ 0%, ([\d.]+)%", picture)
    return float(rule[1]) if rule else 0.0


def test_lines_appear_when_they_were_printed(monkeypatch: pytest.MonkeyPatch):
    clock = iter([100.0, 100.0, 102.0, 112.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    console = Recorder(width=60)
    console.print("first")
    console.print("second\nthird")
    console.print("fourth")
    picture = console.picture("a run", "t")
    whole = 12.0 + HOLD_SECONDS
    assert at(picture, "first") == 0
    assert at(picture, "second") == at(picture, "third") == pytest.approx(200 / whole, abs=0.01)
    assert at(picture, "fourth") == pytest.approx(1200 / whole, abs=0.01)
    assert "prefers-reduced-motion" in picture


def test_a_status_stands_until_the_next_line(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 1.0, 2.0, 2.1, 5.0, 6.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    console = Recorder(width=60)
    console.print("first")
    for text in ("9 %", "10 %", "80 %"):  # the first is gone too soon to be read
        console.status_line(text)
    console.print("last")
    picture, whole = console.picture("a run", "t"), 6.0 + HOLD_SECONDS
    assert ">9&#160;%" not in picture
    for text, start, end in (("10&#160;%", 2, 5), ("80&#160;%", 5, 6)):
        place = re.search(rf'class="t-r1 t-s(\d+)" x="0" y="44.4">{text}<', picture)
        assert place, text
        rule = re.search(rf"t-s{place[1]} {{ 0%, ([\d.]+)% .*? 0 }} [\d.]+%, ([\d.]+)%", picture)
        assert rule and float(rule[1]) == pytest.approx(100 * start / whole, abs=0.01)
        assert float(rule[2]) == pytest.approx(100 * end / whole, abs=0.01)


def test_the_picture_of_the_readme_loads_nothing():
    picture = (DOCS / "demo.svg").read_text(encoding="utf-8")
    assert "url(http" not in picture and "@font-face" not in picture
    assert picture.count("@keyframes") >= 2 and "accuracy" in picture
