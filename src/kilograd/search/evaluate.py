"""Accuracy by the references of the operators, on batches, in place of the C program.

The interpreter executes the prediction graph of a program with the state that its session has
learned: on NumPy arrays, or on PyTorch's, on a processor or a GPU. Integer operators give the
program's bits; float sums may round differently. For the networks here the C is faster on a
processor; a GPU pays where the samples to judge by are many (docs/search.md has figures).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from kilograd.errors import InputError
from kilograd.ir import Builder, Graph
from kilograd.ir.interpret import evaluate
from kilograd.ops.loss import CrossEntropy
from kilograd.ops.q_convert import Quantize
from kilograd.search.training import Trainable
from kilograd.transforms.differentiate import logits_of_softmax
from kilograd.transforms.ports import Ports

Array = np.ndarray
BATCH = 64


class Session(Trainable, Protocol):
    """A session whose state can be read."""

    def raw_state(self) -> Mapping[str, Array]:
        """Every tensor of the state by program name."""


@dataclass(frozen=True)
class Judgement:
    """The mean loss over samples, and the share of right classes."""

    loss: float
    accuracy: float


class ByReference:
    """A session that learns in C and is judged by references."""

    def __init__(self, session: Session, graph: Graph, ports: Ports, judge: str) -> None:
        """`graph` is the prediction of the session's program, a classifier."""
        self._session, self._graph, self._ports, self._judge = session, graph, ports, judge
        self.reset, self.fit, self.state_dict = session.reset, session.fit, session.state_dict
        softmax = logits_of_softmax(Builder(graph), graph, ports.outputs[0])
        self._has_softmax = softmax is not None

    def evaluate(self, x: ArrayLike, y: ArrayLike | None = None) -> Judgement:
        """Loss and accuracy of what has been learned."""
        state = self._session.raw_state()
        found = outputs(self._graph, self._ports, state, np.asarray(x), self._judge)
        logits, classes = found.astype(np.float64), np.asarray(y)
        if self._has_softmax:
            logits = np.log(np.maximum(logits, 1e-45))
        with np.errstate(invalid="ignore"):
            loss = CrossEntropy().reference(np, logits, classes)[0]
        return Judgement(float(loss), float(np.mean(found.argmax(axis=1) == classes)))


def outputs(
    graph: Graph, ports: Ports, state: Mapping[str, Array], x: Array, judge: str = "numpy"
) -> Array:
    """The network's outputs, float32 [N, ...] in the user's layout, by references.

    `graph` predicts, `state` holds its trained tensors by name, `judge` is "numpy", "torch" or
    "torch:DEVICE". Raises InputError for another, or where PyTorch is missing.
    """
    convert, back = _library(judge)
    source = graph.inputs[0]
    if judge != "numpy":  # PyTorch warns of arrays that must not be written
        constants = {v: replace(t, array=np.array(t.array)) for v, t in graph.constants.items()}
        graph = replace(graph, constants=constants)
    tensors = {value: convert(state[value.name]) for value in graph.state}
    rows = []
    for start in range(0, len(x), BATCH):
        feed = _stored(ports.inputs[0].to_program(x[start : start + BATCH]), source.type)
        result = evaluate(graph, {source.name: convert(feed)}, tensors)
        rows.append(ports.outputs[0].to_user(back(result.outputs[0])))
    return np.concatenate(rows)


def _stored(array: Array, type_: Any) -> Array:
    """Samples as the program takes them."""
    if type_.quantization is None:
        return np.asarray(array, type_.dtype.numpy)
    op = Quantize(type_.quantization.scales[0], type_.quantization.zero_point)
    return np.asarray(op.reference(np, array.astype(np.float32))[0])


def _library(judge: str) -> tuple[Callable[[Array], Any], Callable[[Any], Array]]:
    """To the arrays of a library, and back."""
    name, _, device = judge.partition(":")
    if judge == "numpy":
        return np.asarray, np.asarray
    if name != "torch":
        raise InputError(
            f"judge={judge!r} is unknown; there are c, numpy, torch and torch:DEVICE, such as "
            "torch:cuda"
        )
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "judge='torch' needs PyTorch: pip install 'kilograd[torch]' (or judge='c')"
        ) from error
    try:
        place = torch.empty(0, device=device or "cpu").device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"judge={judge!r}: PyTorch has no such device here: {reason}") from error
    return (
        lambda array: torch.tensor(np.ascontiguousarray(array), device=place),
        lambda tensor: np.asarray(tensor.cpu().numpy()),
    )
