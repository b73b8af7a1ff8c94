"""A run in a terminal as a picture that plays: rich's SVG, each line shown when it was printed.

Where animations do not run (print, `prefers-reduced-motion`, converters) all lines show.
"""

from __future__ import annotations

import io
import re
import time
from typing import Any

from rich.console import Console

HOLD_SECONDS = 8.0
"""How long the end stays before it begins again."""

_FONT_FACE = re.compile(r"\s*@font-face \{.*?\n    \}", re.DOTALL)
_LINE = re.compile(r'<text class="(?P<class>[^"]*)"(?P<rest>[^>]*#[\w-]+-line-(?P<line>\d+)\)")')


class Recorder(Console):
    """A terminal that notes when each of its lines was printed."""

    def __init__(self, width: int) -> None:
        """`width` in characters."""
        super().__init__(record=True, width=width, file=io.StringIO(), force_terminal=True)
        self._start = time.perf_counter()
        self._moments: list[tuple[int, float]] = []

    def print(self, *objects: Any, **keywords: Any) -> None:
        """Print, and note the time."""
        super().print(*objects, **keywords)
        lines = len(self.export_text(clear=False).splitlines())
        self._moments.append((lines, time.perf_counter() - self._start))

    def picture(self, title: str, name: str) -> str:
        """The SVG; `name` is the prefix of its classes."""
        still = self.export_svg(title=title, unique_id=name)
        still = _FONT_FACE.sub("", still)  # They load from the network.
        length = (self._moments[-1][1] if self._moments else 0.0) + HOLD_SECONDS
        shown = _LINE.sub(lambda match: self._marked(match, name), still)
        return shown.replace("</style>", f"{self._style(name, length)}    </style>", 1)

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
