"""Elementwise functions of one tensor and their gradients.

A gradient operator reads d_y and one more tensor: the output of the function where that is enough
to know the derivative (it is nearly always alive anyway), else the input. At a kink the derivative
is PyTorch's: that of ReLU, absolute value and clamp (as in `hardtanh` and `relu6`) is zero there.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from kilograd.errors import InputError
from kilograd.ir.builder import Builder
from kilograd.ir.graph import Node, Value
from kilograd.ir.operator import Array, Call, Cost, Example, Namespace, Operands, Operator
from kilograd.ir.types import DType, TensorType


class Unary(Operator):
    """y = f(x) element by element, in place; subclasses are rows of a table.

    The C kernel is `kg_map_<name>_f32` and takes the fields after the pointers and the size.
    """

    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0),)

    @abstractmethod
    def f(self, xp: Namespace, x: Array) -> Array:
        """The function."""

    def derivative(self) -> tuple[Operator, str]:
        """The operator from (d_y, z) to d_x, and whether z is the "input" or the "output"."""
        raise NotImplementedError

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of the input."""
        return _same(self, types[0])

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The function."""
        return (self.f(xp, arrays[0]),)

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """d_y times the derivative."""
        (d_y,), (x,), (y,) = cotangents, node.inputs, node.outputs
        assert d_y is not None
        op, saved = self.derivative()
        return [builder.add(op, d_y, x if saved == "input" else y, name=f"d_{x.name}")]

    def cost(self, *types: TensorType) -> Cost:
        """One read and one write an element."""
        return Cost(bytes_read=types[0].bytes, bytes_written=types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (x,), (y,) = operands.inputs, operands.outputs
        return [Call("unary.h", *self.kernel(y, x, x.type.size))]

    def kernel(self, *arguments: Any) -> tuple[str, tuple[Any, ...]]:
        """The C function and all its arguments."""
        return f"kg_map_{self.name}_f32", (*arguments, *_parameters(self))

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Numbers of both signs, away from integers (where the kinks are)."""
        return [Example(cls(), (_sample(3.0),), 1e-6, (0,), (0,))]


class UnaryGrad(Operator):
    """d_x = d_y f', with inputs d_y and z, in place over either.

    The C kernel is `kg_map_<name>_f32` and takes the fields after the pointers and the size.
    """

    in_place: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (0, 1))

    @abstractmethod
    def slope(self, xp: Namespace, z: Array) -> Array:
        """f' as a function of z."""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of the inputs."""
        return _same(self, *types)

    def reference(self, xp: Namespace, *arrays: Array) -> tuple[Array, ...]:
        """The product."""
        d_y, z = arrays
        return (d_y * self.slope(xp, z),)

    def cost(self, *types: TensorType) -> Cost:
        """Two reads and one write an element."""
        return Cost(bytes_read=2 * types[0].bytes, bytes_written=types[0].bytes)

    def emit(self, operands: Operands) -> Sequence[Call]:
        """One call."""
        (d_y, z), (d_x,) = operands.inputs, operands.outputs
        return [Call("unary.h", *self.kernel(d_x, d_y, z, z.type.size))]

    def kernel(self, *arguments: Any) -> tuple[str, tuple[Any, ...]]:
        """The C function and all its arguments."""
        return f"kg_map_{self.name}_f32", (*arguments, *_parameters(self))

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Numbers of both signs, away from integers (where the kinks are)."""
        return [Example(cls(), (_sample(1.0), _sample(3.0)), 1e-6, batched=(0, 1))]


def _same(op: Operator, *types: TensorType) -> tuple[TensorType, ...]:
    if any(t.shape != types[0].shape or t.dtype is not DType.F32 for t in types):
        raise InputError(f"{op.name}: takes float32 of one shape, not {', '.join(map(str, types))}")
    return (types[0],)


def _parameters(op: Operator) -> tuple[float, ...]:
    return tuple(float(getattr(op, item.name)) for item in fields(op))  # type: ignore[arg-type]


def _sample(scale: float) -> np.ndarray:
    x: Array = scale * np.random.default_rng(0).standard_normal((1, 3, 3, 5)).astype(np.float32)
    near = np.abs(x - np.round(x)) < 0.01
    return np.asarray(x + 0.02 * near, np.float32)


def _positive() -> np.ndarray:
    return np.asarray(np.abs(_sample(2.0)) + np.float32(0.1))


