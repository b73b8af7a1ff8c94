"""Draws the picture of docs/report.md: the report of the demo, in a browser.

    python docs/make_report.py            writes docs/report.png

Needs `kilograd[demo,report]`, playwright and Chromium. The figures in the picture are those of the
run that drew it.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import kilograd as kg
from kilograd import demo_data

DOCS = Path(__file__).parent
WIDTH, HEIGHT = 1180, 1390
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main() -> None:
    """Compile, learn, report, look."""
    data = demo_data.load()
    program = kg.compile(
        demo_data.model_path(),
        device="stm32f746",
        update=[kg.update.biases(), kg.update.last(2)],
        optimizer=kg.SGD(lr=0.003),
    )
    session, runs = program.on_host(), {}
    for rate in (0.003, 0.0003):
        session.reset()
        test = (data.test_x, data.test_y)
        runs[f"learning rate {rate}"] = session.fit(
            data.train_x, data.train_y, epochs=3, lr=rate, validation=test, progress=False
        )
    with tempfile.TemporaryDirectory() as scratch:
        page = program.report(
            Path(scratch) / "report.html",
            runs=runs,
            sample=(data.train_x[0], data.train_y[0]),
        )
        picture = look(page)
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image = image.quantize(128, dither=Image.Dither.NONE)
    image.save(DOCS / "report.png", optimize=True)


def look(page: Path) -> bytes:
    """The top of a page as PNG, with the pointer on a box of the memory map."""
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        opened = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        opened.goto(page.as_uri())
        opened.wait_for_selector("#memory-map svg")
        boxes = opened.locator("#memory-map svg .layer_0_marks path")
        sizes = [boxes.nth(i).bounding_box() for i in range(boxes.count())]
        largest = max(sizes, key=lambda box: box["width"] * box["height"])
        opened.mouse.move(
            largest["x"] + 0.25 * largest["width"], largest["y"] + 0.3 * largest["height"]
        )
        opened.wait_for_selector("#vg-tooltip-element.visible")
        picture: bytes = opened.screenshot()
        chromium.close()
    return picture


if __name__ == "__main__":
    main()
