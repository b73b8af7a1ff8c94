"""For every network and update spec: gradients = torch.autograd, host = emulator bit for bit,
poison survives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import kilograd as kg
from kilograd import frontend
from kilograd.program import Program
from kilograd.transforms.fold import fold
from kilograd.transforms.layout import arrange
from kilograd.transforms.select import parameters
from kilograd.update import SpecLike
from tests.agreement.networks import BIG_M7, NARROW, NETWORKS, Network, data_folder, random_spec
from tests.agreement.samples import draw_sample, folded_gradient, smooth_sample, torch_loss

SPECS = ["full", "sparse-1", "sparse-2", "sparse-3"]
FULL_SIZE = [replace(n, options={**n.options, "resolution": r}) for n, r in (
    (NETWORKS[3], 96), (NETWORKS[4], 128), (NETWORKS[10], 128),
)]  # fmt: skip
UNIT_RATE = 2.0**20
"""With so large a step, (w - w') / rate is the gradient: w is lost in rounding, nothing else is."""


@cache
def load(network: Network) -> tuple[Any, Any, Any]:
    """The model, its example input and the exported program, which every spec compiles."""
    if "weights" in network.options and not data_folder().is_dir():
        pytest.skip(f"no data folder at {data_folder()}; set KILOGRAD_DATA")
    model, example = network.build()
    return model, example, torch.export.export(model, (example,))


@dataclass(frozen=True)
class Case:
    """One program, in a session whose every buffer is overwritten as soon as it is free."""

    network: Network
    model: Any
    example: Any
    spec: str
    program: Program
    poisoned: Any


def cases() -> list[Any]:
    """A group is run by one worker, so that its program is compiled once."""
    return [
        pytest.param((network, spec), id=f"{network}-{spec}", marks=[
            pytest.mark.xdist_group(f"{network}-{spec}"), *marks,
        ])
        for networks, marks in ((NETWORKS, []), (FULL_SIZE, [pytest.mark.slow]))
        for network in networks
        for spec in (SPECS[:3] if network in NARROW else SPECS)
    ]  # fmt: skip


@pytest.fixture(scope="module", params=cases())
def case(request) -> Case:
    network, spec = request.param
    model, example, exported = load(network)
    update = kg.update.all() if spec == "full" else sparse(exported, example, spec)
    program = kg.compile(
        exported, example, device=BIG_M7, update=update, loss=network.loss,
        optimizer=kg.SGD(lr=0.01, atomic=spec != "sparse-2"), name=network.name,
    )  # fmt: skip
    # Less optimisation builds in half the time; that the bits stay the same is shown below.
    poisoned = program.on_host(poison=True, optimize="-O1")
    return Case(network, model, example, spec, program, poisoned)


def sparse(exported, example, spec: str) -> SpecLike:
    graph = fold(arrange(frontend.load(exported, example).graph)[0])
    known = [(p.name, p.is_bias, p.channel_axis is not None) for p in parameters(graph)]
    return random_spec(known, int(spec.rpartition("-")[2]))


def test_gradients_equal_autograd(case: Case):
    x, y = smooth_sample(case.network.loss, case.model, case.example)
    case.poisoned.reset()
    before = case.poisoned.raw_state()
    loss = case.poisoned.train_step(x, y, lr=UNIT_RATE)
    after = case.poisoned.raw_state()
    case.model.zero_grad()
    expected = torch_loss(case.network.loss, case.model(torch.from_numpy(x)), y, x)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    truth = {n: p.grad.numpy() for n, p in case.model.named_parameters() if p.grad is not None}
    for value, tensor in case.program.train.graph.state.items():
        gradient = (before[value.name].astype(np.float64) - after[value.name]) / UNIT_RATE
        wanted = folded_gradient(tensor.origin, truth[tensor.origin.name])
        error = np.linalg.norm(gradient - wanted) / max(np.linalg.norm(wanted), 1e-12)
        assert error <= 1e-4, f"{tensor.origin.name}: relative error {error:.2e}"


def test_host_and_emulator_agree(case: Case):
    """The plain host joins for one spec of a network: it runs the same C as the poisoned one."""
    sessions = [case.program.on_emulator(), case.poisoned]
    if case.spec == "full":
        sessions.append(case.program.on_host())
    for session in sessions:
        session.reset()
    board = sessions[0]
    for index in range(5):
        x, y = draw_sample(case.network.loss, case.model, case.example, index)
        losses = [session.train_step(x, y) for session in sessions]
        assert len(set(losses)) == 1, f"step {index}: {losses}"
        assert board.stack_bytes <= case.program.memory.stack_bytes
    state, output = board.raw_state(), board.predict(x)
    for session in sessions[1:]:
        for name, array in session.raw_state().items():
            assert array.tobytes() == state[name].tobytes(), name
        assert session.predict(x).tobytes() == output.tobytes()
