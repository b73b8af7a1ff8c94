"""Gradient, check and step of int8 weights in one operator: the bits of the three on every backend,
in less memory.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg
from kilograd.ir import Graph, Node, evaluate, verify
from kilograd.ops.q_weight_step import QWeightStep
from kilograd.planning.layers import parameter_facts
from kilograd.program import Program
from kilograd.transforms.fuse_steps import fuse_steps
from tests.agreement.networks import BIG_M7

STEPS = 20
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((16, 3, 9, 9)).astype(np.float32)
VECTORS = RNG.standard_normal((16, 60)).astype(np.float32)
LABELS = RNG.integers(0, 4, STEPS)


def convolutions() -> nn.Module:
    """Pointwise layers wider than a block, a strided 3x3, one with groups."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 10, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(10, 18, 1), nn.ReLU(),
        nn.Conv2d(18, 270, 1), nn.ReLU6(), nn.Conv2d(270, 18, 1), nn.ReLU(),
        nn.Conv2d(18, 8, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(8, 7, 3, stride=2),
        nn.Flatten(), nn.Linear(28, 4),
    ).eval()  # fmt: skip


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(60, 75), nn.ReLU(), nn.Linear(75, 33), nn.ReLU(), nn.Linear(33, 4)
    ).eval()


MODELS = {"convolutions": (convolutions, IMAGES), "perceptron": (perceptron, VECTORS)}


def build(model: str, device: Any = "host", **options: Any) -> Program:
    make, x = MODELS[model]
    arguments: dict[str, Any] = {"precision": "int8", "calibration": x, "head": "int8"}
    optimizer = kg.SGD(lr=0.05, **options)
    return kg.compile(make(), x[:1], device=device, optimizer=optimizer, name=model, **arguments)


def apart(model: str, monkeypatch: pytest.MonkeyPatch, *others: Any, **options: Any) -> Program:
    """The program whose steps are not fused."""
    with monkeypatch.context() as patch:
        patch.setattr("kilograd.compiler.fuse_steps", lambda graph: graph)
        return build(model, *others, **options)


def names(program: Program) -> list[str]:
    return [node.op.name for node in program.train.graph.nodes]


def fused_weights(program: Program) -> set[str]:
    graph = program.train.graph
    weights = [node.inputs[2] for node in graph.nodes if isinstance(node.op, QWeightStep)]
    return {origin.name for w in weights if (origin := graph.state[w].origin)}


@pytest.mark.parametrize(
    ("model", "rounding", "atomic"),
    [
        ("convolutions", "stochastic", True),
        ("convolutions", "residual", False),
        ("perceptron", "residual", True),
        ("perceptron", "nearest", False),
    ],
)
def test_same_bits_in_less_memory(model: str, rounding: str, atomic: bool, monkeypatch):
    options = {"rounding": rounding, "atomic": atomic}
    pairs = [
        (build(model, device, **options), apart(model, monkeypatch, device, **options))
        for device in ("host", BIG_M7, *(["rp2040"] if model == "perceptron" else []))
    ]
    for fused, plain in pairs:
        assert "q_weight_step" in names(fused) and "q_weight_step" not in names(plain)
        assert fused.train.arena_bytes < plain.train.arena_bytes
    sessions = [p.on_host(poison=True, optimize="-O1") for p in pairs[0]]
    sessions += [p.on_emulator() for pair in pairs[1:] for p in pair]
    start = sessions[0].raw_state()
    x = MODELS[model][1]
    for index in range(STEPS):
        sample = x[index % len(x)]
        losses = {session.train_step(sample, int(LABELS[index])) for session in sessions}
        assert len(losses) == 1
    states = [session.raw_state() for session in sessions]
    moved = [name for name, array in states[0].items() if not np.array_equal(array, start[name])]
    assert len(moved) > len(start) / 2
    for name, array in states[0].items():
        for other in states[1:]:
            np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_only_where_nobody_else_reads_the_gradient():
    weights = fused_weights(build("convolutions"))
    assert weights == {f"{i}.weight" for i in (0, 2, 4, 6, 10, 12)}  # 8 has groups
    for options in ({"momentum": 0.9}, {"weight_decay": 0.1}, {"accumulate": 2}):
        assert not fused_weights(build("perceptron", **options))


