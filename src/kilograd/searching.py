"""`kilograd.search`: what to train within a device's memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kilograd.compiler import default_store, prepare
from kilograd.search.found import Found
from kilograd.search.table import Contributions


def search(
    model: Any,
    example_input: Any = None,
    *,
    data: Any = None,
    test: Any = None,
    method: str = "quick",
    contributions: Contributions | str | Path | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    samples: int | None = None,
    test_samples: int | None = None,
    rounds: int | None = None,
    lr: float | Sequence[float] | None = None,
    channels: str = "first",
    judge: str = "c",
    front: int | str | Sequence[int | str] = 6,
    time_limit: float = 60.0,
    jobs: int | None = None,
    store: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Found:
    """Find which biases and which parts of which weights to train, so that most accuracy is gained
    in the memory there is, and within the time and energy of a step that the budget has.

    Contributions are measured by short trainings of compiled programs on this computer, or
    predicted; an integer program then chooses the scheme with the largest sum that fits. Every
    measurement is on disk as soon as it is made, and is used again by an equal search.

    Args:
        model: as of `kilograd.compile`, for a classifier.
        example_input: as of `kilograd.compile`.
        data: samples of the task, a pair (x, y) of inputs [N, ...] in the model's layout and class
            indices [N].
        test: such a pair to judge by; by default a third of `data`, drawn with each seed.
        method: "measured" (every k, every layer at four ratios, three seeds), "quick" (few k, two
            ratios, two seeds, at most 200 samples) or "fast" (trains the head alone; the rest is
            foretold from the gradients of at most 128 samples).
        contributions: a table that was found before, or the path of one, instead of a method: of
            this network at another resolution, or for another device or budget. `data` may then be
            left out; with them, schemes are trained, and what their gradients foretell is tried.
        seeds: how many runs a measurement has, each with its own samples and their order.
        epochs: rounds of a run; 5 by default.
        samples: how many samples a run learns from at most, classes in proportion.
        test_samples: how many it is judged by at most.
        rounds: how often, at most, the trained schemes correct the contributions and what is best
            by that is trained; "measured" 6, "quick" 3, "fast" 0 by default.
        lr: the learning rate at the start of a run, by default the optimiser's; of several, the one
            at which the head alone and the head with all biases do best is taken. The schemes that
            are best by their sums are trained at these and at a third of the smallest, from the
            largest on until one is worse.
        channels: "first" trains the first input channels of a weight, "best" those with the largest
            first-order scores.
        judge: what runs the samples to judge by: the "c" program, or the operators' references on
            "numpy", "torch" or "torch:cuda".
        front: how many SRAM limits the front of gain against SRAM has, evenly spaced; or the limits
            themselves, in bytes or as "64KB", and what is best at each of them is searched, too.
        time_limit: seconds that each selection may take, of which there are two at each limit that
            was asked for; when they are over, the scheme has a gap. Each choice of a round
            has as many, and what linking takes.
        jobs: processes at a time, by default the number of cores, or what `joblib.parallel_config`
            says, which also chooses another backend, such as Dask or Ray.
        store: directory of measurements; by default one in kilograd's cache.
        progress: whether to show a bar with the time left, on a terminal.
        options: further arguments of `kilograd.compile`: device, budget, precision, optimizer, ...

    Raises:
        InputError: there are no labels, or one class; nothing limits the SRAM; the device has no
            estimate of what the budget limits; an argument is not what it has to be.
        InfeasibleError: even training the head alone does not fit.
    """
    # Brings solvers and joblib, which `import kilograd` need not.
    from kilograd.search.search import find

    prepared = prepare(model, example_input, **options)
    return find(
        prepared,
        data,
        test,
        method=method,
        contributions=contributions,
        seeds=seeds,
        epochs=epochs,
        samples=samples,
        test_samples=test_samples,
        rounds=rounds,
        lr=lr,
        channels=channels,
        judge=judge,
        front=front,
        time_limit=time_limit,
        jobs=jobs,
        store=store or default_store(),
        progress=progress,
    )
