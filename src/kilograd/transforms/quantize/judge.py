"""How the quantised network compares with the float one on labelled data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kilograd.errors import InputError
from kilograd.ir import Graph, evaluate
from kilograd.ops.loss import BinaryCrossEntropyWithLogits, MeanSquaredError
from kilograd.options import Loss
from kilograd.transforms.ports import Ports

BATCH = 32


@dataclass(frozen=True)
class Score:
    """`measure` ("accuracy", or the loss) of float32 and int8, the mean over `samples`."""

    measure: str
    float32: float
    int8: float
    samples: int

    def __str__(self) -> str:
        """One line for the summary."""
        style = ".1%" if self.measure == "accuracy" else ".4g"
        return (
            f"{self.measure} on {self.samples} labelled samples: int8 {self.int8:{style}}, "
            f"float32 {self.float32:{style}}"
        )


def labelled(calibration: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Inputs and targets (None where there are none) of calibration data: an array, or a pair.

    Raises InputError for anything else.
    """
    if not isinstance(calibration, tuple):
        return _array(calibration), None
    if len(calibration) != 2:
        raise InputError(
            f"calibration is an array [N, ...] of inputs or a pair (inputs, targets), not a tuple "
            f"of {len(calibration)}"
        )
    inputs, targets = map(_array, calibration)
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
        raise InputError(
            f"calibration: inputs of shape {list(inputs.shape)} and targets of shape "
            f"{list(targets.shape)} are not pairs"
        )
    return inputs, targets


def _array(data: Any) -> np.ndarray:
    array = np.asarray(data.detach() if hasattr(data, "detach") else data)
    if array.dtype.kind not in "fiub":
        raise InputError(f"calibration holds {array.dtype}; real numbers are needed")
    return array


def compare(
    real: Graph, quantized: Graph, ports: Ports, loss: Loss, inputs: np.ndarray,
    targets: np.ndarray,
) -> Score:  # fmt: skip
    """The float and the int8 forward graph on labelled samples, both with float32 inputs: accuracy
    for cross entropy, otherwise the loss.
    """
    measure = "accuracy" if loss is Loss.CROSS_ENTROPY else loss.value
    float32, int8 = (_score(graph, ports, loss, inputs, targets) for graph in (real, quantized))
    return Score(measure, float32, int8, len(inputs))


def _score(
    graph: Graph, ports: Ports, loss: Loss, inputs: np.ndarray, targets: np.ndarray
) -> float:
    (source,), outputs = graph.inputs, []
    arrays = ports.inputs[0].to_program(inputs.astype(source.type.dtype.numpy))
    for start in range(0, len(arrays), BATCH):
        feed = {source.name: arrays[start : start + BATCH]}
        outputs.append(ports.outputs[0].to_user(evaluate(graph, feed).outputs[0]))
    output = np.concatenate(outputs).astype(np.float64)
    if loss is Loss.CROSS_ENTROPY:
        winners = np.argmax(output, axis=1)
        return float(np.mean(winners == targets.reshape(winners.shape)))
    wanted = (inputs if loss is Loss.AUTOENCODER else targets).reshape(output.shape)
    kind = BinaryCrossEntropyWithLogits() if loss is Loss.BCE_WITH_LOGITS else MeanSquaredError()
    return float(kind.reference(np, output, wanted.astype(np.float64))[0])
