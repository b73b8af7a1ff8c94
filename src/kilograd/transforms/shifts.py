"""The first shifts of integer gradients, found on calibration data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kilograd.ir import DType, Graph, Tensor, Value
from kilograd.ops.ig_narrow import ShiftStep
from kilograd.ops.loss import CrossEntropyGrad
from kilograd.ops.q_convert import Quantize
from kilograd.transforms.differentiate import TrainingInputs

SAMPLES = 4
"""A shift is what the layer makes of its input, and varies little from sample to sample."""


def calibrate_shifts(train: Graph, samples: np.ndarray) -> Graph:
    """The training graph with the shifts that some of the samples [N, ...] (float32, in the layout
    of the program) want most.

    Each is found in the order of the graph, so one pass is enough. Targets are drawn at random:
    how large the gradient of the loss is does not matter.
    """
    shifts = [node.inputs for node in train.nodes if isinstance(node.op, ShiftStep)]
    if not shifts:
        return train
    best: dict[Value, int] = {}
    for number in range(min(SAMPLES, len(samples))):
        for shift, wanted in _wanted(train, shifts, samples[number : number + 1], number):
            best[shift] = max(best.get(shift, 0), wanted)
    state = {
        value: Tensor(np.array(best[value], np.int32)) if value in best else tensor
        for value, tensor in train.state.items()
    }
    return replace(train, state=state)


def _wanted(
    train: Graph, shifts: Sequence[tuple[Value, ...]], sample: np.ndarray, number: int
) -> list[tuple[Value, int]]:
    """What one sample wants: a node whose shift is not what it wants runs again with that."""
    inputs = TrainingInputs.of(train)
    env = {value: tensor.array for value, tensor in {**train.constants, **train.state}.items()}
    env[inputs.sample] = _sample(inputs.sample, sample)
    env[inputs.learning_rate] = np.array(0, np.float32)
    env[inputs.step] = np.array(0, np.uint32)
    if inputs.target is not None:
        env[inputs.target] = _target(train, inputs.target, number)
    asks = {wanted: shift for shift, wanted in shifts}
    found = []
    for node in train.nodes:
        if node.op.check or node.op.mutates or any(value not in env for value in node.inputs):
            continue  # the steps, and what reads their results
        results = node.op.reference(np, *(env[value] for value in node.inputs))
        shift = asks.get(node.outputs[-1])
        if shift is not None:
            env[shift] = results[-1]
            found.append((shift, int(results[-1])))
            results = node.op.reference(np, *(env[value] for value in node.inputs))
        env.update(zip(node.outputs, results, strict=True))
    return found


def _sample(value: Value, sample: np.ndarray) -> np.ndarray:
    meaning = value.type.quantization
    if value.type.dtype is DType.F32 or meaning is None:
        return sample.astype(value.type.dtype.numpy)
    convert = Quantize(meaning.scales[0], meaning.zero_point)
    quantised: np.ndarray = convert.reference(np, sample.astype(np.float32))[0]
    return quantised


def _target(train: Graph, target: Value, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if target.type.dtype is DType.F32:
        return rng.standard_normal(target.type.shape).astype(np.float32)
    classes = [
        n.inputs[0].type.shape[-1] for n in train.nodes if isinstance(n.op, CrossEntropyGrad)
    ]
    return rng.integers(0, classes[0], target.type.shape).astype(np.int32)
