"""Gradient, check and step of an int8 weight in one operator, so that its float32 gradient never
exists as a whole.

The kernel computes the gradient of a block of the weight into scratch, sees whether it is finite,
and steps. Its bits are those of the three operators one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, Quantization, TensorType
from kilograd.ops.conv_geometry import Geometry, Pair, drawer
from kilograd.ops.q_conv_grad import (
    SCRATCH_BYTES,
    QConv2dGradWeight,
    QLinearGradWeight,
    rows_geometry,
)
from kilograd.ops.q_optimizer import QSgdStep
from kilograd.ops.q_types import activation, check_activation
from kilograd.ops.random import SEED

LEAST_ROOM, MOST_ROOM = 128, 1024
"""Floats of the gradient that exist at a time. The least is KG_ROWS * KG_LANES of the widest
register tile; with the most, a microcontroller takes 256 output channels at a time, which makes
integers of as many pixels into floats no more often than needed.
"""

LANES = 4
"""Input channels of a block on a microcontroller: with fewer output channels less room will do."""


@dataclass(frozen=True)
class QWeightStep(Operator):
    """Inputs x i8 and d_y f32 of `grad`, then w i8, learning rate f32[], scales f32[O], [seed
    u32[1]], [remainder i8] of `step`; outputs the next w and remainder.

    Only a gradient without groups, and a step of one scale an output channel.
    """

    name: ClassVar[str] = "q_weight_step"
    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 2), (1, 5))
    scalars: ClassVar[tuple[int, ...]] = (3,)
    may_fail: ClassVar[bool] = True
    grad: QConv2dGradWeight | QLinearGradWeight
    step: QSgdStep

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The types of w and the remainder."""
        x, d_y, w, rate, scales, *extra = types
        if not fusible(self.grad, self.step, w):
            raise InputError(f"{self.name}: {self.grad} and {self.step} of {w} are not one step")
        (d_w,) = self.grad.infer(x, d_y)
        return self.step.infer(w, d_w, rate, scales, *extra)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The reference of the step, along that of the gradient."""
        x, d_y, w, rate, scales, *extra = arrays
        (d_w,) = self.grad.reference(xp, x, d_y)
        return self.step.reference(xp, w, d_w, rate, scales, *extra)

    def succeeds(self, xp: Namespace, *arrays: Array) -> bool:
        """Whether the gradient is finite in float32."""
        (d_w,) = self.grad.reference(xp, *arrays[:2])
        return bool(xp.all(xp.isfinite(xp.astype(d_w, xp.float32))))

    def cost(self, *types: TensorType) -> Cost:
        """The work of both; of the gradient only a block is in memory."""
        x, d_y, w, rate, scales, *extra = types
        d_w = TensorType(w.shape)
        grad, step = self.grad.cost(x, d_y), self.step.cost(w, d_w, rate, scales, *extra)
        return Cost(
            macs=grad.macs + step.macs,
            bytes_read=sum(t.bytes for t in types),
            bytes_written=step.bytes_written,
            scratch_bytes=SCRATCH_BYTES + 4 * _room(w),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call that may end the step."""
        x, d_y, w, rate, scales, *extra = operands.inputs
        channels = x.type.shape[-1]
        geometry, (begin, end) = self._window(x.type, d_y.type, channels)
        rounding, stochastic = self.step.rounding, self.step.rounding == "stochastic"
        following, remainder = operands.outputs[0], ("NULL", "NULL")
        if rounding == "residual":
            remainder = (operands.outputs[1].text, extra[0].text)
        how = (
            following, remainder[0], w, remainder[1], scales, extra[0] if stochastic else "NULL",
            f"{self.step.salt if stochastic else 0}u", rate, str(self.step.aware).lower(),
        )  # fmt: skip
        arguments = (
            f"&(const kg_weight_step){{{', '.join(map(str, how))}}}", x.offset(begin), d_y,
            operands.scratch, _room(w.type), str(geometry), channels, end - begin,
            d_y.type.shape[-1], check_activation(self.name, x.type), self.grad.x_zero_point,
        )  # fmt: skip
        name = f"kg_weight_step_{rounding}_s8"
        return [Call("q_weight_step.h", name, arguments, "KG_ERROR_NONFINITE")]

    def _window(self, x: TensorType, d_y: TensorType, channels: int) -> tuple[Geometry, Pair]:
        """The geometry, and the input channels whose weights move."""
        if isinstance(self.grad, QConv2dGradWeight):
            geometry = self.grad.geometry(x, d_y)
        else:
            geometry = rows_geometry(x.size // channels)
        return geometry, self.grad.channels or (0, channels)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Every rounding and kind of layer; more output channels than a block has, in numbers
        that blocks do not divide; NaN and infinity.
        """
        pads, same = ((1, 2), (0, 3)), ((1, 1), (1, 1))
        conv, linear, make = QConv2dGradWeight, QLinearGradWeight, _example
        point = conv(0.0625, 3, (1, 1))
        return [
            make(0, point, "nearest", (1, 3, 5, 7), (1, 3, 5, 9)),
            make(1, point, "stochastic", (1, 3, 3, 22), (1, 3, 3, 261)),
            make(2, conv(0.0625, 3, (1, 1), (2, 2)), "residual", (1, 6, 5, 7), (1, 3, 3, 37)),
            make(
                3, conv(0.0625, 3, (3, 3), (1, 1), same), "residual", (1, 9, 13, 5), (1, 9, 13, 27)
            ),
            make(
                4, conv(0.0625, 127, (3, 2), (2, 3), pads, (2, 1), channels=(1, 3)), "stochastic",
                (1, 6, 7, 4), (1, 3, 3, 35), aware=False,
            ),
            make(5, conv(0.0625, -9, (1, 1)), "nearest", (1, 9, 8, 1), (1, 9, 8, 1100)),
            make(6, linear(0.0625, 4), "stochastic", (1, 7), (1, 5)),
            make(7, linear(0.0625, -4, (2, 23)), "residual", (1, 3, 26), (1, 3, 130)),
            make(8, linear(0.0625, -128), "nearest", (1, 70, 9), (1, 70, 5)),
            make(9, point, "stochastic", (1, 2, 2, 3), (1, 2, 2, 5), bad=np.nan),
            make(10, linear(0.0625, 4), "stochastic", (1, 7), (1, 300), bad=np.inf),
        ]  # fmt: skip


def fusible(grad: Operator, step: Operator, w: TensorType) -> bool:
    """Whether a gradient and the step along it can be one `QWeightStep` of w."""
    if not isinstance(grad, QConv2dGradWeight | QLinearGradWeight):
        return False
    groups = grad.groups if isinstance(grad, QConv2dGradWeight) else 1
    is_step = isinstance(step, QSgdStep) and step.axis == 0
    return groups == 1 and is_step and w.dtype is DType.I8


def _room(w: TensorType) -> int:
    """Floats of scratch for the gradient of a block of the weight."""
    return min(max(LANES * w.shape[0], LEAST_ROOM), MOST_ROOM)


def _example(
    seed: int,
    grad: QConv2dGradWeight | QLinearGradWeight,
    rounding: str,
    shape: Sequence[int],
    d_shape: Sequence[int],
    *,
    aware: bool = True,
    bad: float = 0.0,
) -> Example:
    rng = np.random.default_rng(seed)
    x_type, d_type = activation(shape, grad.x_scale, grad.x_zero_point), TensorType(tuple(d_shape))
    (d_w,) = grad.infer(x_type, d_type)
    scales = rng.uniform(0.001, 0.01, d_w.shape[0]).astype(np.float32)
    meaning = Quantization(tuple(map(float, scales)), 0, 0)
    w_type = TensorType(d_w.shape, DType.I8, meaning)
    d_y = np.round(16 * drawer(seed)(*d_shape)) / np.float32(16)  # so that every sum is exact
    if bad:
        d_y.flat[d_y.size // 2] = bad
    step, rate = QSgdStep(0, rounding, 7, aware), 5e-4 if aware else 20.0
    extra = step.extra(w_type)
    operands = {SEED.dtype: np.array([12345], np.uint32)}
    operands[DType.I8] = rng.integers(-128, 128, d_w.shape).astype(np.int8)
    inputs = (
        rng.integers(-128, 128, shape).astype(np.int8), d_y,
        rng.integers(-127, 128, d_w.shape).astype(np.int8), np.array(rate, np.float32), scales,
        *(operands[type_.dtype] for type_ in extra),
    )  # fmt: skip
    types = (x_type, d_type, w_type, TensorType(()), TensorType(scales.shape), *extra)
    return Example(QWeightStep(grad, step), inputs, types=types)
