"""One short training of a compiled program: what a measurement is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from kilograd.errors import InputError, NonFiniteError
from kilograd.search.store import Score
from kilograd.search.task import Task
from kilograd.update import Spec


class Trainable(Protocol):
    """A session: a compiled program that predicts and learns."""

    def reset(self) -> None:
        """Back to the compiled network."""

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        *,
        epochs: int = 1,
        lr: float | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> Any:
        """Train on every sample."""

    def evaluate(self, x: ArrayLike, y: ArrayLike | None = None) -> Any:
        """Loss and accuracy."""

    def state_dict(self) -> Mapping[str, np.ndarray]:
        """The trained parameters under the user's names and layouts."""


class Trainer(Protocol):
    """What builds sessions: a network for which it is open what to train. It can be pickled."""

    def session(self, update: Spec, judge: str = "c") -> Trainable:
        """The program that trains what `update` says, on this computer, judged by `judge`."""


@dataclass(frozen=True)
class Training:
    """How a run goes: `epochs` rounds of single samples at a rate that rises to `lr` in a share
    `rise` of them and falls from there along half a cosine, by round. Without a rise, layers behind
    a head that knows nothing yet are often spoilt for good.
    """

    epochs: int
    lr: float
    rise: float = 0.25

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        if self.epochs < 1:
            raise InputError(f"epochs={self.epochs}: a search trains for one epoch or more")
        if not 0 < self.lr < math.inf:
            raise InputError(f"lr={self.lr}: a search needs a learning rate above 0")
        if not 0 <= self.rise <= 1:
            raise InputError(f"rise={self.rise}: the rate rises in a share of the epochs, 0 to 1")

    def rate(self, epoch: int) -> float:
        """The learning rate of a round."""
        rising = int(self.epochs * self.rise)
        if epoch < rising:
            return self.lr * (epoch + 1) / (rising + 1)
        falling = (epoch - rising) / (self.epochs - rising)
        return self.lr * 0.5 * (1 + math.cos(math.pi * falling))

    @property
    def inputs(self) -> dict[str, Any]:
        """What a measurement depends on."""
        return asdict(self)


def trial(session: Trainable, task: Task, training: Training, seed: int) -> Score:
    """Train the compiled network with the samples and the order of a seed, and judge it."""
    (x, y), judged = task.draw(seed)
    session.reset()
    diverged = False
    for epoch in range(training.epochs):
        try:
            # Seeds of other epochs and runs must not meet.
            session.fit(x, y, lr=training.rate(epoch), seed=1000 * seed + epoch, progress=False)
        except NonFiniteError:
            diverged = True
            break
    with np.errstate(invalid="ignore", over="ignore"):  # of a run that diverged
        found = session.evaluate(*judged)
    loss = float(found.loss)
    return Score(float(found.accuracy), loss if math.isfinite(loss) else 1e30, diverged)
