"""For every network and update spec: gradients = torch.autograd, host = emulator bit for bit,
poison survives.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kilograd.transforms.fold import fold
from kilograd.transforms.layout import arrange

import kilograd as kg
from kilograd import frontend
from kilograd.transforms.select import parameters
from tests.agreement.networks import BIG_M7, NETWORKS, Network, data_folder, random_spec

SPECS = ["full", "sparse-1", "sparse-2", "sparse-3"]


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda network: network.name)
def network(request):
    chosen: Network = request.param
    if "weights" in chosen.options and not data_folder().is_dir():
        pytest.skip(f"no data folder at {data_folder()}; set KILOGRAD_DATA")
    model, example = chosen.build()
    return chosen, model.eval(), example


def spec_for(model, example, name: str):
    if name == "full":
        return kg.update.all()
    graph = fold(arrange(frontend.load(model, example).graph)[0])
    known = [(p.name, p.is_bias, p.channel_axis is not None) for p in parameters(graph)]
    return random_spec(known, int(name.rpartition("-")[2]))


def sample(chosen: Network, example, index: int):
    """A deterministic sample and target in the user's layout."""
    rng = np.random.default_rng(index)
    x = rng.standard_normal(example.shape).astype(np.float32)
    if chosen.loss == "cross_entropy":
        return x, int(rng.integers(0, 2))
    return x, (x if chosen.loss == "autoencoder" else None)


def torch_loss(chosen: Network, output, target):
    if chosen.loss == "cross_entropy":
        return torch.nn.functional.cross_entropy(output, torch.tensor([target]))
    if chosen.loss == "autoencoder":
        return torch.nn.functional.mse_loss(output, torch.from_numpy(target))
    return torch.nn.functional.binary_cross_entropy_with_logits(output, torch.from_numpy(target))


def with_target(chosen: Network, model, x, target):
    if target is None:
        with torch.no_grad():
            shape = model(torch.from_numpy(x)).shape
        target = np.random.default_rng(0).random(shape).astype(np.float32)
    return target


@pytest.mark.parametrize("spec_name", SPECS)
def test_gradients_equal_autograd(network, spec_name):
    chosen, model, example = network
    spec = spec_for(model, example, spec_name)
    # With accumulation over two samples the state holds half the gradient after the first one.
    program = kg.compile(
        model, example, update=spec, loss=chosen.loss, optimizer=kg.SGD(accumulate=2)
    )
    session = program.on_host()
    x, target = sample(chosen, example, 0)
    target = with_target(chosen, model, x, target)
    loss = session.train_step(x, None if chosen.loss == "autoencoder" else target)
    raw = session.raw_state()
    model.zero_grad()
    expected = torch_loss(chosen, model(torch.from_numpy(x)), target)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    truth = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    compared = 0
    for value, tensor in program.train.graph.state.items():
        if tensor.origin is None:
            continue
        gradient = 2 * raw[f"{value.name}.accumulator"]
        wanted = folded_gradient(tensor.origin, truth[tensor.origin.name])
        error = np.linalg.norm(gradient - wanted) / max(np.linalg.norm(wanted), 1e-12)
        assert error <= 1e-4, f"{tensor.origin.name}: relative error {error:.2e}"
        compared += 1
    assert compared


def folded_gradient(origin, gradient: np.ndarray) -> np.ndarray:
    """dL/d(the folded tensor) from dL/d(the user's parameter): divided by the scale of each affine
    step.
    """
    zero = np.zeros_like(gradient)
    offset = origin.to_program(zero)
    scale = origin.to_program(np.ones_like(gradient)) - offset
    layout = type(origin)(
        origin.name, tuple(s for s in origin.steps if not hasattr(s, "scale")), origin.part
    )
    return layout.to_program(gradient) / scale


@pytest.mark.parametrize("spec_name", SPECS)
def test_host_and_emulator_agree(network, spec_name):
    chosen, model, example = network
    spec = spec_for(model, example, spec_name)
    program = kg.compile(
        model, example, device=BIG_M7, update=spec, loss=chosen.loss, optimizer=kg.SGD(lr=0.01)
    )
    host, poisoned, board = (
        program.on_host(), program.on_host(poison=True), program.on_emulator()
    )  # fmt: skip
    for index in range(5):
        x, target = sample(chosen, example, index)
        target = with_target(chosen, model, x, target)
        y = None if chosen.loss == "autoencoder" else target
        losses = [session.train_step(x, y) for session in (host, poisoned, board)]
        assert losses[0] == losses[1] == losses[2], f"step {index}"
    for name, array in host.raw_state().items():
        assert array.tobytes() == poisoned.raw_state()[name].tobytes(), f"poison changes {name}"
        assert array.tobytes() == board.raw_state()[name].tobytes(), name
    assert host.predict(x).tobytes() == board.predict(x).tobytes()
    assert board.stack_bytes <= program.memory.stack_bytes
