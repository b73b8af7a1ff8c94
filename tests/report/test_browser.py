"""The report in a real browser: no errors, no requests, hovers, and a phone's width."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report.programs import fronts, paged_figures, short_runs, sparse_lenet

pytest.importorskip("altair")
playwright = pytest.importorskip("playwright.sync_api")
BROWSER = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="there is no browser"),
    pytest.mark.xdist_group("report"),
]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHARTS = [
    "memory-map", "memory-uses", "timeline", "layer-work", "losses", "validation",
    "front-energy-of-the-plan", "front-search-for-a-scheme", "confusion-0", "confusion-1",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("report") / "report.html"
    return sparse_lenet().report(target, runs=short_runs(), fronts=fronts())


class Page:
    """A page that has drawn its charts, with all that it said and asked for."""

    def __init__(self, browser: Any, report: Path, width: int, scheme: str = "light") -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=False
        )
        self.page = context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())
        for chart in CHARTS:
            self.page.wait_for_selector(f"#{chart} svg")


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_errors_no_requests_no_overflow(browser, report, width, scheme):
    opened = Page(browser, report, width, scheme)
    assert opened.complaints == []
    assert opened.requests == [report.as_uri()]
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    for chart in CHARTS:
        box = opened.page.locator(f"#{chart} svg").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width, chart
        assert box["height"] > 60 and box["width"] > 200, chart


def test_hovering_a_box_names_tensor_layer_and_keeper(browser, report):
    opened = Page(browser, report, 1200)
    page = opened.page
    boxes = page.locator("#memory-map svg .layer_0_marks path")
    buffers = sparse_lenet().train.lifetimes.buffers
    assert boxes.count() == len(buffers)
    index = next(i for i, buffer in enumerate(buffers) if buffer.name == "relu")
    boxes.nth(index).scroll_into_view_if_needed()
    box = boxes.nth(index).bounding_box()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.3 * box["height"])
    page.wait_for_selector("#vg-tooltip-element.visible")
    text = page.locator("#vg-tooltip-element").inner_text()
    for words in ("relu", "f32[1,28,28,6]", "features.0", "18,816", "node 27, relu_grad"):
        assert words in text
    assert opened.complaints == []


def test_finding_a_layer_fades_the_others(browser, report):
    opened = Page(browser, report, 1200)
    boxes = opened.page.locator("#memory-map svg .layer_0_marks path")
    opened.page.fill("#memory-map input", "features.3 ")
    opened.page.wait_for_function(
        "document.querySelector('#memory-map .layer_0_marks path[opacity=\"0.12\"]') !== null"
    )
    for index, buffer in enumerate(sparse_lenet().figures.buffers):
        step = None if buffer.writer is None else sparse_lenet().figures.steps[buffer.writer]
        bright = boxes.nth(index).get_attribute("opacity") in (None, "1")
        assert bright == (step is not None and step.layer.startswith("features.3")), buffer.name
    assert opened.complaints == []


def test_hovering_a_choice_tells_it(browser, report):
    opened = Page(browser, report, 1200)
    marks = opened.page.locator("#front-energy-of-the-plan svg .layer_1_marks path")
    points = fronts()["energy of the plan"]
    assert marks.count() == len(points)
    marks.nth(2).scroll_into_view_if_needed()
    marks.nth(2).hover()
    opened.page.wait_for_selector("#vg-tooltip-element.visible")
    text = opened.page.locator("#vg-tooltip-element").inner_text()
    for words in ("64 KB", "chosen", "65,536", "1.625 s", "5.125 mJ"):
        assert words in text
    assert opened.complaints == []


def test_absent_tensors_are_lines_between_their_boxes(browser, tmp_path, monkeypatch):
    program = sparse_lenet()
    monkeypatch.setitem(vars(program), "figures", paged_figures())
    target = program.report(tmp_path / "paged.html", runs=short_runs(), fronts=fronts())
    opened = Page(browser, target, 1200)
    lines = opened.page.locator("#memory-map svg .layer_1_marks line")
    assert lines.count() == 2
    assert sorted(lines.nth(i).get_attribute("stroke-dasharray") for i in range(2)) == [
        "1,0", "2,3",
    ]  # fmt: skip
    legend = opened.page.locator("#map .legend").nth(1).inner_text()
    assert "paged out" in legend and "computed again" in legend
    box = lines.nth(0).bounding_box()
    opened.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    opened.page.wait_for_selector("#vg-tooltip-element.visible")
    text = opened.page.locator("#vg-tooltip-element").inner_text()
    for words in ("relu", "paged out", "18,816", "nodes 6 to 29"):
        assert words in text
    assert opened.complaints == []


def test_it_prints(browser, report):
    page = Page(browser, report, 1200).page
    assert page.pdf(format="A4")[:5] == b"%PDF-"
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
