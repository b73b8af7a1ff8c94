"""Runs the Python blocks of documents and puts what they print into the text blocks behind them.

    python docs/refresh_outputs.py README.md docs/int8.md

A text block that follows a Python block shows its output. Documents run in a scratch directory.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def refreshed(text: str, name: str) -> str:
    """The document with the outputs of its blocks."""
    namespace: dict[str, object] = {"__name__": name}
    output: str | None = None
    parts, end = [], 0
    for match in BLOCK.finditer(text):
        if match.group(1) == "python":
            captured = io.StringIO()
            with contextlib.redirect_stdout(captured):
                exec(compile(match.group(2), name, "exec"), namespace)
            output = captured.getvalue()
            continue
        if output:
            lines = "\n".join(line.rstrip() for line in output.splitlines())
            parts += [text[end : match.start(2)], f"{lines}\n"]
            end = match.end(2)
        output = None
    return "".join([*parts, text[end:]])


def main() -> None:
    """Refresh the documents named on the command line."""
    documents = [Path(argument).resolve() for argument in sys.argv[1:]]
    for document in documents:
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            text = refreshed(document.read_text(encoding="utf-8"), document.stem)
            os.chdir(document.parent)
        document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
