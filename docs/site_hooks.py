"""Hooks of the site: links to files of the project become links to pages that show them.

The documents are read on a forge, too, where `../src/kilograd/compiler.py` is a link to a file. The
site has a page for each such file.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LANGUAGES = {".py": "python", ".toml": "toml", ".c": "c", ".h": "c", ".md": "markdown"}

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?:\.\./)?[\w./-]+)(#[\w-]+)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file of the project that a document links to."""
    linked: set[Path] = set()
    for document in Path(config.docs_dir).glob("*.md"):
        for match in _LINK.finditer(document.read_text(encoding="utf-8")):
            path = _file(match[2])
            if path is not None and path.is_file():
                linked.add(path)
    for path in sorted(linked):
        name = path.relative_to(ROOT).as_posix()
        language = LANGUAGES.get(path.suffix, "text")
        text = f"# {name}\n\n````{language}\n{path.read_text(encoding='utf-8')}````\n"
        text = f"---\nsearch:\n  exclude: true\nhide: [toc]\n---\n\n{text}"
        file = File.generated(config, f"source/{name}.md", content=text)
        file.inclusion = file.inclusion.NOT_IN_NAV
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at those pages; a link to a folder becomes its name."""

    def replace(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        path = _file(target)
        if path is None:
            return match[0]
        if path == ROOT / "README.md":
            return f"[{label}](index.md)"
        if path.is_dir():
            return label
        return f"[{label}](source/{path.relative_to(ROOT).as_posix()}.md{anchor})"

    return markdown if page.file.src_uri.startswith("source/") else _LINK.sub(replace, markdown)


def _file(target: str) -> Path | None:
    """The file or folder of the project that a link leads to, None for documents of the site."""
    path = ROOT / posixpath.normpath(posixpath.join("docs", target))
    outside = target.startswith("../") or path.suffix == ".py"
    return path if outside and path.exists() else None
