"""Int8 gradients: what becomes integer, that the integers are the float gradients up to rounding,
and that every backend takes the same steps.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg
from kilograd.errors import InputError
from kilograd.ir import DType, Graph, Tensor, Value, evaluate
from kilograd.ops.ig_convert import GradientDequantize, GradientQuantize
from kilograd.ops.ig_narrow import ShiftStep
from kilograd.ops.ig_step import IntegerStep
from kilograd.ops.q_optimizer import QSgdStep
from kilograd.ops.q_weight_step import QWeightStep
from kilograd.program import Program
from kilograd.transforms.differentiate import TrainingInputs


class Residual(nn.Module):
    """An inverted bottleneck with a residual join, pooling, strides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU6())
        self.block = nn.Sequential(
            nn.Conv2d(8, 12, 1), nn.ReLU6(), nn.Conv2d(12, 12, 3, padding=1, groups=12),
            nn.ReLU6(), nn.Conv2d(12, 8, 1),
        )  # fmt: skip
        self.pool = nn.MaxPool2d(2)
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2), nn.ReLU())
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.pool(x + self.block(x))
        return self.head(self.down(x).mean((2, 3)))


class Gated(nn.Module):
    """Squeeze and excite with a hard swish, overlapping pools: what has no integer gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.Hardswish())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.last = nn.Sequential(nn.Conv2d(8, 6, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.head(self.last(self.pool(x * self.gate(x))).mean((2, 3)))


def signals() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(6, 12, 7, stride=2, padding=3), nn.ReLU(),
        nn.Conv1d(12, 16, 5, stride=2, padding=2), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5),
    )  # fmt: skip


NETWORKS = {"residual": (Residual, (2, 8, 8)), "gated": (Gated, (2, 9, 9)),
            "signals": (signals, (6, 40))}  # fmt: skip


@cache
def data(name: str) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((24, *shape)).astype(np.float32)
    return make().eval(), x, rng.integers(0, 5, 24)


def compiled(name: str, gradients: str = "int8", device: str = "host", **options) -> Program:
    model, x, _ = data(name)
    head = options.pop("head", "float32")
    return kg.compile(
        model, x[:1], device=device, precision="int8", calibration=x, gradients=gradients,
        head=head, optimizer=kg.SGD(lr=0.02, **options),
    )  # fmt: skip


def kinds(graph: Graph) -> set[str]:
    return {node.op.name for node in graph.nodes}


@pytest.mark.parametrize("name", ["residual", "signals"])
@pytest.mark.parametrize("head", ["float32", "int8"])
def test_float_ends_at_the_first_int8_tensor(name: str, head: str):
    """One conversion, at the loss or below the head; every step of an integer weight is integer."""
    graph = compiled(name, head=head).train.graph
    assert sum(isinstance(node.op, GradientQuantize) for node in graph.nodes) == 1
    unwanted = GradientDequantize | QSgdStep | QWeightStep
    assert not any(isinstance(node.op, unwanted) for node in graph.nodes)
    weights = [v for v, t in graph.state.items() if t.origin and v.type.dtype is not DType.F32]
    assert sum(isinstance(node.op, IntegerStep) for node in graph.nodes) == len(weights) > 0
    real = [
        value for node in graph.nodes if node.location.backward for value in node.outputs
        if value.type.dtype is DType.F32 and value.type.size > 16 * 5
    ]  # fmt: skip
    assert not real


def test_what_has_no_integer_gradient_is_float():
    program = compiled("gated")
    graph = program.train.graph
    for operator in ("max_pool2d_grad", "mul"):
        line = f": {operator} takes its gradient as float32"
        assert sum(line in note for note in program.notes) > 0, program.notes
    assert not compiled("residual").notes
    assert {"max_pool2d_grad", "mul", "gradient_dequantize", "gradient_table"} <= kinds(graph)
    assert not any(isinstance(node.op, QSgdStep) for node in graph.nodes)


@pytest.mark.parametrize(
    "options", [{"momentum": 0.9}, {"accumulate": 4}, {"weight_decay": 0.1}, {"qas": False}]
)
def test_steps_that_need_floats_read_real_gradients(options):
    """Momentum, accumulation, decay and the ablation step in float32 along integer gradients."""
    graph = compiled("residual", **options).train.graph
    assert not any(isinstance(node.op, IntegerStep) for node in graph.nodes)
    assert "integer_conv2d_grad_input" in kinds(graph)


def keep_values(
    graph: Graph, x: np.ndarray, y: np.ndarray, seed: int = 0, number: int = 0
) -> dict[Value, np.ndarray]:
    """Every value of a step without a learning rate."""
    inputs = TrainingInputs.of(graph)
    state = {value: tensor.array for value, tensor in graph.state.items()}
    for value in state:
        if value.name == "random_seed":
            state[value] = np.array([seed], np.uint32)
    meaning = inputs.sample.type.quantization
    real = np.moveaxis(x[number : number + 1], 1, -1).reshape(inputs.sample.type.shape)
    sample = np.clip(np.rint(real / meaning.scales[0]) + meaning.zero_point, -128, 127)
    feed = {
        inputs.sample.name: sample.astype(np.int8),
        inputs.target.name: y[number : number + 1].astype(np.int32),
        inputs.learning_rate.name: np.array(0, np.float32),
        inputs.step.name: np.array(0, np.uint32),
    }
    return evaluate(graph, feed, state, keep=True).values


def observed(graph: Graph, seed: int, number: int, x: np.ndarray, y: np.ndarray) -> dict:
    """The real gradient of every trained tensor, by name."""
    values = keep_values(graph, x, y, seed, number)
    producers = graph.producers()
    result = {}
    for node in graph.nodes:
        if isinstance(node.op, IntegerStep):
            w, sums, exponent = node.inputs[:3]
            op = producers[sums].op
            unit = getattr(op, "x_scale", 1.0) * 2.0 ** int(values[exponent])
            result[w.name] = values[sums] * unit
        elif isinstance(node.op, QSgdStep):
            result[node.inputs[0].name] = values[node.inputs[1]]
        elif isinstance(node.op, QWeightStep):
            x, d_y, w = node.inputs[:3]
            (result[w.name],) = node.op.grad.reference(np, values[x], values[d_y])
    return result


@pytest.mark.parametrize("name", NETWORKS)
def test_integers_are_the_float_gradients_up_to_rounding(name: str):
    """The mean over random numbers comes close to the float gradient; one draw is near it."""
    _, x, y = data(name)
    whole, real = compiled(name).train.graph, compiled(name, "float32").train.graph
    draws = [observed(whole, seed, 0, x, y) for seed in range(24)]
    expected = observed(real, 0, 0, x, y)
    assert draws[0].keys() == expected.keys() and expected
    for key, truth in expected.items():
        norm = np.linalg.norm(truth)
        assert norm > 0
        single = [np.linalg.norm(draw[key] - truth) / norm for draw in draws]
        mean = np.mean([draw[key] for draw in draws], axis=0)
        assert max(single) < 0.12, key
        assert np.linalg.norm(mean - truth) / norm < 0.04, key


def test_shifts_find_their_range_by_themselves():
    """From shifts that are far off in both directions, twenty steps lead to those that calibration
    found, give or take two.
    """
    _, x, y = data("residual")
    graph = compiled("residual").train.graph
    shifts = [node.inputs[0] for node in graph.nodes if isinstance(node.op, ShiftStep)]
    assert len(shifts) >= 4
    for wrong in (0, 24):
        state = dict(graph.state)
        for shift in shifts:
            state[shift] = Tensor(np.array(wrong, np.int32))
        current = replace(graph, state=state)
        for number in range(20):
            current = stepped(current, number, x, y)
        for shift in shifts:
            assert abs(int(current.state[shift].array) - int(graph.state[shift].array)) <= 2


def stepped(graph: Graph, number: int, x: np.ndarray, y: np.ndarray, rate: float = 0) -> Graph:
    """The graph after one interpreted step."""
    inputs = TrainingInputs.of(graph)
    meaning = inputs.sample.type.quantization
    real = np.moveaxis(x[number : number + 1], 1, -1).reshape(inputs.sample.type.shape)
    sample = np.clip(np.rint(real / meaning.scales[0]) + meaning.zero_point, -128, 127)
    feed = {
        inputs.sample.name: sample.astype(np.int8),
        inputs.target.name: y[number : number + 1].astype(np.int32),
        inputs.learning_rate.name: np.array(rate, np.float32),
        inputs.step.name: np.array(number, np.uint32),
    }
    after: dict[Value, np.ndarray] = evaluate(graph, feed).state
    return replace(graph, state={v: Tensor(a, graph.state[v].origin) for v, a in after.items()})


@pytest.mark.parametrize(
    "name, options",
    [
        ("residual", {}),
        ("signals", {"head": "int8"}),
        pytest.param("gated", {"rounding": "residual"}, marks=pytest.mark.slow),
    ],
)
def test_every_backend_takes_the_same_twenty_steps(name: str, options):
    pytest.importorskip("kilograd.execution.emulator")
    _, x, y = data(name)
    results = []
    for device in ("host", "stm32f746", "rp2040"):
        program = compiled(name, device=device, **options)
        session = program.on_host() if device == "host" else program.on_emulator()
        losses = [session.train_step(x[i], y[i]) for i in range(20)]
        results.append((losses, session.raw_state()))
    losses, state = results[0]
    assert len(set(losses)) == 20
    before = {v.name: t.array for v, t in compiled(name, **options).train.graph.state.items()}
    assert any(not np.array_equal(state[key], before[key]) for key in before if key in state)
    for other_losses, other in results[1:]:
        assert other_losses == losses
        assert all(np.array_equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize("name", ["residual", "signals"])
def test_the_interpreter_agrees_with_the_host(name: str):
    """Five steps of a network whose only floats are in the loss: the same weights, bit for bit."""
    _, x, y = data(name)
    program = compiled(name, head="int8")
    session, after = program.on_host(), program.train.graph
    for number in range(5):
        session.train_step(x[number], y[number], lr=0.02)
        after = stepped(after, number, x, y, 0.02)
    raw = session.raw_state()
    assert all(np.array_equal(raw[v.name], t.array) for v, t in after.state.items())


def test_sums_that_may_overflow_are_float():
    """The weight of the first layer is shared by 67,600 pixels."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 3, stride=8), nn.ReLU(), nn.Flatten(),
        nn.Linear(2 * 33 * 33, 2),
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((2, 1, 260, 260)).astype(np.float32)
    program = kg.compile(model, x[:1], precision="int8", calibration=x, gradients="int8")
    assert {"q_weight_step", "integer_conv2d_grad_weight"} <= kinds(program.train.graph)
    assert any("q_conv2d_grad_weight takes its gradient as float32" in n for n in program.notes)


def test_a_shift_that_is_too_large_does_not_reach_the_layers_behind():
    """The gradient below it has fewer bits, and those after that have all of them again."""
    _, x, y = data("residual")
    graph = compiled("residual", head="int8").train.graph
    first = next(node.inputs[0] for node in graph.nodes if isinstance(node.op, ShiftStep))
    larger = Tensor(graph.state[first].array + 4)
    stale = replace(graph, state={**graph.state, first: larger})
    made = [
        node.outputs[0] for node in stale.nodes
        if node.op.name == "integer_conv2d_grad_input"
    ]  # fmt: skip
    assert len(made) > 2
    values = [keep_values(each, x, y) for each in (graph, stale)]
    for value in made[2:]:
        usual, now = (int(np.abs(v[value].astype(int)).max()) for v in values)
        assert now > usual / 2 > 16


def test_messages():
    model, x, _ = data("signals")
    with pytest.raises(InputError, match="gradients='int4' is unknown; there are float32 and int8"):
        kg.compile(model, x[:1], precision="int8", calibration=x, gradients="int4")
    with pytest.raises(InputError, match="gradients='int8' is for precision='int8'"):
        kg.compile(model, x[:1], gradients="int8")
