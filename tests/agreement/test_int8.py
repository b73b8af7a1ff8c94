"""Training of int8 networks: twenty steps give the same bits on the host and on emulated
microcontrollers; every way to round; checkpoints and parameters in the user's terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg
from kilograd.program import Program
from tests.agreement.networks import BIG_M7, Network, data_folder
from tests.agreement.samples import draw_sample

STEPS = 20


@dataclass(frozen=True)
class Case:
    """A network, what of it is trained, and the devices beside the Cortex-M7 that learn it, too."""

    network: Network
    update: Any = None
    others: tuple[str, ...] = ()
    optimizer: kg.SGD = kg.SGD(lr=0.01)  # noqa: RUF009
    head: str = "float32"

    def __str__(self) -> str:
        return f"{self.network}-{self.head}-{'part' if self.update else 'full'}"


MCUNET = Network(
    "mcunet_5fps",
    options={"resolution": 64, "weights": "models/mcunet-5fps.safetensors", "num_classes": 10},
)
PART = {
    "*.bias": kg.update.full(),
    "blocks.[3-9].pointwise1.weight": kg.update.channels(0.5),
    "blocks.8.depthwise.weight": kg.update.channels(0.25),
    "classifier.*": kg.update.full(),
}
CASES = [
    Case(Network("lenet"), optimizer=kg.SGD(lr=0.01, momentum=0.9, weight_decay=1e-3)),
    Case(Network("resnet8"), optimizer=kg.SGD(lr=0.01, rounding="residual")),
    Case(Network("mobilenetv1_025", options={"resolution": 64}), {"*.bias": kg.update.full()}),
    Case(Network("dscnn"), head="int8"),
    Case(Network("autoencoder", "autoencoder"), kg.update.last(3)),
    Case(Network("unet", "bce_with_logits"), optimizer=kg.SGD(lr=0.1, rounding="nearest")),
    Case(Network("tcn"), others=("nrf52840",), optimizer=kg.SGD(lr=0.01, accumulate=4)),
    Case(Network("se_net"), others=("nrf52840",)),
    Case(MCUNET, PART),
]


def program(case: Case, device: Any) -> tuple[Program, Any, Any]:
    if "weights" in case.network.options and not data_folder().is_dir():
        pytest.skip(f"no data folder at {data_folder()}; set KILOGRAD_DATA")
    model, example = case.network.build()
    rng = np.random.default_rng(1)
    calibration = rng.standard_normal((16, *example.shape[1:])).astype(np.float32)
    compiled = kg.compile(
        model, example, device=device, loss=case.network.loss, precision="int8",
        calibration=calibration, update=case.update or kg.update.all(), optimizer=case.optimizer,
        head=case.head, name=case.network.name,
    )  # fmt: skip
    return compiled, model, example


@pytest.mark.parametrize("case", CASES, ids=str)
def test_twenty_steps_give_the_same_bits(case: Case):
    programs = [program(case, device) for device in (BIG_M7, *case.others)]
    _, model, example = programs[0]
    boards = [p.on_emulator() for p, _, _ in programs]
    samples = [draw_sample(case.network.loss, model, example, index) for index in range(STEPS)]
    same_bits([p for p, _, _ in programs], boards, samples)


def same_bits(programs: list[Program], boards: list[Any], samples: list[Any]) -> None:
    """Host and boards learn alike, each within the stack that its program states."""
    host = programs[0].on_host(poison=True, optimize="-O1")
    learned = host.raw_state()
    for index, (x, y) in enumerate(samples):
        losses = [session.train_step(x, y) for session in (host, *boards)]
        assert len(set(losses)) == 1, f"step {index}: {losses}"
    state, output = host.raw_state(), host.predict(x)
    moved = [name for name in state if not np.array_equal(state[name], learned[name])]
    assert len(moved) > len(state) / 2
    for compiled, session in zip(programs, boards, strict=True):
        assert session.stack_bytes <= compiled.memory.stack_bytes
        for name, array in session.raw_state().items():
            np.testing.assert_array_equal(array, state[name], err_msg=name)
        assert session.predict(x).tobytes() == output.tobytes()


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6), nn.ReLU6(),
        nn.Conv2d(6, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 4),
    ).eval()  # fmt: skip


X = np.random.default_rng(0).standard_normal((24, 1, 8, 8)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 4, 24)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "residual"])
def test_a_processor_without_fpu_learns_the_same(rounding: str):
    programs = [
        kg.compile(
            small(), X[:1], device=device, precision="int8", calibration=X, name="small",
            optimizer=kg.SGD(lr=0.05, rounding=rounding, momentum=0.9, weight_decay=1e-3),
        )
        for device in ("rp2040", "stm32f746")
    ]  # fmt: skip
    boards = [each.on_emulator() for each in programs]
    same_bits(programs, boards, [(X[i], int(Y[i])) for i in range(STEPS)])


def session(headroom: float = 1.0, **options: Any) -> kg.program.Session:
    optimizer = kg.SGD(lr=0.05, **options)
    return kg.compile(
        small(), X[:1], precision="int8", calibration=X, headroom=headroom, optimizer=optimizer,
        name="small",
    ).on_host(optimize="-O1")  # fmt: skip


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "residual"])
@pytest.mark.parametrize("atomic", [True, False])
def test_every_rounding_learns(rounding: str, atomic: bool):
    """From scratch the weights have to grow, so there is room for them to."""
    learner = session(rounding=rounding, atomic=atomic, headroom=4.0)
    before = learner.loss(X, Y)
    learner.fit(X, Y, epochs=12)
    assert learner.loss(X, Y) < 0.65 * before


def test_atomic_or_not_makes_no_difference():
    states = []
    for atomic in (True, False):
        learner = session(atomic=atomic, momentum=0.5)
        learner.fit(X, Y, epochs=1)
        states.append(learner.raw_state())
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)


def test_accumulation_moves_by_the_mean_at_the_end_of_a_period():
    learner = session(accumulate=4, rounding="nearest")
    name = next(n for n in learner.raw_state() if n.endswith("weight"))
    start = learner.raw_state()[name]
    for i in range(3):
        learner.train_step(X[i], Y[i], lr=1.0)
        np.testing.assert_array_equal(learner.raw_state()[name], start)
    learner.train_step(X[3], Y[3], lr=1.0)
    assert not np.array_equal(learner.raw_state()[name], start)


def test_state_returns_to_the_user_and_back():
    learner = session()
    learner.fit(X, Y, epochs=2)
    parameters, state = learner.state_dict(), learner.raw_state()
    model = small()
    tensors = {k: torch.from_numpy(v) for k, v in parameters.items()}
    assert not model.load_state_dict(tensors, strict=False).unexpected_keys
    with torch.no_grad():
        real = model(torch.from_numpy(X)).numpy()
    assert np.corrcoef(real.ravel(), learner.predict(X).ravel())[0, 1] > 0.99
    other = session()
    other.load_state_dict(parameters)
    for name, array in other.raw_state().items():
        if name != "random_seed":
            np.testing.assert_array_equal(array, state[name], err_msg=name)


def test_a_parameter_beyond_the_range_is_refused():
    learner = session()
    parameters, state = learner.state_dict(), learner.raw_state()
    with pytest.raises(kg.InputError, match=r"0\.weight.*100 times.*headroom"):
        learner.load_state_dict({"0.weight": parameters["0.weight"] * 100})
    np.testing.assert_array_equal(learner.raw_state()["v0_weight"], state["v0_weight"])


def test_a_checkpoint_goes_on_with_the_same_random_numbers(tmp_path):
    whole, part = session(seed=7), session(seed=7)
    for i in range(6):
        whole.train_step(X[i], Y[i])
    for i in range(3):
        part.train_step(X[i], Y[i])
    part.save(tmp_path / "half")
    resumed = session(seed=7)
    resumed.load(tmp_path / "half")
    for i in range(3, 6):
        resumed.train_step(X[i], Y[i])
    for name, array in resumed.raw_state().items():
        np.testing.assert_array_equal(array, whole.raw_state()[name], err_msg=name)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "residual"])
def test_nan_changes_nothing(rounding: str):
    """Weights so large that gradients overflow, while the loss is still finite."""
    learner = session(rounding=rounding)
    head = {"8.weight": np.full((4, 128), 3e37), "8.bias": np.array([-3e38, 3e38, 0, 0])}
    learner.load_state_dict(head | {"5.bias": np.full(8, -1e-3)})
    before = learner.raw_state()
    with pytest.raises(kg.errors.NonFiniteError):
        learner.train_step(X[0], 0)
    for name, array in learner.raw_state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_a_sample_with_nan_is_refused():
    """Int8 has no NaN: quantised silently, the sample would be learned as if it were a number."""
    learner = session()
    before = learner.raw_state()
    bad = X[:3].copy()
    bad[1, 0, 2, 3] = np.nan
    for call in (learner.predict, lambda x: learner.fit(x, Y[:3], progress=False)):
        with pytest.raises(kg.InputError, match="sample 1 of 3 holds NaN"):
            call(bad)
    with pytest.raises(kg.InputError, match="NaN"):
        learner.train_step(bad[1], 0)
    for name, array in learner.raw_state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_without_scaling_the_steps_are_of_another_size():
    """A weight's step without QAS is s² times that with it: nothing moves at the same rate."""
    learner = session(qas=False, rounding="nearest")
    start = learner.raw_state()
    learner.train_step(X[0], Y[0])
    weights = [n for n in start if start[n].dtype == np.int8]
    assert weights
    for name in weights:
        np.testing.assert_array_equal(learner.raw_state()[name], start[name], err_msg=name)
    learner.train_step(X[0], Y[0], lr=1e5)
    assert any(not np.array_equal(learner.raw_state()[name], start[name]) for name in weights)


