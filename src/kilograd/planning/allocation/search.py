"""Complete search for offsets below a given height, restarted with many orders (search.c).

One run explores at most a number of placements from one order of the buffers, which says what is
tried first. Good orders reach an answer in some hundred placements and bad ones never, so runs
are short, and grow only as in Luby, Sinclair and Zuckerman, "Optimal speedup of Las Vegas
algorithms" (1993). A run that ends early without an answer has proved that there is none.

The first runs use orders that often do, the later ones random orders that prefer buffers of the
sections where earlier runs failed most. This is what makes the hardest published instances easy;
the idea is that of Boussemart et al., "Boosting systematic search by weighting constraints" (2004).

Runs go in batches of a fixed size that know what earlier batches found, and of a batch counts what
comes before its first decisive run: answers differ neither with the number of cores nor with their
speed, except that a time limit ends the sequence sooner or later.
"""

from __future__ import annotations

import ctypes
import os
import random
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError

import numpy as np

from kilograd.planning.allocation.grid import Grid
from kilograd.planning.allocation.native import library
from kilograd.planning.allocation.problem import height_bytes
from kilograd.planning.allocation.progress import Progress
from kilograd.planning.allocation.timeline import FloatArray, IntArray, Timeline

MOST_BUFFERS = 1000
"""More are left to the other solvers: depth of recursion and memory grow with the number."""

_BATCH = 4
_RUN_PLACEMENTS = 2000
_STEP_EVERY = 4 * _BATCH
_STEP_DIVISORS = (2, 8, 32)
_MOST_UNITS = 1 << 30
_FAILURE_DECAY = 0.95
_SOLVED, _NO_SOLUTION, _OUT_OF_MEMORY = 1, 0, -2


