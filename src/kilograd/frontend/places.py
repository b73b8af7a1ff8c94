"""Source lines of the user's model in the traces that PyTorch and its exporters leave."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TORCH = re.compile(r"[/\\](site|dist)-packages[/\\](torch|functorch)[/\\]")
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def user_frame(frames: Sequence[tuple[str, int]]) -> str:
    """`model.py:41` of the last (file, line) in the user's code, or nothing."""
    for filename, line in reversed(frames):
        if not filename.startswith("<") and not _TORCH.search(filename):
            base = re.split(r"[/\\]", filename)[-1]
            return f"{base}:{line}"
    return ""


def source_line(trace: str) -> str:
    """`model.py:41` out of a printed stack trace, or nothing."""
    return user_frame([(name, int(line)) for name, line in _FRAME.findall(trace)])
