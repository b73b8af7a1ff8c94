"""The selection is the best of all schemes, each compiled in earnest."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg
from kilograd.compiler import prepare
from kilograd.errors import InfeasibleError, InputError
from kilograd.search.limits import Limits
from kilograd.search.resources import ResourceModel
from kilograd.search.scheme import Scheme
from kilograd.search.select import front, select
from kilograd.search.table import Contributions, Gain

RATIOS = (Fraction(1, 4), Fraction(1))


class Residual(nn.Module):
    """A stem, a block whose two convolutions have a shortcut by a third, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 12, 3, padding=1, stride=2)
        self.second = nn.Conv2d(12, 12, 3, padding=1)
        self.shortcut = nn.Conv2d(8, 12, 1, stride=2)
        self.head = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        y = self.second(torch.relu(self.first(x))) + self.shortcut(x)
        return self.head(torch.relu(y).mean((2, 3)))


def chain() -> nn.Module:
    """Pointwise and depthwise convolutions, as in mobile networks."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.ReLU6(),
        nn.Conv2d(8, 24, 1), nn.ReLU6(),
        nn.Conv2d(24, 24, 3, padding=1, groups=24, stride=2), nn.ReLU6(),
        nn.Conv2d(24, 8, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


NETWORKS = {"chain": chain, "residual": Residual}
CASES = [("chain", "int8"), ("residual", "int8"), ("chain", "float32"), ("residual", "float32")]


@pytest.fixture(scope="module")
def models() -> dict[tuple[str, str, bool], ResourceModel]:
    return {}


def model_of(models, name: str, precision: str, atomic: bool = True) -> ResourceModel:
    """The resource model of a network, made once: its programs are used by several tests."""
    key = (name, precision, atomic)
    if key not in models:
        torch.manual_seed(0)
        x = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
        calibration = {"calibration": x} if precision == "int8" else {}
        prepared = prepare(
            NETWORKS[name](),
            x[:1],
            precision=precision,
            optimizer=kg.SGD(atomic=atomic),
            **calibration,
        )
        models[key] = ResourceModel(prepared, RATIOS)
    return models[key]


def every_scheme(model: ResourceModel) -> list[Scheme]:
    paths = model.layers.paths
    found = []
    for k in range(len(paths) + 1):
        for choice in itertools.product((Fraction(0), *RATIOS), repeat=k):
            chosen = zip(paths[len(paths) - k :], choice, strict=True)
            found.append(Scheme.of(k, {path: ratio for path, ratio in chosen if ratio}))
    return found


def table(model: ResourceModel, seed: int) -> Contributions:
    """Gains that grow with depth and ratio, with noise that makes some of them losses."""
    rng = np.random.default_rng(seed)
    paths = model.layers.paths
    biases = {k: Gain(0.02 * k + rng.normal(0, 0.02)) for k in range(1, len(paths) + 1)}
    weights = {
        (path, ratio): Gain(rng.uniform(-0.01, 0.1) * float(ratio) ** 0.5)
        for path in paths
        for ratio in RATIOS
    }
    return Contributions("net", paths, Gain(0.5), biases, weights, "synthetic")


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_selection_is_the_best_of_all(models, name, precision):
    model = model_of(models, name, precision)
    schemes = every_scheme(model)
    needs = {scheme: model.static_bytes(scheme) for scheme in schemes}
    fresh = ResourceModel(model.compiler, RATIOS)
    for seed, share in itertools.product((0, 1), (0.05, 0.3, 0.6, 1.0)):
        contributions = table(model, seed)
        budget = int(np.quantile(list(needs.values()), share))
        best = max(s.gain(contributions) for s in schemes if needs[s] <= budget)
        found = select(contributions, fresh, Limits(budget), link=False, reserve_bytes=0)
        assert found.gain == pytest.approx(best, abs=1e-6)
        assert found.proven
        assert found.sure_bound >= found.bound >= best - 1e-6
        assert bool(found.assumptions) == (found.bound < found.sure_bound)
        assert found.static_bytes == needs[found.scheme] <= budget
        assert found.gain == pytest.approx(found.scheme.gain(contributions))


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize(("name", "precision"), CASES)
def test_no_program_needs_less_than_the_rows_say(models, name, precision, atomic):
    model = model_of(models, name, precision, atomic)
    schemes = every_scheme(model)[:: 1 if atomic else 3]
    rest = {s: model.static_bytes(s) - model.rows.least_bytes(s) for s in schemes}
    assert min(rest.values()) >= 0
    assert min(rest.values()) == 0  # the bound is met by some
    for scheme in schemes[::17]:
        program = model.compiler.program(scheme.spec(model.layers))
        assert model.rows.state_bytes(scheme) == program.state_bytes
        assert model.static_bytes(scheme) == program.arena_bytes + program.state_bytes


def test_a_refuted_assumption_is_forgotten():
    """A learned row that one planned program undercuts is not used again."""
    model = model_of({}, "chain", "int8")
    scheme = Scheme.of(4, {model.layers.paths[1]: Fraction(1)})
    model.static_bytes(scheme)
    wrong = replace(model.rows.arena[0], base=(10**6,) * 5, name="wrong")
    model._learned.append(wrong)
    assert model.learned == (wrong,)
    model.static_bytes(Scheme(1))
    assert model.learned == ()


def test_the_linked_program_fits_the_budget():
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
    prepared = prepare(chain(), x[:1], device="cortex-m7-256k", precision="int8", calibration=x)
    model = ResourceModel(prepared, RATIOS)
    contributions = table(model, 0)
    most = max(model.static_bytes(s) for s in every_scheme(model)[::9])
    found = select(contributions, model, Limits(most, flash_bytes=1 << 20))
    memory = kg.compile(
        chain(), x[:1], device="cortex-m7-256k", precision="int8", calibration=x,
        update=found.scheme.spec(model.layers),
    ).memory  # fmt: skip
    assert memory.sram_bytes == found.sram_bytes <= most
    assert memory.stack_bytes + memory.data_bytes <= found.reserve_bytes
    with pytest.raises(InfeasibleError, match="bytes of flash, more than the 1,000 there are"):
        select(contributions, model, Limits(most, flash_bytes=1000))


def test_a_larger_budget_gains_no_less(models):
    model = model_of(models, "residual", "int8")
    needs = [model.static_bytes(s) for s in every_scheme(model)]
    budgets = [0, *np.quantile(needs, [0.1, 0.4, 0.9]).astype(int)]
    found = front(table(model, 0), model, budgets, link=False, reserve_bytes=0)
    assert [selection.budget_bytes for selection in found] == budgets[1:]
    gains = [selection.gain for selection in found]
    assert gains == sorted(gains)


def test_the_budget_below_the_head_says_what_it_needs(models):
    model = model_of(models, "chain", "int8")
    needed = model.static_bytes(Scheme(0)) + 100
    with pytest.raises(InfeasibleError, match=f"head alone needs {needed:,} bytes of SRAM, 77 mor"):
        select(table(model, 0), model, Limits(needed - 77), link=False, reserve_bytes=100)


def test_without_time_there_is_an_answer_and_a_gap(models):
    model = ResourceModel(model_of(models, "chain", "int8").compiler, RATIOS)
    found = select(table(model, 0), model, Limits(10**6), seconds=0, link=False, reserve_bytes=0)
    assert found.scheme == Scheme(0)
    assert not found.proven


def test_contributions_of_another_network_are_refused(models):
    model = model_of(models, "chain", "int8")
    other = model_of(models, "residual", "int8")
    with pytest.raises(InputError, match="of another network"):
        select(table(other, 0), model, Limits(10**6), link=False, reserve_bytes=0)
    third = replace(table(model, 0), weights={(model.layers.paths[0], Fraction(1, 3)): Gain(0.1)})
    with pytest.raises(InputError, match="have the ratios 1/3"):
        select(third, model, Limits(10**6), link=False, reserve_bytes=0)
