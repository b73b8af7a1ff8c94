"""What the compiler has to know of an operator, in one place.

An operator is a frozen dataclass whose fields are its attributes. The file in `kilograd.ops` that
defines it also defines its gradient operators; `docs/add-an-operator.md` walks through one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from kilograd.ir.types import TensorType

if TYPE_CHECKING:
    from kilograd.ir.builder import Builder
    from kilograd.ir.graph import Node, Value

Array = Any
"""An array of any library that follows the array API standard (NumPy, PyTorch)."""

Namespace = Any
"""The array API namespace of such a library, as `array_api_compat.array_namespace` returns it."""


@dataclass(frozen=True)
class Cost:
    """Work of one execution: multiply-accumulates, bytes read and written, scratch bytes in the
    arena.
    """

    macs: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    scratch_bytes: int = 0


@dataclass(frozen=True)
class Operand:
    """A value as generated code sees it: a C expression (a pointer, or the number itself where the
    operator takes a scalar), and its type.
    """

    text: str
    type: TensorType

    def __str__(self) -> str:
        """The C expression."""
        return self.text

    def offset(self, elements: int) -> Operand:
        """The pointer moved on by this many elements."""
        return replace(self, text=f"{self.text} + {elements}") if elements else self


@dataclass(frozen=True)
class Operands:
    """The operands of one node in generated code; `scratch` is a pointer to the node's scratch
    bytes, or NULL.
    """

    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    scratch: str = "NULL"


Argument = str | bool | int | float | Operand


@dataclass(frozen=True)
class Call:
    """A C statement: `function(arguments);`, or for a check `if (!function(arguments)) return
    status;`.

    `header` is the runtime header (under `kilograd/`) that declares the function. Floats are
    printed so that they read back to the same bits.
    """

    header: str
    function: str
    arguments: tuple[Argument, ...]
    status_if_false: str | None = None


@dataclass(frozen=True, eq=False)
class Example:
    """One case for the conformance tests: an operator, its input arrays, and how exact C and
    gradient must be.

    `inputs` are NumPy arrays. `tolerance` bounds |C - reference| relative to the largest magnitude
    of the reference (0 asks for equal bits). `differentiable` names the inputs whose gradient is
    compared to finite differences; they must stay clear of kinks. `batched` says that the leading
    dimension of every input named in it is the batch. `types` are the types of the inputs where
    shape and element type do not say it all, as for quantised tensors.
    """

    op: Operator
    inputs: tuple[Any, ...]
    tolerance: float = 0.0
    differentiable: tuple[int, ...] = ()
    batched: tuple[int, ...] = ()
    types: tuple[TensorType, ...] | None = None


class Operator(ABC):
    """Base of all operators; subclasses are frozen dataclasses."""

    name: ClassVar[str]
    """The name in printed programs: lower case, words joined by underscores."""

    in_place: ClassVar[tuple[tuple[int, int], ...]] = ()
    """Pairs (output, input): the output may be written over that input when nobody reads the input
    later.
    """

    mutates: ClassVar[bool] = False
    """True when the kernel knows no other way than the `in_place` pairs: it overwrites its
    inputs.
    """

    alias: ClassVar[bool] = False
    """True when the only output is the first input's bytes under another shape: no code, no
    memory.
    """

    check: ClassVar[bool] = False
    """True for an operator without outputs whose reference gives one boolean: false ends the step
    with an error.
    """

    may_fail: ClassVar[bool] = False
    """True for an operator with outputs whose C function can end the step with an error, as a check
    does; see `succeeds`.
    """

    scalars: ClassVar[tuple[int, ...]] = ()
    """The inputs of rank 0 that the C function takes by value: arguments of the whole program, such
    as the learning rate. All other operands are pointers, those of rank 0 too.
    """

    channel_axis: ClassVar[int | None] = None
    """The axis of the weight's input channels, for operators whose weight may come in `parts` along
    it.
    """

    @abstractmethod
    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """Result types; raises InputError in the user's terms when the shapes do not fit."""

    @abstractmethod
    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The definition, in the array API standard, for any batch; one array per output."""

    @abstractmethod
    def cost(self, *types: TensorType) -> Cost:
        """Work and scratch for inputs of these types."""

    @abstractmethod
    def emit(self, operands: Operands) -> Sequence[Call]:
        """The C calls (nearly always one) that compute the outputs."""

    @classmethod
    @abstractmethod
    def examples(cls) -> Sequence[Example]:
        """Cases that feed every conformance test."""

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """Build the vector-Jacobian product: from dL/d(output) per output to dL/d(input) per input.

        A cotangent is None where an output reaches no loss; at least one is a value. `wanted[i]`
        says whether input i asks for its cotangent: return None (and build nothing) where it does
        not.
        """
        raise NotImplementedError(f"{self.name} has no gradient")

    def succeeds(self, xp: Namespace, *arrays: Array) -> bool:
        """Whether the step goes on behind an operator that `may_fail`; its outputs are unspecified
        where it does not.
        """
        return True

    def prune(self, used: Sequence[bool]) -> Operator | None:
        """The cheaper operator that computes only the outputs in use, or None when there is none.

        The replacement has exactly the used outputs, in order.
        """
        return None

    @property
    def attributes(self) -> dict[str, Any]:
        """Field names and values that differ from their defaults, for printing and hashing."""
        result = {}
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if value != item.default:
                result[item.name] = value
        return result

    def __str__(self) -> str:
        """`conv2d{stride=(2, 2)}`."""
        if not self.attributes:
            return self.name
        body = ", ".join(f"{key}={value}" for key, value in self.attributes.items())
        return f"{self.name}{{{body}}}"
