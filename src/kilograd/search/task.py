"""The samples that a search trains and judges with, and how a seed draws from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from kilograd.errors import InputError

Split = tuple[np.ndarray, np.ndarray]
"""Inputs in the layout of the user's model, and class indices."""

HELD_OUT = 1 / 3
"""The share of samples to judge by where the user gives none."""


@dataclass(frozen=True, eq=False)
class Task:
    """Labelled samples of one task.

    `x` [N, ...] in the layout of the user's model and `y` [N] class indices are learned from;
    `test`, where there is one, is judged by; otherwise a third of every class is set aside, drawn
    anew with each seed. `samples` and `test_samples` limit how many a run uses of them.
    """

    x: np.ndarray
    y: np.ndarray
    test: Split | None = None
    samples: int | None = None
    test_samples: int | None = None

    @property
    def classes(self) -> int:
        """How many different classes occur."""
        return len(np.unique(self.y))

    def draw(self, seed: int) -> tuple[Split, Split]:
        """The samples of a seed to learn from and to judge by, classes in proportion."""
        rng = np.random.default_rng(seed)
        groups = [rng.permutation(np.flatnonzero(self.y == c)) for c in np.unique(self.y)]
        if self.test is None:
            aside = [max(1, round(HELD_OUT * len(group))) for group in groups]
            held = [group[:n] for group, n in zip(groups, aside, strict=True)]
            groups = [group[n:] for group, n in zip(groups, aside, strict=True)]
            judged = _limit(held, self.test_samples, rng)
            test = (self.x[judged], self.y[judged])
        else:
            by_class = [np.flatnonzero(self.test[1] == c) for c in np.unique(self.test[1])]
            # Not drawn with the seed: the user's test samples are the measure.
            judged = _limit(by_class, self.test_samples, np.random.default_rng(0))
            test = (self.test[0][judged], self.test[1][judged])
        learned = _limit(groups, self.samples, rng)
        return (self.x[learned], self.y[learned]), test

    def digest(self) -> str:
        """A hash of everything that `draw` depends on."""
        digest = hashlib.sha256()
        arrays = [self.x, self.y, *(self.test or ())]
        for array in arrays:
            digest.update(f"{array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(f"{self.samples} {self.test_samples}".encode())
        return digest.hexdigest()


def _limit(groups: list[np.ndarray], count: int | None, rng: np.random.Generator) -> np.ndarray:
    """At most `count` members, the groups in turn, in ascending order."""
    chosen: list[int] = []
    ranked = sorted(
        ((rank, rng.random(), int(index)) for group in groups for rank, index in enumerate(group))
    )
    chosen = [index for _, _, index in ranked]
    return np.sort(np.array(chosen if count is None else chosen[:count], np.int64))


def make_task(
    data: object,
    test: object = None,
    *,
    shape: tuple[int, ...],
    classes: int,
    samples: int | None = None,
    test_samples: int | None = None,
) -> Task:
    """A checked task: `data` and `test` are pairs (x, y), `shape` that of one sample, `classes`
    those that the network has.

    Raises InputError for samples without labels, of another shape, for classes that the network
    has not, and for fewer than two classes.
    """
    x, y = _pair(data, "data", shape, classes)
    judged = None if test is None else _pair(test, "test", shape, classes)
    for name, limit in (("samples", samples), ("test_samples", test_samples)):
        if limit is not None and limit < 2:
            raise InputError(f"{name}={limit}: a search needs two samples or more")
    found, counts = np.unique(y, return_counts=True)
    if len(found) < 2:
        raise InputError(
            f"the task has one class: all {len(y)} samples are of class {int(found[0])}, so every "
            "scheme would seem perfect; a search needs samples of two classes or more"
        )
    if judged is None and counts.min() < 2:
        rare = int(found[counts.argmin()])
        raise InputError(
            f"class {rare} has one sample, which cannot be learned from and judged by; give more, "
            "or samples to judge by (test=)"
        )
    return Task(x, y, judged, samples, test_samples)


def _pair(data: object, name: str, shape: tuple[int, ...], classes: int) -> Split:
    if data is None:
        raise InputError(
            f"a search needs labelled samples: {name}=(x, y), inputs and their classes "
            "(--data FILE on the command line)"
        )
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise InputError(f"{name} is not a pair (x, y) of inputs and their classes")
    if data[1] is None:
        raise InputError(
            f"{name} has no labels: a search measures accuracy, so it needs pairs (x, y), inputs "
            "and their classes"
        )
    x, y = _array(data[0], f"{name}: x"), _array(data[1], f"{name}: y")
    if not len(x) or x.shape[1:] != shape:
        raise InputError(
            f"{name}: x has shape {list(x.shape)}; the network takes [N, "
            f"{', '.join(map(str, shape))}], N at least 1"
        )
    if y.shape != (len(x),):
        raise InputError(
            f"{name}: y has shape {list(y.shape)}; there is one class index for each of the "
            f"{len(x)} samples"
        )
    if not np.array_equal(y, np.round(y)) or y.min() < 0 or y.max() >= classes:
        raise InputError(
            f"{name}: y holds {y.min():g} to {y.max():g}; the network has the classes 0 to "
            f"{classes - 1}, whole numbers (classes= gives it another number)"
        )
    return np.ascontiguousarray(x), y.astype(np.int64)


def _array(values: object, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} is no array of numbers")
    return array
