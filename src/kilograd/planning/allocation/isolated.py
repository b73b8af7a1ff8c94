"""CP-SAT in a process of its own.

A failed internal check of CP-SAT aborts the process that it runs in, which here would be the
user's; it has been seen to, at time limits on a busy machine. A child process also keeps its
symbols apart from those of other libraries. If the child dies, the answer so far stands.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time

from kilograd.planning.allocation.problem import Buffer
from kilograd.planning.allocation.progress import Progress
from kilograd.planning.allocation.timeline import Timeline

_START_SECONDS = 2.0
_log = logging.getLogger(__name__)


def improve(timeline: Timeline, start: Progress, target_bytes: int, deadline: float) -> Progress:
    """`constraint.improve` in a child process; `start` when the child fails or time is too
    short.
    """
    remaining_seconds = deadline - time.monotonic() - _START_SECONDS
    if remaining_seconds <= 0 or start.reaches(target_bytes):
        return start
    request = {
        "buffers": [
            [b.name, b.size_bytes, b.first, b.last, b.alignment_bytes, b.at_bottom]
            for b in timeline.buffers
        ],
        "offsets": dict(start.offsets),
        "height_bytes": start.height_bytes,
        "lower_bound_bytes": start.lower_bound_bytes,
        "method": start.method,
        "target_bytes": target_bytes,
        "seconds": remaining_seconds,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=True,
            timeout=remaining_seconds + 10 * _START_SECONDS,
        )
    except (subprocess.SubprocessError, OSError) as error:
        _log.warning("CP-SAT gave no answer: %s", error)
        return start
    return _progress(json.loads(done.stdout))


def _progress(data: dict[str, object]) -> Progress:
    return Progress(**{key: data[key] for key in Progress.__dataclass_fields__})  # type: ignore[arg-type]


def main() -> None:
    """Answer the request on standard input."""
    from kilograd.planning.allocation import constraint

    request = json.load(sys.stdin)
    timeline = Timeline.of(tuple(Buffer(*row) for row in request["buffers"]))
    result = constraint.improve(
        timeline, _progress(request), request["target_bytes"], time.monotonic() + request["seconds"]
    )
    json.dump({key: getattr(result, key) for key in Progress.__dataclass_fields__}, sys.stdout)


if __name__ == "__main__":
    main()
