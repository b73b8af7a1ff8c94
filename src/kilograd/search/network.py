"""What a search asks of a network."""

from __future__ import annotations

from typing import Any, Protocol

from kilograd.devices import Device
from kilograd.ir import Graph
from kilograd.options import Budget, Loss
from kilograd.search.resources import Compiler
from kilograd.search.training import Trainer
from kilograd.transforms.ports import Ports


class Network(Compiler, Trainer, Protocol):
    """A network for which it is open what to train: `kilograd.compiler.Prepared`."""

    @property
    def name(self) -> str:
        """Of its C functions."""

    @property
    def folded(self) -> Graph:
        """The float forward graph."""

    @property
    def ports(self) -> Ports:
        """How the user's arrays are laid out."""

    @property
    def loss(self) -> Loss:
        """What is minimised."""

    @property
    def device(self) -> Device:
        """Where it has to fit."""

    @property
    def budget(self) -> Budget:
        """Limits below the device's."""

    @property
    def inputs(self) -> dict[str, Any]:
        """All that decides on its programs besides what is trained."""
