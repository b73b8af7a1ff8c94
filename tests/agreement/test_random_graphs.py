"""Random networks, update specs and optimisers: gradients = torch.autograd, and every backend gives
the same bits.
"""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kilograd as kg
from kilograd import frontend
from kilograd.ir import evaluate
from kilograd.program import Program
from kilograd.transforms.fold import fold
from kilograd.transforms.layout import arrange
from kilograd.transforms.select import parameters
from tests.agreement.networks import random_spec
from tests.agreement.random_modules import RandomNet, random_nets
from tests.agreement.samples import folded_gradient

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
RATE = 2.0**20


def build(net: RandomNet, seed: int, atomic: bool, device: str = "host", **options) -> Program:
    """The program of a random spec; seed 0 trains everything."""
    example = torch.zeros(1, *net.shape)
    exported = torch.export.export(net, (example,))
    spec = kg.update.all()
    if seed:
        graph = fold(arrange(frontend.load(exported, example).graph)[0])
        known = [(p.name, p.is_bias, p.channel_axis is not None) for p in parameters(graph)]
        spec = random_spec(known, seed)
    optimizer = kg.SGD(lr=0.01, atomic=atomic, **options)
    return kg.compile(
        exported, example, device=device, update=spec, optimizer=optimizer, name="net"
    )


def draw_input(net: RandomNet, index: int) -> np.ndarray:
    return np.random.default_rng(index).standard_normal((1, *net.shape)).astype(np.float32)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(random_nets(), st.integers(0, 4), st.booleans())
def test_interpreted_gradients_equal_autograd(net: RandomNet, seed: int, atomic: bool):
    program = build(net, seed, atomic)
    graph = program.train.graph
    x = draw_input(net, seed)
    state = {v: t.array.astype(np.float64) for v, t in graph.state.items()}
    feed = {
        graph.inputs[0].name: program.ports.inputs[0].to_program(x).astype(np.float64),
        "target": np.array([1], np.int32), "learning_rate": np.float64(RATE), "step": np.uint32(0),
    }  # fmt: skip
    result = evaluate(graph, feed, state)
    exact = net.double()
    exact.zero_grad()
    loss = torch.nn.functional.cross_entropy(exact(torch.from_numpy(x).double()), torch.tensor([1]))
    loss.backward()
    np.testing.assert_allclose(float(result.outputs[0]), loss.item(), rtol=1e-5)
    truth = {name: p.grad.numpy() for name, p in exact.named_parameters() if p.grad is not None}
    for value, tensor in graph.state.items():
        gradient = (state[value] - np.asarray(result.state[value], np.float64)) / RATE
        wanted = folded_gradient(tensor.origin, truth[tensor.origin.name])
        error = np.linalg.norm(gradient - wanted)
        assert error <= 1e-4 * np.linalg.norm(wanted) + 1e-7, (tensor.origin.name, error)


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(random_nets(), st.integers(0, 4), st.booleans(), st.sampled_from([0.0, 0.9]))
def test_every_backend_gives_the_same_bits(
    net: RandomNet, seed: int, atomic: bool, momentum: float
):
    program = build(net, seed, atomic, "stm32f746", momentum=momentum)
    host = program.on_host(optimize="-O1")
    poisoned = program.on_host(poison=True, optimize="-O1")
    board = program.on_emulator()
    sessions = (host, poisoned, board)
    for index in range(3):
        x = draw_input(net, index)
        losses = [session.train_step(x, index) for session in sessions]
        assert losses[0] == losses[1] == losses[2], losses
        assert board.stack_bytes <= program.memory.stack_bytes
    outputs = {session.predict(x).tobytes() for session in sessions}
    assert len(outputs) == 1
    for name, array in host.raw_state().items():
        assert array.tobytes() == poisoned.raw_state()[name].tobytes(), f"poison changes {name}"
        assert array.tobytes() == board.raw_state()[name].tobytes(), name