def test_accuracy_is_told_beside_that_of_float32():
    program = kg.compile(small(), X[:1], precision="int8", calibration=(X, Y), name="small")
    assert program.quantized is not None and program.quantized.score is not None
    score = program.quantized.score
    with torch.no_grad():
        winners = small()(torch.from_numpy(X)).numpy().argmax(1)
    assert score.float32 == np.mean(winners == Y) and score.samples == len(X)
    assert score.int8 == program.on_host(optimize="-O1").accuracy(X, Y)
    assert str(score) in program.summary()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "int4.*float32 and int8"),
        ({"precision": "int8"}, "needs calibration"),
        ({"calibration": X}, "calibration is for"),
        ({"precision": "int8", "calibration": (X, Y[:3])}, r"\[24, 1, 8, 8\].*\[3\]"),
        ({"precision": "int8", "calibration": (X, Y, Y)}, "tuple of 3"),
        ({"precision": "int8", "calibration": ["a"]}, "real numbers"),
        ({"precision": "int8", "calibration": X[:, :, 1:]}, r"\[24, 1, 7, 8\]"),
        ({"precision": "int8", "calibration": X, "head": "int4"}, "head.*int4"),
        ({"precision": "int8", "calibration": X, "ranges": "max"}, "ranges.*max"),
        ({"precision": "int8", "calibration": X, "headroom": 0.5}, "headroom.*0.5"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str):
    with pytest.raises(kg.InputError, match=message):
        kg.compile(small(), X[:1], **options)


@pytest.mark.parametrize("options", [{"rounding": "up"}, {"seed": -1}, {"seed": 2**32}])
def test_bad_optimiser(options: dict[str, Any]):
    with pytest.raises(kg.InputError, match=next(iter(options))):
        kg.SGD(**options)


@pytest.mark.parametrize("gradients", ["float32", "int8"])
def test_token_ids_stay_what_they_are(gradients: str):
    """The table is float32, the layers behind it are int8."""
    model = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 8), nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(40, 3))
    ids = np.random.default_rng(0).integers(0, 11, (16, 5))
    compiled = kg.compile(
        model, torch.zeros(1, 5, dtype=torch.int64), device="stm32f746", precision="int8",
        calibration=(ids, ids[:, 0] % 3), gradients=gradients, name="tokens",
    )  # fmt: skip
    assert compiled.quantized is not None and "embedding" in str(compiled.quantized)
    same_bits([compiled], [compiled.on_emulator()], [(row[None], row[0] % 3) for row in ids])
