"""A run in a terminal as a picture that plays: rich's SVG, each line shown when it was printed.

A status line, such as a bar, stands below the lines printed so far until the next status or line;
what stands too short to be read gives way to the next. Where animations do not run (print,
`prefers-reduced-motion`, converters) all printed lines show, and no status.
"""

from __future__ import annotations

import io
import re
import time
from html import escape
from typing import Any

from rich.console import Console

HOLD_SECONDS = 8.0
"""How long the end stays before it begins again."""
STATUS_SECONDS = 0.8
"""How long a status stays at least."""
_LINE_HEIGHT, _FIRST_LINE = 24.4, 20.0  # of rich's SVG

_FONT_FACE = re.compile(r"\s*@font-face \{.*?\n    \}", re.DOTALL)
_LINE = re.compile(r'<text class="(?P<class>[^"]*)"(?P<rest>[^>]*#[\w-]+-line-(?P<line>\d+)\)")')


class Recorder(Console):
    """A terminal that notes when each of its lines was printed."""

    def __init__(self, width: int) -> None:
        """`width` in characters."""
        super().__init__(record=True, width=width, file=io.StringIO(), force_terminal=True)
        self._start = time.perf_counter()
        self._moments: list[tuple[int, float]] = []
        self._statuses: list[tuple[float, int, str]] = []

    def status_line(self, text: str) -> None:
        """Show what is going on, below the lines printed so far."""
        start = time.perf_counter() - self._start
        line = self._moments[-1][0] if self._moments else 0
        shown = bool(self._statuses and self._statuses[-1][2])
        if shown and start - self._statuses[-1][0] < STATUS_SECONDS:
            start = self._statuses.pop()[0]  # too short to be read: the next one in its place
        self._statuses.append((start, line, text))

    def print(self, *objects: Any, **keywords: Any) -> None:
        """Print, and note the time."""
        super().print(*objects, **keywords)
        lines = len(self.export_text(clear=False).splitlines())
        now = time.perf_counter() - self._start
        self._moments.append((lines, now))
        self._statuses.append((now, lines, ""))

    def picture(self, title: str, name: str) -> str:
        """The SVG; `name` is the prefix of its classes."""
        still = self.export_svg(title=title, unique_id=name)
        still = _FONT_FACE.sub("", still)  # They load from the network.
        length = (self._moments[-1][1] if self._moments else 0.0) + HOLD_SECONDS
        shown = _LINE.sub(lambda match: self._marked(match, name), still)
        style, texts = self._status_marks(name, length)
        matrix = f'<g class="{name}-matrix">'
        shown = shown.replace(matrix, matrix + texts, 1)
        return shown.replace("</style>", f"{self._style(name, length)}{style}    </style>", 1)

    def _status_marks(self, name: str, length: float) -> tuple[str, str]:
        """The style of the status lines, and the lines."""
        style, texts = "", ""
        ends = [start for start, _, _ in self._statuses[1:]] + [length - HOLD_SECONDS]
        for index, ((start, line, text), end) in enumerate(zip(self._statuses, ends, strict=True)):
            if not text:
                continue
            a, b = 100 * start / length, 100 * end / length
            rule = f"{name}-s{index}"
            style += (
                f"    @keyframes {rule} {{ 0%, {a:.2f}% {{ opacity: 0 }} {a + 0.01:.2f}%, {b:.2f}% "
                f"{{ opacity: 1 }} {b + 0.01:.2f}%, 100% {{ opacity: 0 }} }}\n"
                f"    .{rule} {{ opacity: 0; animation: {rule} {length:.1f}s infinite }}\n"
            )
            y = _FIRST_LINE + _LINE_HEIGHT * line
            words = escape(text).replace(" ", "&#160;")
            texts += f'<text class="{name}-r1 {name}-s{index}" x="0" y="{y:.1f}">{words}</text>'
        return style, texts

    def _marked(self, match: re.Match[str], name: str) -> str:
        line = int(match["line"])
        index = next((i for i, (end, _) in enumerate(self._moments) if line < end), 0)
        return f'<text class="{match["class"]} {name}-at-{index}"{match["rest"]}'

    def _style(self, name: str, length: float) -> str:
        """A keyframe for each moment; the first lines are there from the start."""
        rules = []
        for index, (_, seconds) in enumerate(self._moments):
            share = 100 * seconds / length
            if not index or share < 0.5:
                continue
            rules.append(
                f"    @keyframes {name}-{index} {{ 0%, {share:.2f}% {{ opacity: 0 }} "
                f"{share + 0.01:.2f}%, 100% {{ opacity: 1 }} }}\n"
                f"    .{name}-at-{index} {{ animation: {name}-{index} {length:.1f}s infinite }}\n"
            )
        quiet = "    @media (prefers-reduced-motion: reduce), print { text { animation: none } }\n"
        return "\n" + "".join(rules) + quiet
