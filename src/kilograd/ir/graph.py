"""The intermediate representation: typed SSA in execution order, immutable.

    graph(%x: f32[1,64]) state(%w: f32[64,10]) {
      %y: f32[1,10] = linear(%x, %w)            fc (model.py:12)
      return %y
    }

`constants` live in flash, `state` lives in SRAM from step to step, `updates` maps a state value to
its next one. Those constants and states that are in `stored` live in secondary storage instead:
only `page_in` reads them, and `page_out` makes the next value of such a state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kilograd.ir.origin import Origin
from kilograd.ir.types import TensorType

if TYPE_CHECKING:
    from kilograd.ir.operator import Operator


@dataclass(frozen=True)
class Value:
    """A tensor of the program, defined once; `name` is unique in its graph and starts with no
    sigil.
    """

    name: str
    type: TensorType

    def __hash__(self) -> int:
        """Names are unique in a graph, so the name is hash enough."""
        return hash(self.name)

    def __str__(self) -> str:
        """`%name`, as printed in programs."""
        return f"%{self.name}"


@dataclass(frozen=True)
class Location:
    """Where in the user's model a node comes from: layer path, source line, and the direction."""

    layer: str = ""
    source: str = ""
    backward: bool = False

    def __str__(self) -> str:
        """`block1.0 (model.py:41)`, with `backward of` in front where it applies."""
        text = self.layer or "model"
        if self.source:
            text += f" ({self.source})"
        return f"backward of {text}" if self.backward else text


@dataclass(frozen=True)
class Node:
    """One application of an operator; `mutates` names no value: in-place execution is decided by
    planning.
    """

    op: Operator
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    location: Location = Location()


@dataclass(frozen=True, eq=False)
class Tensor:
    """The data of a constant, or the initial data of a state, and the user's parameter that it
    holds, if any.
    """

    array: np.ndarray
    origin: Origin | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """A program: see the module docstring. Mappings keep insertion order, which is the printed
    order.
    """

    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    constants: Mapping[Value, Tensor] = field(default_factory=dict)
    state: Mapping[Value, Tensor] = field(default_factory=dict)
    updates: Mapping[Value, Value] = field(default_factory=dict)
    stored: frozenset[Value] = frozenset()

    def __str__(self) -> str:
        """The program as text."""
        from kilograd.ir.printing import print_graph

        return print_graph(self)

    def values(self) -> Iterator[Value]:
        """Every value, definitions in order: inputs, constants, state, node outputs."""
        yield from self.inputs
        yield from self.constants
        yield from self.state
        for node in self.nodes:
            yield from node.outputs

    def producers(self) -> dict[Value, Node]:
        """The node that defines each computed value."""
        return {value: node for node in self.nodes for value in node.outputs}

    def readers(self) -> dict[Value, list[Node]]:
        """The nodes that read each value, in order; graph outputs and updates are not nodes."""
        result: dict[Value, list[Node]] = {value: [] for value in self.values()}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                result[value].append(node)
        return result

    def results(self) -> tuple[Value, ...]:
        """The values that must exist at the end: outputs and next states."""
        return (*self.outputs, *self.updates.values())