def improve(
    timeline: Timeline,
    start: Progress,
    target_bytes: int,
    deadline: float,
    placements: int | None = None,
) -> tuple[Progress, int]:
    """Search until the height is at most `target_bytes`, or proven, or time is over; what came of
    it, and how many placements the runs might have tried.

    Args:
        timeline: the buffers, at most `MOST_BUFFERS`.
        start: any allocation and lower bound.
        target_bytes: heights below this are not looked for.
        deadline: a value of `time.monotonic()`.
        placements: how many the runs may try together; None for no limit but time.

    Raises `NativeSearchError` when the search cannot be built here.
    """
    library()  # before any thread, so that it is built once and fails here
    grid = Grid.of(timeline)
    progress = start
    if grid.capacity(start.height_bytes) >= _MOST_UNITS:
        return start, 0
    with ThreadPoolExecutor(min(_BATCH, os.cpu_count() or 1)) as pool:
        first, tried = 0, 0
        failures = np.zeros(timeline.sections)
        while not progress.reaches(target_bytes) and time.monotonic() < deadline:
            if placements is not None and tried >= placements:
                break
            goal = max(target_bytes, progress.lower_bound_bytes)
            goals = [goal] * _BATCH
            if first % _STEP_EVERY == 0:
                # Content with less, so that a problem out of reach improves by steps.
                divisor = _STEP_DIVISORS[first // _STEP_EVERY % len(_STEP_DIVISORS)]
                gap = progress.height_bytes - goal
                goals[-1] = progress.height_bytes - -(-gap // divisor)
            batch = [_Run(grid, first + k, goal, failures) for k, goal in enumerate(goals)]
            progress = _run_batch(pool, batch, progress, target_bytes, deadline)
            for run in batch:
                failures = _FAILURE_DECAY * failures + run.failure_shares()
            first += _BATCH
            tried += sum(run.most_placements for run in batch)
    return progress, tried


def _run_batch(
    pool: ThreadPoolExecutor,
    batch: list[_Run],
    progress: Progress,
    target_bytes: int,
    deadline: float,
) -> Progress:
    """Run all at once; take their results in order, up to the first that decides."""
    futures = [pool.submit(run.execute) for run in batch]
    try:
        for run, future in zip(batch, futures, strict=True):
            progress = run.apply(_result(future, batch, deadline), progress)
            if progress.reaches(target_bytes):
                break
    finally:
        _stop(batch)
    return progress


def _result(future: Future[int], batch: list[_Run], deadline: float) -> int:
    try:
        return future.result(timeout=max(deadline - time.monotonic(), 0))
    except FutureTimeoutError:
        _stop(batch)
        return future.result()


def _stop(batch: list[_Run]) -> None:
    for run in batch:
        run.stop()


class _Run:
    """One call of the C search, whose arrays live as long as this object."""

    def __init__(self, grid: Grid, number: int, goal_bytes: int, failures: FloatArray) -> None:
        self._grid = grid
        self._goal_bytes = goal_bytes
        self._order = _order(grid.timeline, number, failures)
        self.most_placements = _RUN_PLACEMENTS * _luby(number + 1)
        self._placements = ctypes.c_int64(self.most_placements)
        self._stop = ctypes.c_int32(0)
        self._offset = np.zeros(len(self._order), np.int32)
        self._failures = np.zeros(grid.timeline.sections, np.int64)

    def stop(self) -> None:
        """End the run soon, from another thread."""
        self._stop.value = 1

    def execute(self) -> int:
        """Search; the status as in search.c."""
        grid, order = self._grid, self._order
        columns = (
            grid.timeline.first[order],
            grid.timeline.last[order],
            grid.size[order],
            grid.alignment[order],
            grid.highest(self._goal_bytes)[order],
            grid.twins(order),
        )
        narrow = [column.astype(np.int32) for column in columns]
        status: int = library().kg_allocation_search(
            len(order),
            grid.timeline.sections,
            *(column.ctypes.data for column in narrow),
            grid.capacity(self._goal_bytes),
            ctypes.byref(self._placements),
            ctypes.byref(self._stop),
            self._offset.ctypes.data,
            self._failures.ctypes.data,
        )
        if status == _OUT_OF_MEMORY:
            raise MemoryError(f"allocation search of {len(order)} buffers")
        return status

    def failure_shares(self) -> FloatArray:
        """For each section its share of the failures of the run."""
        return self._failures / max(int(self._failures.sum()), 1)

    def apply(self, status: int, progress: Progress) -> Progress:
        """What the result adds to what was known."""
        if status == _NO_SOLUTION:
            return progress.with_bound(self._grid.height_above(self._goal_bytes))
        if status != _SOLVED:
            return progress
        offset = np.empty(len(self._order), np.int64)
        offset[self._order] = self._offset
        offsets = self._grid.offsets_bytes(offset)
        return progress.with_offsets(
            offsets, height_bytes(self._grid.timeline.buffers, offsets), "search"
        )


def _order(timeline: Timeline, number: int, failures: FloatArray) -> IntArray:
    """The order of run `number`; `failures` says how often each section failed before."""
    peak, size, lifetime = timeline.peak_bytes, timeline.size_bytes, timeline.lifetime
    fixed: tuple[tuple[IntArray, ...], ...] = (
        (peak, lifetime, size),
        (peak, size * lifetime, lifetime),
        (lifetime, size, peak),
        (size, lifetime),
        (size * lifetime, size),
    )
    if number < len(fixed):
        return timeline.order(*fixed[number])
    spans = zip(timeline.first, timeline.last, strict=True)
    failed = np.array([failures[first:last].mean() for first, last in spans]) + 1e-4
    generator = random.Random(number)
    noise = generator.choice((0.1, 0.3, 0.6, 1.0, 2.0))
    score = np.array([noise * generator.random() for _ in timeline.buffers])
    exponents = (
        (failed, (1, 2, 4)),
        (peak, (0, 1, 4, 1000)),
        (lifetime, (0, 1, 2)),
        (size, (0, 1, 2)),
    )
    for values, choices in exponents:
        score += generator.choice(choices) * np.log(values)
    return timeline.order(score)


def _luby(number: int) -> int:
    """Term `number`, from 1, of 1 1 2 1 1 2 4 1 1 2 1 1 2 4 8 ..."""
    while True:
        power = 1 << (number.bit_length() - 1)
        if number == 2 * power - 1:
            return power
        number -= power - 1