def _erf(xp: Namespace, x: Array) -> Array:
    if hasattr(xp, "erf"):
        return xp.erf(x)
    return np.vectorize(math.erf, otypes=[x.dtype])(x)


# --- Piecewise linear and rational ---


@dataclass(frozen=True)
class Relu(Unary):
    """max(x, 0); the derivative at 0 is 0."""

    name: ClassVar[str] = "relu"

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return xp.where(x < 0, xp.zeros_like(x), x)

    def derivative(self) -> tuple[Operator, str]:
        """From the output."""
        return ReluGrad(), "output"


@dataclass(frozen=True)
class ReluGrad(UnaryGrad):
    """d_y where the output is positive, else 0."""

    name: ClassVar[str] = "relu_grad"

    def slope(self, xp: Namespace, z: Array) -> Array:
        """1 above 0."""
        return xp.astype(~(z <= 0), z.dtype)


@dataclass(frozen=True)
class Clamp(Unary):
    """x limited to [low, high]; ReLU6 is Clamp(0, 6).

    The derivative is 0 where the output sits on a bound, as that of PyTorch's `hardtanh` and
    `relu6`; that of `torch.clamp` is 1 for an input exactly on a bound, which the output cannot
    tell.
    """

    name: ClassVar[str] = "clamp"
    low: float
    high: float

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return xp.clip(x, self.low, self.high)

    def derivative(self) -> tuple[Operator, str]:
        """From the output."""
        return ClampGrad(self.low, self.high), "output"

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """ReLU6, hardtanh, one bound."""
        bounds = ((0.0, 6.0), (-1.0, 1.0), (-math.inf, 2.0))
        return [Example(cls(*pair), (_sample(4.0),), 0.0, (0,), (0,)) for pair in bounds]


@dataclass(frozen=True)
class ClampGrad(UnaryGrad):
    """d_y where the output is strictly between the bounds, else 0."""

    name: ClassVar[str] = "clamp_grad"
    low: float
    high: float

    def slope(self, xp: Namespace, z: Array) -> Array:
        """1 between the bounds."""
        return xp.astype(~((z <= self.low) | (z >= self.high)), z.dtype)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Outputs inside and on the bounds."""
        z = np.clip(_sample(4.0), 0, 6)
        return [Example(cls(0.0, 6.0), (_sample(1.0), z), 0.0, batched=(0, 1))]


@dataclass(frozen=True)
class LeakyRelu(Unary):
    """x above 0, else slope x; the derivative at 0 is the slope."""

    name: ClassVar[str] = "leaky_relu"
    slope: float = 0.01

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return xp.where(x > 0, x, self.slope * x)

    def derivative(self) -> tuple[Operator, str]:
        """From the output, which has the sign of the input unless the slope is negative."""
        return LeakyReluGrad(self.slope), "output" if self.slope >= 0 else "input"

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """The default slope, a negative one."""
        return [Example(cls(s), (_sample(3.0),), 1e-6, (0,), (0,)) for s in (0.01, -0.5)]


@dataclass(frozen=True)
class LeakyReluGrad(UnaryGrad):
    """d_y where z, the output or the input, is positive, else negative_slope d_y."""

    name: ClassVar[str] = "leaky_relu_grad"
    negative_slope: float = 0.01

    def slope(self, xp: Namespace, z: Array) -> Array:
        """1 above 0."""
        one = xp.ones_like(z)
        return xp.where(z > 0, one, self.negative_slope * one)


@dataclass(frozen=True)
class HardSigmoid(Unary):
    """alpha x + beta limited to [0, 1]; the derivative is 0 on the bounds.

    The defaults are PyTorch's; those of ONNX are 0.2 and 0.5.
    """

    name: ClassVar[str] = "hard_sigmoid"
    alpha: float = 1.0 / 6.0
    beta: float = 0.5

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return xp.clip(self.alpha * x + self.beta, 0.0, 1.0)

    def derivative(self) -> tuple[Operator, str]:
        """From the output."""
        return HardSigmoidGrad(self.alpha), "output"

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """PyTorch's and ONNX's."""
        ops = (cls(), cls(0.2, 0.5))
        return [Example(op, (_sample(3.0),), 1e-6, (0,), (0,)) for op in ops]


@dataclass(frozen=True)
class HardSigmoidGrad(UnaryGrad):
    """alpha d_y where the output is strictly between 0 and 1, else 0."""

    name: ClassVar[str] = "hard_sigmoid_grad"
    alpha: float = 1.0 / 6.0

    def slope(self, xp: Namespace, z: Array) -> Array:
        """Alpha between the bounds."""
        return self.alpha * xp.astype(~((z <= 0) | (z >= 1)), z.dtype)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Outputs inside and on the bounds."""
        z = np.clip(_sample(1.0), 0, 1)
        return [Example(cls(), (_sample(1.0), z), 1e-6, batched=(0, 1))]


