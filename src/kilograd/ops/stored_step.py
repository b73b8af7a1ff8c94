"""The step of SGD on weights that lie in secondary storage, a chunk at a time.

    load w, step, store w        w, its velocity and the gradient are in RAM at once
    stored_sgd_step              the gradient, and a chunk of the others

The formulas are those of `kilograd.ops.optimizer`, and so are the bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilograd.ir.operator import Argument, Array, Call, Cost, Example, Namespace, Operands
from kilograd.ir.types import TensorType
from kilograd.ops.optimizer import SgdCheck, SgdStep
from kilograd.ops.page import Paging

CHUNK_BYTES = 4096
"""Of each tensor; longer chunks save transfers, shorter ones RAM."""


@dataclass(frozen=True)
class StoredSgdStep(Paging):
    """Inputs gradient, learning rate f32[], step u32[], and in storage w, [velocity],
    [accumulator]; outputs, in storage, the next of each.

    Attributes as of `SgdStep`. Fails where the storage does, or where something is not finite, as
    `SgdCheck` finds it. The outputs may not lie where the inputs do.
    """

    name = "stored_sgd_step"
    scalars = (1, 2)
    writes = True
    momentum: float = 0.0
    weight_decay: float = 0.0
    period: int = 1
    chunk_bytes: int = CHUNK_BYTES

    FIRST_STORED: ClassVar[int] = 3

    @classmethod
    def of(cls, step: SgdStep, block_bytes: int, chunk_bytes: int = CHUNK_BYTES) -> StoredSgdStep:
        """The same step on a storage of these blocks."""
        chunk = -(-chunk_bytes // block_bytes) * block_bytes
        return cls(block_bytes, step.momentum, step.weight_decay, step.period, chunk)

    def reads(self, position: int) -> bool:
        """All but gradient, rate and step."""
        return position >= self.FIRST_STORED

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The types of w, the velocity and the accumulator."""
        return types[self.FIRST_STORED :]

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """That of `SgdStep`."""
        gradient, rate, step, w, *extra = arrays
        return self._step().reference(xp, w, gradient, rate, step, *extra)

    def succeeds(self, xp: Namespace, *arrays: Array) -> bool:
        """Whether everything is finite behind the step."""
        gradient, rate, step, w, *extra = arrays
        check = SgdCheck(self.momentum, self.weight_decay, self.period)
        return bool(check.reference(xp, w, gradient, rate, step, *extra)[0])

    def cost(self, *types: TensorType) -> Cost:
        """What `SgdStep` and `SgdCheck` do; scratch are a word and a chunk of each tensor."""
        gradient, rate, step, *stored = types
        step_cost = self._step().cost(stored[0], gradient, rate, step, *stored[1:])
        return Cost(
            macs=2 * step_cost.macs,
            bytes_read=2 * step_cost.bytes_read,
            bytes_written=step_cost.bytes_written,
            scratch_bytes=4 + len(stored) * self._chunk(stored[0]),
        )

    def emit(self, operands: Operands) -> Sequence[Call]:
        """The step, and what it found."""
        gradient, rate, step, *now = operands.inputs
        numbers = (
            f"&(const kg_sgd){{.momentum = {_float(self.momentum)}, "
            f".decay = {_float(self.weight_decay)}, .period = {self.period}, "
            f".chunk_bytes = {self._chunk(now[0].type)}}}"
        )
        arguments: tuple[Argument, ...] = (
            f"(const kg_stored[]){{{', '.join(f'{{{page}}}' for page in now)}}}",
            f"(const kg_stored[]){{{', '.join(f'{{{page}}}' for page in operands.outputs)}}}",
            gradient, now[0].type.size, rate, step, numbers, operands.scratch,
        )  # fmt: skip
        header = "stored_step.h"
        return (
            Call(header, "kg_stored_sgd_f32", arguments, "KG_ERROR_STORAGE"),
            Call(header, "kg_stored_sgd_finite", (operands.scratch,), "KG_ERROR_NONFINITE"),
        )

    def parts(self, *types: TensorType) -> tuple[tuple[SgdStep, tuple[TensorType, ...]], ...]:
        """The operators whose work this does, and their operands."""
        gradient, rate, step, w, *extra = types
        operands = (w, gradient, rate, step, *extra)
        numbers = (self.momentum, self.weight_decay, self.period)
        return (SgdCheck(*numbers), operands), (SgdStep(*numbers), operands)

    def _step(self) -> SgdStep:
        return SgdStep(self.momentum, self.weight_decay, self.period)

    def _chunk(self, w: TensorType) -> int:
        """No longer than the tensor, in whole blocks and words."""
        unit = int(np.lcm(self.block_bytes, 4))
        return min(-(-self.chunk_bytes // unit), -(-w.bytes // unit)) * unit

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """One chunk and several, each with and without what the optimiser keeps, and infinities."""
        rng = np.random.default_rng(0)
        w, g, v, a = rng.standard_normal((4, 3, 15)).astype(np.float32)
        large = np.full_like(w, 3e38)
        rate = np.array(0.1, np.float32)
        steps = [np.array(step, np.uint32) for step in range(4)]
        return [
            Example(cls(), (g, rate, steps[0], w), 1e-6),
            Example(cls(1, chunk_bytes=64), (g, rate, steps[0], w), 1e-6),
            Example(cls(32, 0.9, 1e-3, chunk_bytes=64), (g, rate, steps[0], w, v), 1e-6),
            Example(cls(1, 0.9, 0.0, 4, 16), (g, rate, steps[2], w, v, a), 1e-6),
            Example(cls(8, 0.0, 0.0, 4), (g, rate, steps[3], w, a), 1e-6),
            Example(cls(8, 0.9), (large, rate, steps[0], w, large), 1e-6),
        ]


def _float(number: float) -> str:
    text = str(np.float32(number))
    return f"{text}f" if any(mark in text for mark in ".en") else f"{text}.0f"
