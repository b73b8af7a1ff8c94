"""The site builds without warnings, and its pages load nothing from the network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import kilograd

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]  # building takes 10 to 40 s


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


class _Loads(HTMLParser):
    """The addresses that a browser loads by itself when it shows a page, and the page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in ("script", "img", "iframe", "source") and named.get("src"):
            self.loads.append(str(named["src"]))
        if tag == "link" and named.get("href"):
            self.loads.append(str(named["href"]))
        if tag == "a" and named.get("href"):
            self.links.append(str(named["href"]))


def pages(site: Path) -> Iterator[tuple[Path, _Loads]]:
    for page in sorted(site.rglob("*.html")):
        parser = _Loads()
        parser.feed(page.read_text(encoding="utf-8"))
        yield page, parser


def test_every_document_is_a_page(site: Path):
    for document in (ROOT / "docs").glob("*.md"):
        assert (site / f"{document.stem}.html").is_file()


def test_pages_load_local_files_that_are_there(site: Path):
    count = 0
    for page, found in pages(site):
        if page.name == "404.html":  # its addresses are those of a server's root
            continue
        for address in found.loads:
            assert "://" not in address and not address.startswith("//"), f"{page}: {address}"
            path = address.partition("?")[0].partition("#")[0]
            assert path.startswith("data:") or (page.parent / path).exists(), f"{page}: {address}"
            count += 1
    assert count > 100
    for sheet in site.rglob("*.css"):
        assert "url(http" not in sheet.read_text(encoding="utf-8"), sheet


def test_links_lead_to_pages(site: Path):
    for page, found in pages(site):
        for address in found.links:
            path = address.partition("#")[0]
            if path and "://" not in path and page.name != "404.html":
                assert (page.parent / path).exists(), f"{page}: {address}"


def test_public_names_are_in_the_reference(site: Path):
    text = (site / "api.html").read_text(encoding="utf-8")
    for name in kilograd.__all__:
        if name != "update":
            assert f'id="kilograd.{name}"' in text, name


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_in_a_browser(site: Path, width: int):
    """No error, no request to a network, nothing wider than the screen; search finds a page."""
    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        requests: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda line: errors.append(line.text) if line.type == "error" else None,
        )
        for document in sorted((ROOT / "docs").glob("*.md")):
            page.goto((site / f"{document.stem}.html").as_uri())
            page.wait_for_load_state("load")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, document.name
        page.goto((site / "index.html").as_uri())
        if width < 1000:
            page.click("label.md-header__button[for=__search]")
        found = page.locator(".md-search-result__link")
        for _ in range(30):  # a key before the index is read is lost
            page.fill(".md-search__input", "InfeasibleError")
            page.press(".md-search__input", "End")
            page.wait_for_timeout(500)
            if found.count():
                break
        assert found.count(), "search finds nothing"
        browser.close()
    assert not errors
    assert requests and all(url.startswith(("file:", "data:", "blob:")) for url in requests)