@dataclass(frozen=True)
class HardSwish(Unary):
    """x times x/6 + 1/2 limited to [0, 1]; the derivative is 0 at -3 and 1 at 3."""

    name: ClassVar[str] = "hard_swish"

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return x * xp.clip(x / 6 + 0.5, 0.0, 1.0)

    def derivative(self) -> tuple[Operator, str]:
        """From the input."""
        return HardSwishGrad(), "input"


@dataclass(frozen=True)
class HardSwishGrad(UnaryGrad):
    """0 up to an input of -3, d_y from 3, (x/3 + 1/2) d_y between."""

    name: ClassVar[str] = "hard_swish_grad"

    def slope(self, xp: Namespace, z: Array) -> Array:
        """The three pieces."""
        outer = xp.astype(z >= 3, z.dtype)
        return xp.where((z <= -3) | (z >= 3), outer, z / 3 + 0.5)


@dataclass(frozen=True)
class Neg(Unary):
    """-x."""

    name: ClassVar[str] = "neg"

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return -x

    def gradient(
        self,
        builder: Builder,
        node: Node,
        cotangents: Sequence[Value | None],
        wanted: Sequence[bool],
    ) -> Sequence[Value | None]:
        """-d_y."""
        (d_y,) = cotangents
        assert d_y is not None
        return [builder.add(Neg(), d_y, name=f"d_{node.inputs[0].name}")]


@dataclass(frozen=True)
class Abs(Unary):
    """|x|; the derivative at 0 is 0."""

    name: ClassVar[str] = "abs"

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return xp.abs(x)

    def derivative(self) -> tuple[Operator, str]:
        """From the input."""
        return AbsGrad(), "input"


@dataclass(frozen=True)
class AbsGrad(UnaryGrad):
    """d_y with the sign of the input, 0 at 0."""

    name: ClassVar[str] = "abs_grad"

    def slope(self, xp: Namespace, z: Array) -> Array:
        """The sign."""
        return xp.sign(z)


@dataclass(frozen=True)
class Reciprocal(Unary):
    """1 / x."""

    name: ClassVar[str] = "reciprocal"

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return 1 / x

    def derivative(self) -> tuple[Operator, str]:
        """From the output."""
        return ReciprocalGrad(), "output"


@dataclass(frozen=True)
class ReciprocalGrad(UnaryGrad):
    """-y² d_y, y the output."""

    name: ClassVar[str] = "reciprocal_grad"

    def slope(self, xp: Namespace, z: Array) -> Array:
        """Of the output."""
        return -z * z


# --- Roots and powers ---


@dataclass(frozen=True)
class Sqrt(Unary):
    """The square root; NaN below 0."""

    name: ClassVar[str] = "sqrt"

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return xp.sqrt(x)

    def derivative(self) -> tuple[Operator, str]:
        """From the output."""
        return SqrtGrad(), "output"

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Positive numbers."""
        return [Example(cls(), (_positive(),), 1e-6, (0,), (0,))]


@dataclass(frozen=True)
class SqrtGrad(UnaryGrad):
    """d_y / (2 y), y the output."""

    name: ClassVar[str] = "sqrt_grad"

    def slope(self, xp: Namespace, z: Array) -> Array:
        """Of the output."""
        return 0.5 / z


@dataclass(frozen=True)
class Rsqrt(Unary):
    """1 / sqrt(x)."""

    name: ClassVar[str] = "rsqrt"

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return 1 / xp.sqrt(x)

    def derivative(self) -> tuple[Operator, str]:
        """From the output."""
        return RsqrtGrad(), "output"

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Positive numbers."""
        return [Example(cls(), (_positive(),), 1e-6, (0,), (0,))]


@dataclass(frozen=True)
class RsqrtGrad(UnaryGrad):
    """-y³/2 d_y, y the output."""

    name: ClassVar[str] = "rsqrt_grad"

    def slope(self, xp: Namespace, z: Array) -> Array:
        """Of the output."""
        return -0.5 * z * z * z