def test_a_gradient_that_is_a_result_stays(monkeypatch):
    graph = apart("perceptron", monkeypatch).train.graph
    wanted = next(node for node in graph.nodes if node.op.name == "q_linear_grad_weight")
    kept = fuse_steps(replace(graph, outputs=(*graph.outputs, *wanted.outputs)))
    assert wanted in kept.nodes
    assert wanted not in fuse_steps(graph).nodes


@pytest.mark.parametrize("rounding", ["nearest", "residual"])
def test_the_meaning_is_kept(rounding: str, monkeypatch):
    """The interpreter gives the same for both, also where the gradient is not finite."""
    plain = apart("convolutions", monkeypatch, rounding=rounding).train.graph
    fused = verify(fuse_steps(plain))
    feed = {
        value.name: np.zeros(value.type.shape, value.type.dtype.numpy) for value in fused.inputs
    }
    sample = fused.inputs[0]
    feed[sample.name] = RNG.integers(-128, 128, sample.type.shape).astype(np.int8)
    feed["learning_rate"] = np.array(0.05, np.float32)
    first, second = evaluate(plain, feed), evaluate(fused, feed)
    for value, array in first.state.items():
        np.testing.assert_array_equal(array, second.state[value], err_msg=value.name)
    constants = {
        value: replace(tensor, array=np.full_like(tensor.array, np.nan))
        if value.name.endswith("scales")
        else tensor
        for value, tensor in fused.constants.items()
    }
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(kg.errors.NonFiniteError, match="q_weight_step"),
    ):
        evaluate(replace(fused, nodes=tuple(_unchecked(fused)), constants=constants), feed)


def _unchecked(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if not node.op.check]


def test_float32_is_left_alone():
    assert "q_weight_step" not in names(kg.compile(perceptron(), VECTORS[:1]))


def test_atomic_steps_are_taken_behind_every_gradient():
    found = names(build("convolutions"))
    last = max(i for i, n in enumerate(found) if n == "q_weight_step" or n.endswith("check"))
    assert found.index("assign") > last


@pytest.mark.parametrize("atomic", [True, False])
def test_parameters_know_what_they_cost(atomic: bool, monkeypatch):
    """Fused or not, a parameter has the same buffers and the same way to the loss."""
    options = {"rounding": "residual", "atomic": atomic}
    programs = build("convolutions", **options), apart("convolutions", monkeypatch, **options)
    fused, plain = (parameter_facts(p.forward, p.update, p.train) for p in programs)
    for ours, theirs in zip(fused, plain, strict=True):
        assert ours.gradient_bytes <= theirs.gradient_bytes
        assert replace(ours, gradient_bytes=theirs.gradient_bytes) == theirs


def overflowing(atomic: bool, rounding: str) -> kg.program.Session:
    """A network of int8 only in which the second layer's gradient is finite, the first's is not:
    inputs are near 1e22, and a target can be 5e18 while the loss is finite.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 20), nn.ReLU(), nn.Linear(20, 4)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(20, 60) * 1e-23)
    x = VECTORS * np.float32(1e22)
    program = kg.compile(
        model, x[:1], precision="int8", calibration=x, head="int8", loss="mse", name="overflowing",
        optimizer=kg.SGD(lr=0.01, atomic=atomic, rounding=rounding),
    )  # fmt: skip
    assert names(program).count("q_weight_step") == 2
    return program.on_host(optimize="-O1")


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "residual"])
@pytest.mark.parametrize("atomic", [True, False])
def test_a_gradient_that_overflows_changes_nothing(atomic: bool, rounding: str):
    """Without `atomic` the session puts back what the program, by its status, has moved."""
    learner = overflowing(atomic, rounding)
    sample, before = VECTORS[0] * np.float32(1e22), learner.raw_state()
    backend, statuses = learner._backend, []
    train_step = backend.train_step

    def watched(*arguments: Any) -> tuple[int, float]:
        status, loss = train_step(*arguments)
        statuses.append((status, backend.read_state()))
        return status, loss

    backend.train_step = watched
    kept = backend.read_state()
    with pytest.raises(kg.errors.NonFiniteError):
        learner.train_step(sample, np.full(4, 5e18, np.float32))
    for name, array in learner.raw_state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    ((status, left),) = statuses
    assert (status, left == kept) == ((1, True) if atomic else (2, False))
