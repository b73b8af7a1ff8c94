"""Time and energy of a training step as limits of the search: the rows, the selection, the face."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg
from kilograd.compiler import prepare
from kilograd.errors import InfeasibleError, InputError
from kilograd.planning.step_limits import StepLimit
from kilograd.search.choice import Chooser
from kilograd.search.layers import layers_of
from kilograd.search.limits import Limits
from kilograd.search.resources import ResourceModel
from kilograd.search.scheme import Scheme
from kilograd.search.select import select
from tests.search import test_select
from tests.search.networks import blobs, perceptron
from tests.search.test_search import run
from tests.search.test_select import RATIOS, every_scheme, table

DEVICE, PLENTY = "stm32f746", 10**6


class Pools(nn.Module):
    """Pools between layers, whose index is kept only where a gradient passes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Linear(128, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(torch.relu(self.first(x)), 2)
        x = torch.max_pool2d(torch.relu(self.second(x)), 2)
        return self.head(torch.relu(self.third(x.flatten(1))))


NETWORKS = {**test_select.NETWORKS, "pools": Pools}
CASES = [*test_select.CASES, ("pools", "float32"), ("pools", "int8")]


def model_of(name: str, precision: str, **options: object) -> ResourceModel:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
    calibration = {"calibration": x} if precision == "int8" else {}
    options = {"device": DEVICE, "precision": precision, **calibration, **options}
    return ResourceModel(prepare(NETWORKS[name](), x[:1], **options), RATIOS)


@pytest.fixture(scope="module")
def models() -> dict[tuple[str, str], ResourceModel]:
    """A model of each case, for the true needs: its programs are used by several tests."""
    return {case: model_of(*case) for case in CASES}


# Rows --------------------------------------------------------------------------------------------

VARIANTS = [
    *((*case, {}) for case in CASES),
    ("residual", "int8", {"gradients": "int8"}),
    ("chain", "int8", {"optimizer": kg.SGD(momentum=0.9, accumulate=2, atomic=False)}),
    ("residual", "float32", {"optimizer": kg.SGD(momentum=0.9, weight_decay=0.1)}),
    ("chain", "int8", {"device": "rpi4"}),
]


@pytest.mark.parametrize(("name", "precision", "options"), VARIANTS)
def test_a_step_takes_what_the_rows_say(name, precision, options):
    """No program takes less than the row that is sure, and one that keeps masks as bits what is
    expected, but for the rounding of streams to whole instructions.
    """
    model = model_of(name, precision, **options)
    device = model.compiler.device
    rounding = 0.0 if device.is_host else 8 * device.seconds(1)
    rows = model.costs("seconds")
    for scheme in every_scheme(model)[::3]:
        taken = model.step(scheme).seconds
        assert rows.least.value(scheme) <= taken * (1 + 1e-12)
        graph = model.compiler.program(scheme.spec(model.layers)).train.graph
        expected = rows.least if _reads_results(graph) else rows.expected
        assert taken - expected.value(scheme) <= rounding + 1e-12 * taken
        assert expected.value(scheme) <= taken * (1 + 1e-12)
    assert bool(rows.expected.unless) == (precision == "int8")


def _reads_results(graph) -> bool:
    """Whether the masks are read off the results that they mask."""
    return "pack_mask" not in {node.op.name for node in graph.nodes}


def test_energy_is_in_proportion(models):
    model = models["residual", "int8"]
    scheme = Scheme.of(3, {model.layers.paths[1]: RATIOS[0]})
    values = [model.costs(q).expected.value(scheme) for q in ("seconds", "joules")]
    step = model.step(scheme)
    assert values[1] / values[0] == pytest.approx(step.joules / step.seconds)


def test_a_relaxed_expectation_holds_for_every_planned_program(models):
    """Some programs of the chain read masks off the results, and take less than expected."""
    model = models["chain", "int8"]
    schemes = every_scheme(model)
    first = model.costs("seconds").expected
    taken = {scheme: model.step(scheme).seconds for scheme in schemes}
    assert any(first.value(s) > taken[s] * (1 + 1e-9) for s in schemes)
    learned = model.expected("seconds", PLENTY)
    assert all(learned.value(s) <= taken[s] * (1 + 1e-9) for s in schemes)
    assert model.expected("seconds", 0) == first, "no program is as small"


# Selection ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantity", ["seconds", "joules"])
@pytest.mark.parametrize(("name", "precision"), CASES)
def test_selection_is_the_best_of_all(models, name, precision, quantity):
    model = models[name, precision]
    schemes = every_scheme(model)
    taken = {scheme: getattr(model.step(scheme), quantity) for scheme in schemes}
    fresh = ResourceModel(model.compiler, RATIOS)
    for seed, share in itertools.product((0, 1), (0.05, 0.3, 0.6, 0.9)):
        contributions = table(model, seed)
        limit = StepLimit(quantity, float(np.quantile(list(taken.values()), share)))
        best = max(s.gain(contributions) for s in schemes if taken[s] <= limit.most)
        limits = Limits(PLENTY, step=(limit,))
        found = select(contributions, fresh, limits, link=False, reserve_bytes=0)
        assert found.gain == pytest.approx(best, abs=1e-6)
        assert found.proven and found.sure_bound >= found.bound >= best - 1e-6
        assert getattr(found.step, quantity) == taken[found.scheme] <= limit.most


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_memory_and_time_together(models, name, precision):
    model = models[name, precision]
    schemes = every_scheme(model)
    fresh = ResourceModel(model.compiler, RATIOS)
    for seed, ram, share in ((0, 0.4, 0.4), (1, 0.6, 0.8), (2, 0.9, 0.5)):
        contributions = table(model, seed)
        sram = int(np.quantile([model.static_bytes(s) for s in schemes], ram))
        most = float(np.quantile([model.step(s).seconds for s in schemes], share))
        fitting = [
            s for s in schemes if model.static_bytes(s) <= sram and model.step(s).seconds <= most
        ]
        limits = Limits(sram, step=(StepLimit("seconds", most),))
        found = select(contributions, fresh, limits, link=False, reserve_bytes=0)
        best = max(s.gain(contributions) for s in fitting)
        assert found.gain == pytest.approx(best, abs=1e-6) and found.scheme in fitting


def test_a_limit_that_just_suffices_is_kept(models):
    """The limit is what one scheme takes to the last bit, and a little less."""
    model = models["residual", "int8"]
    contributions = table(model, 0)
    best = max(every_scheme(model), key=lambda s: s.gain(contributions))
    taken = model.step(best).seconds

    def found(most: float) -> Scheme:
        limits = Limits(PLENTY, step=(StepLimit("seconds", most),))
        return select(contributions, model, limits, link=False, reserve_bytes=0).scheme

    assert found(taken) == best
    assert found(taken * (1 - 1e-10)) != best


def test_schemes_by_hand_keep_the_limits(models):
    model = model_of("chain", "int8")
    contributions = table(model, 0)
    most = {
        kind: model.step(scheme).seconds
        for kind, scheme in (("biases", Scheme(2)), ("none", Scheme(0)))
    }
    limits = Limits(PLENTY, step=(StepLimit("seconds", most["biases"]),))
    points = Chooser(model, limits).by_hand(contributions)
    assert {point.kind: point.biases for point in points}["biases"] == 2
    assert all(point.step_seconds <= most["biases"] for point in points)
    assert all(point.step_joules for point in points)
    tight = Limits(PLENTY, step=(StepLimit("seconds", most["none"]),))
    assert Chooser(model, tight).by_hand(contributions) == ()


def test_the_head_that_takes_too_long_says_so(models):
    model = models["chain", "float32"]
    needed = model.step(Scheme(0)).joules
    limits = Limits(PLENTY, step=(StepLimit("joules", needed * 0.9),))
    with pytest.raises(InfeasibleError, match=rf"head alone takes {1e6 * needed:.4g} µJ a step"):
        select(table(model, 0), model, limits, link=False, reserve_bytes=0)


# `kilograd.search`, `update="auto"` and `kilograd search` -----------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("step")
    perceptron(folder / "net.onnx")
    x, y = blobs()
    np.savez(folder / "data.npz", x=x, y=y)
    network = prepare(folder / "net.onnx", device=DEVICE)
    layers = layers_of(network.forward)
    return folder, [network.program(layers.spec(k, {})).step_estimate for k in range(3)]


OPTIONS = {"device": DEVICE, "progress": False, "jobs": 1, "method": "quick", "front": 3}


@pytest.mark.parametrize("quantity", ["seconds", "joules"])
def test_everything_found_keeps_the_limit(place, quantity):
    folder, estimates = place
    most = getattr(estimates[2], quantity)
    option = "step_time" if quantity == "seconds" else "step_energy"
    budget = kg.Budget(sram="64KB", **{option: most})
    arguments = {"data": blobs(), "store": folder / "store"}
    free = kg.search(folder / "net.onnx", budget=kg.Budget(sram="64KB"), **arguments, **OPTIONS)
    found = kg.search(folder / "net.onnx", budget=budget, **arguments, **OPTIONS)
    assert max(getattr(p, f"step_{quantity}") for p in free.front) > most, "it does limit"
    points = found.points
    assert all(getattr(point, f"step_{quantity}") <= most for point in points)
    row = found.to_json()["scheme"]
    assert (row["step_seconds"], row["step_joules"]) == (
        *(found.best.step_seconds, found.best.step_joules),
    )
    assert f"# A training step takes {found.best.step()}, by estimate." in found.scheme()
    assert [c.joules for c in found.choices()] == [p.step_joules for p in found.ahead]
    search = {key: OPTIONS[key] for key in ("progress", "jobs", "method", "front")}
    auto = kg.compile(
        folder / "net.onnx", device=DEVICE, budget=budget, update="auto", data=blobs(),
        search={**search, "store": folder / "store"},
    )  # fmt: skip
    assert getattr(auto.step_estimate, quantity) == getattr(found.best, f"step_{quantity}")


@pytest.mark.parametrize("quantity", ["seconds", "joules"])
def test_refused_before_anything_is_measured(place, tmp_path, quantity):
    folder, estimates = place
    needed = getattr(estimates[0], quantity)
    option = "step_time" if quantity == "seconds" else "step_energy"

    def search(**more: object) -> None:
        arguments = {"data": blobs(), "store": tmp_path / "store", **OPTIONS, **more}
        budget = kg.Budget(sram="64KB", **{option: needed * 0.99})
        kg.search(folder / "net.onnx", budget=budget, **arguments)

    unit = "µs" if quantity == "seconds" else "µJ"
    with pytest.raises(
        InfeasibleError, match=f"takes {1e6 * needed:.4g} {unit} a step by estimate"
    ):
        search()
    with pytest.raises(InputError, match=f"budget: {option}=.* needs an estimate of .* host has"):
        search(device="host")
    assert not (tmp_path / "store").exists()


def test_the_command_keeps_every_limit(place, tmp_path):
    folder, estimates = place
    most = estimates[1]
    for number, (flag, value, field) in enumerate(
        (
            ("--step-time", f"{most.seconds * 1e6}us", "step_seconds"),
            ("--step-energy", f"{most.joules * 1e6}uJ", "step_joules"),
        )
    ):
        arguments = (
            *("search", folder / "net.onnx", "--data", folder / "data.npz", "--device", DEVICE),
            *("--budget", "64KB", flag, value, "--method", "quick", "--front", 2, "--jobs", 1),
            *("--store", folder / "store", "-o", tmp_path / str(number)),
        )
        told = run(*arguments, "--json")
        content = json.loads(told.stdout)
        limit = getattr(most, field.removeprefix("step_")) * (1 + 1e-12)
        assert content["front"] and all(row[field] <= limit for row in content["front"])
    told = run(*arguments, "--force")
    assert "a step" in told.stdout and "trained" in told.stdout
