"""The optimiser's part of a training graph: for each trained tensor its check, its step, and the
state beside it.
"""

from __future__ import annotations

import numpy as np

from kilograd.ir import Builder, DType, Location, Value
from kilograd.ops.optimizer import Assign, SgdCheck, SgdStep
from kilograd.ops.q_convert import channel_scales
from kilograd.ops.q_optimizer import QDecay, QSgdCheck, QSgdStep, SgdDirection
from kilograd.ops.random import AdvanceSeed
from kilograd.options import SGD


class StepBuilder:
    """Adds steps to a graph under construction; float tensors move in float, integers in integers.

    `rate` and `step` are the graph's learning rate f32[] and sample index u32[].
    """

    def __init__(self, builder: Builder, optimizer: SGD, rate: Value, step: Value) -> None:
        """No steps yet."""
        self._builder = builder
        self._optimizer = optimizer
        self._rate = rate
        self._step = step
        self._seed: Value | None = None
        self._integers = 0
        self._updates: dict[Value, Value] = {}

    def add(self, weight: Value, gradient: Value) -> None:
        """Check and step of `weight`, a state, along `gradient`, f32 and in real units."""
        with self._builder.at(Location(f"update of {weight.name}")):
            if weight.type.dtype is DType.F32:
                self._add_float(weight, gradient)
            else:
                self._add_integer(weight, gradient)

    def finish(self) -> dict[Value, Value]:
        """Every state with its next value; the seed of random rounding moves on, if there is
        one.
        """
        if self._seed is not None:
            location = Location("random rounding")
            (following,) = self._builder.add_multi(AdvanceSeed(), self._seed, location=location)
            self._updates[self._seed] = following
        return self._updates

    def _add_float(self, weight: Value, gradient: Value) -> None:
        o, extra = self._optimizer, self._buffers(weight)
        settings = (o.momentum, o.weight_decay, o.accumulate)
        operands = (weight, gradient, self._rate, self._step, *extra)
        self._builder.add_multi(SgdCheck(*settings), *operands)
        results = self._builder.add_multi(SgdStep(*settings), *operands, name=f"{weight.name}.next")
        self._updates.update(zip((weight, *extra), results, strict=True))

    def _add_integer(self, weight: Value, gradient: Value) -> None:
        o, builder, meaning = self._optimizer, self._builder, weight.type.quantization
        assert meaning is not None and meaning.axis is not None
        scales, extra = channel_scales(builder, weight), self._buffers(weight)
        if o.weight_decay:
            decay = QDecay(meaning.axis, o.weight_decay)
            gradient = builder.add(decay, gradient, weight, scales, name=gradient.name)
        builder.add_multi(QSgdCheck(o.momentum, o.accumulate), weight, gradient, *extra)
        if extra:
            op = SgdDirection(o.momentum, o.accumulate)
            gradient, *following = builder.add_multi(
                op, gradient, self._step, *extra, name=f"{weight.name}.direction"
            )
            self._updates.update(zip(extra, following, strict=True))
        step = QSgdStep(meaning.axis, o.rounding, self._integers, o.qas)
        self._integers += 1
        beside: tuple[Value, ...] = ()
        if o.rounding == "stochastic":
            beside = (self._random(),)
        elif step.keeps_remainder(weight.type):
            zeros = np.zeros(weight.type.shape, np.int8)
            beside = (builder.new_state(f"{weight.name}.remainder", zeros),)
        results = builder.add_multi(
            step, weight, gradient, self._rate, scales, *beside, name=f"{weight.name}.next"
        )
        if o.atomic and not extra and weight.type.dtype is DType.I8:
            # The next weights are prepared as soon as their gradient exists, and take a quarter of
            # its memory until every gradient is known to be finite.
            results = tuple(builder.add(Assign(), value, name=value.name) for value in results)
        kept = beside if step.keeps_remainder(weight.type) else ()
        self._updates.update(zip((weight, *kept), results, strict=True))

    def _buffers(self, weight: Value) -> list[Value]:
        """Velocity and accumulator, float32, as far as the optimiser has them."""
        zeros, result = np.zeros(weight.type.shape, np.float32), []
        if self._optimizer.momentum:
            result.append(self._builder.new_state(f"{weight.name}.velocity", zeros))
        if self._optimizer.accumulate > 1:
            result.append(self._builder.new_state(f"{weight.name}.accumulator", zeros))
        return result

    def _random(self) -> Value:
        """The seed of this step's random numbers, a state that all tensors share."""
        if self._seed is None:
            seed = np.array([self._optimizer.seed], np.uint32)
            self._seed = self._builder.new_state("random_seed", seed)
        return self._seed
