"""Builds graphs: fresh names, inferred types, one node at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from kilograd.ir.graph import Graph, Location, Node, Tensor, Value
from kilograd.ir.operator import Operator
from kilograd.ir.origin import Origin
from kilograd.ir.types import DType, TensorType


class Builder:
    """A graph under construction; `finish()` gives the immutable graph."""

    def __init__(self, start: Graph | None = None) -> None:
        """Start empty, or from everything that `start` holds but its outputs and updates."""
        self.inputs: list[Value] = list(start.inputs) if start else []
        self.nodes: list[Node] = list(start.nodes) if start else []
        self.constants: dict[Value, Tensor] = dict(start.constants) if start else {}
        self.state: dict[Value, Tensor] = dict(start.state) if start else {}
        self._names: set[str] = {value.name for value in start.values()} if start else set()
        self._counters: dict[str, int] = {}
        self._location = Location()

    def reserve(self, names: Iterable[str]) -> None:
        """Never hand out these names."""
        self._names.update(names)

    @contextmanager
    def at(self, location: Location) -> Iterator[None]:
        """Nodes added inside carry this location unless they bring their own."""
        before, self._location = self._location, location
        try:
            yield
        finally:
            self._location = before

    @property
    def location(self) -> Location:
        """The location that nodes are given."""
        return self._location

    def fresh(self, hint: str) -> str:
        """A name that no value has yet, close to `hint`."""
        name = hint
        while name in self._names:
            self._counters[hint] = self._counters.get(hint, 0) + 1
            name = f"{hint}_{self._counters[hint]}"
        self._names.add(name)
        return name

    def input(self, name: str, type_: TensorType) -> Value:
        """A graph input."""
        value = Value(self.fresh(name), type_)
        self.inputs.append(value)
        return value

    def constant(self, name: str, array: np.ndarray, origin: Origin | None = None) -> Value:
        """A constant that holds `array` (NumPy, an element type that programs have)."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        value = Value(self.fresh(name), TensorType(array.shape, DType.of(array)))
        self.constants[value] = Tensor(array, origin)
        return value

    def new_state(self, name: str, array: np.ndarray, origin: Origin | None = None) -> Value:
        """A state tensor with this initial value."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        value = Value(self.fresh(name), TensorType(array.shape, DType.of(array)))
        self.state[value] = Tensor(array, origin)
        return value

    def add(
        self, op: Operator, *inputs: Value, name: str = "", location: Location | None = None
    ) -> Value:
        """Append a node with one output and return it; `name` is a hint."""
        (value,) = self.add_multi(op, *inputs, name=name, location=location)
        return value

    def add_multi(
        self, op: Operator, *inputs: Value, name: str = "", location: Location | None = None
    ) -> tuple[Value, ...]:
        """Append a node and return its outputs (none for a check)."""
        types = op.infer(*(value.type for value in inputs))
        hint = name or op.name
        outputs = tuple(Value(self.fresh(hint), type_) for type_ in types)
        self.nodes.append(Node(op, tuple(inputs), outputs, location or self._location))
        return outputs

    def finish(self, outputs: Iterable[Value], updates: dict[Value, Value] | None = None) -> Graph:
        """The graph, not yet verified or pruned."""
        return Graph(
            inputs=tuple(self.inputs),
            nodes=tuple(self.nodes),
            outputs=tuple(outputs),
            constants=self.constants,
            state=self.state,
            updates=updates or {},
        )