@dataclass(frozen=True)
class Power(Unary):
    """x^exponent, a constant; NaN for a negative x unless the exponent is an integer."""

    name: ClassVar[str] = "power"
    exponent: float = 2.0

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return x**self.exponent

    def derivative(self) -> tuple[Operator, str]:
        """From the input."""
        return PowerGrad(self.exponent), "input"

    def kernel(self, *arguments: Any) -> tuple[str, tuple[Any, ...]]:
        """Products for an integer of at most 64, else exponential and logarithm."""
        return _power_kernel("power", self.exponent, arguments)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Integers of both signs and fractions."""
        positive = [Example(cls(e), (_positive(),), 1e-6, (0,), (0,)) for e in (-0.5, 1.5, -3.0)]
        signed = [Example(cls(e), (_sample(2.0),), 1e-6, (0,), (0,)) for e in (2.0, 5.0)]
        return positive + signed


@dataclass(frozen=True)
class PowerGrad(UnaryGrad):
    """Exponent x^(exponent - 1) d_y, x the input."""

    name: ClassVar[str] = "power_grad"
    exponent: float = 2.0

    def slope(self, xp: Namespace, z: Array) -> Array:
        """Of the input."""
        return self.exponent * z ** (self.exponent - 1)

    def kernel(self, *arguments: Any) -> tuple[str, tuple[Any, ...]]:
        """As for the power."""
        return _power_kernel("power_grad", self.exponent, arguments)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Integers and fractions."""
        inputs = (_sample(1.0), _positive())
        return [Example(cls(e), inputs, 1e-6, batched=(0, 1)) for e in (2.0, -2.0, 0.75)]


def _power_kernel(
    name: str, exponent: float, arguments: tuple[Any, ...]
) -> tuple[str, tuple[Any, ...]]:
    if exponent == int(exponent) and abs(exponent) <= 64:
        return f"kg_map_integer_{name}_f32", (*arguments, int(exponent))
    return f"kg_map_{name}_f32", (*arguments, exponent)


# --- Exponentials ---


@dataclass(frozen=True)
class Exp(Unary):
    """e^x."""

    name: ClassVar[str] = "exp"

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return xp.exp(x)

    def derivative(self) -> tuple[Operator, str]:
        """From the output."""
        return ExpGrad(), "output"


@dataclass(frozen=True)
class ExpGrad(UnaryGrad):
    """y d_y, y the output."""

    name: ClassVar[str] = "exp_grad"

    def slope(self, xp: Namespace, z: Array) -> Array:
        """Of the output."""
        return z


