"""What a search asks of a network."""

from __future__ import annotations

from typing import Any, Protocol

from kilograd.options import Budget
from kilograd.search.predict import Differentiable
from kilograd.search.resources import Compiler
from kilograd.search.training import Trainer


class Network(Compiler, Trainer, Differentiable, Protocol):
    """A network for which it is open what to train: `kilograd.compiler.Prepared`."""

    @property
    def name(self) -> str:
        """Of its C functions."""

    @property
    def budget(self) -> Budget:
        """Limits below the device's."""

    @property
    def inputs(self) -> dict[str, Any]:
        """All that decides on its programs besides what is trained."""
