"""The report in a real browser: no errors, no requests, hovers, and a phone's width."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report.programs import short_runs, sparse_lenet

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
CHARTS = ["memory-map", "memory-uses", "timeline", "layer-work", "losses", "validation"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("report") / "report.html"
    return sparse_lenet().report(target, runs=short_runs())


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


def test_it_prints(browser, report):
    page = Page(browser, report, 1200).page
    assert page.pdf(format="A4")[:5] == b"%PDF-"
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