@dataclass(frozen=True)
class Log(Unary):
    """The natural logarithm; NaN below 0."""

    name: ClassVar[str] = "log"

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return xp.log(x)

    def derivative(self) -> tuple[Operator, str]:
        """From the input."""
        return LogGrad(), "input"

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Positive numbers."""
        return [Example(cls(), (_positive(),), 1e-6, (0,), (0,))]


@dataclass(frozen=True)
class LogGrad(UnaryGrad):
    """d_y / x, x the input."""

    name: ClassVar[str] = "log_grad"

    def slope(self, xp: Namespace, z: Array) -> Array:
        """Of the input."""
        return 1 / z


@dataclass(frozen=True)
class Sigmoid(Unary):
    """1 / (1 + e^-x)."""

    name: ClassVar[str] = "sigmoid"

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return 1 / (1 + xp.exp(-x))

    def derivative(self) -> tuple[Operator, str]:
        """From the output."""
        return SigmoidGrad(), "output"


@dataclass(frozen=True)
class SigmoidGrad(UnaryGrad):
    """y (1 - y) d_y, y the output."""

    name: ClassVar[str] = "sigmoid_grad"

    def slope(self, xp: Namespace, z: Array) -> Array:
        """Of the output."""
        return z * (1 - z)


@dataclass(frozen=True)
class Tanh(Unary):
    """The hyperbolic tangent."""

    name: ClassVar[str] = "tanh"

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return xp.tanh(x)

    def derivative(self) -> tuple[Operator, str]:
        """From the output."""
        return TanhGrad(), "output"


@dataclass(frozen=True)
class TanhGrad(UnaryGrad):
    """(1 - y²) d_y, y the output."""

    name: ClassVar[str] = "tanh_grad"

    def slope(self, xp: Namespace, z: Array) -> Array:
        """Of the output."""
        return 1 - z * z


@dataclass(frozen=True)
class Elu(Unary):
    """x above 0, else alpha (e^x - 1), with alpha >= 0 so that the output tells the derivative."""

    name: ClassVar[str] = "elu"
    alpha: float = 1.0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        """The shape of the input."""
        if self.alpha < 0:
            raise InputError(f"elu: alpha is {self.alpha}, but must not be negative")
        return _same(self, types[0])

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return xp.where(x > 0, x, self.alpha * xp.expm1(xp.where(x > 0, xp.zeros_like(x), x)))

    def derivative(self) -> tuple[Operator, str]:
        """From the output."""
        return EluGrad(self.alpha), "output"


@dataclass(frozen=True)
class EluGrad(UnaryGrad):
    """d_y where the output is positive, else (y + alpha) d_y."""

    name: ClassVar[str] = "elu_grad"
    alpha: float = 1.0

    def slope(self, xp: Namespace, z: Array) -> Array:
        """Of the output."""
        return xp.where(z > 0, xp.ones_like(z), z + self.alpha)


@dataclass(frozen=True)
class Silu(Unary):
    """x / (1 + e^-x), also called swish."""

    name: ClassVar[str] = "silu"

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return x / (1 + xp.exp(-x))

    def derivative(self) -> tuple[Operator, str]:
        """From the input."""
        return SiluGrad(), "input"


@dataclass(frozen=True)
class SiluGrad(UnaryGrad):
    """s (1 + x (1 - s)) d_y with s = 1 / (1 + e^-x), x the input."""

    name: ClassVar[str] = "silu_grad"

    def slope(self, xp: Namespace, z: Array) -> Array:
        """Of the input."""
        s = 1 / (1 + xp.exp(-z))
        return s * (1 + z * (1 - s))


@dataclass(frozen=True)
class Erf(Unary):
    """The error function."""

    name: ClassVar[str] = "erf"

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        return _erf(xp, x)

    def derivative(self) -> tuple[Operator, str]:
        """From the input."""
        return ErfGrad(), "input"


@dataclass(frozen=True)
class ErfGrad(UnaryGrad):
    """2 / sqrt(pi) e^(-x²) d_y, x the input."""

    name: ClassVar[str] = "erf_grad"

    def slope(self, xp: Namespace, z: Array) -> Array:
        """Of the input."""
        return 2 / math.sqrt(math.pi) * xp.exp(-z * z)


def _gelu_tanh(xp: Namespace, x: Array) -> tuple[Array, Array]:
    """The hyperbolic tangent in the approximation, and the derivative of its argument."""
    root = math.sqrt(2 / math.pi)
    argument = root * (x + 0.044715 * x * x * x)
    return xp.tanh(argument), root * (1 + 3 * 0.044715 * x * x)


@dataclass(frozen=True)
class Gelu(Unary):
    """x F(x), F the normal distribution; `approximate` is the tanh form (arXiv:1606.08415)."""

    name: ClassVar[str] = "gelu"
    approximate: bool = False

    def f(self, xp: Namespace, x: Array) -> Array:
        """The definition."""
        if self.approximate:
            return 0.5 * x * (1 + _gelu_tanh(xp, x)[0])
        return 0.5 * x * (1 + _erf(xp, x / math.sqrt(2)))

    def derivative(self) -> tuple[Operator, str]:
        """From the input."""
        return GeluGrad(self.approximate), "input"

    def kernel(self, *arguments: Any) -> tuple[str, tuple[Any, ...]]:
        """One kernel a form."""
        return f"kg_map_gelu{'_tanh' * self.approximate}_f32", arguments

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Both forms."""
        return [Example(cls(form), (_sample(3.0),), 1e-6, (0,), (0,)) for form in (False, True)]


@dataclass(frozen=True)
class GeluGrad(UnaryGrad):
    """d_y times the derivative of Gelu at the input."""

    name: ClassVar[str] = "gelu_grad"
    approximate: bool = False

    def slope(self, xp: Namespace, z: Array) -> Array:
        """Of the input."""
        if self.approximate:
            t, slope = _gelu_tanh(xp, z)
            return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * slope
        density = xp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        return 0.5 * (1 + _erf(xp, z / math.sqrt(2))) + z * density

    def kernel(self, *arguments: Any) -> tuple[str, tuple[Any, ...]]:
        """One kernel a form."""
        return f"kg_map_gelu{'_tanh' * self.approximate}_grad_f32", arguments

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Both forms."""
        inputs = (_sample(1.0), _sample(3.0))
        return [Example(cls(form), inputs, 1e-6, batched=(0, 1)) for form in (False, True)]
