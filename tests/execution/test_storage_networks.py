"""Networks of the zoo with tensors drawn at random in storage: the bits of the unpaged programs,
and a step that fails changes nothing.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from tests.agreement.samples import draw_sample
from tests.execution.storage_cases import bits
from tests.paging import Choice, Geometry, paged

import kilograd as kg
from kilograd import zoo
from kilograd.errors import StorageError
from kilograd.execution.storage import Fault
from kilograd.ir import Value
from kilograd.program import Program

GEOMETRIES = [
    Geometry(block_bytes=512),
    Geometry(block_bytes=1, erase_bytes=4096),
    Geometry(block_bytes=4),
    Geometry(block_bytes=64, erase_bytes=256),
]
INT8: dict[str, Any] = {"precision": "int8"}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("lenet", {}),
    ("se_net", {}),
    ("autoencoder", {"loss": "autoencoder", "optimizer": kg.SGD(lr=0.01, weight_decay=1e-3)}),
    ("bert", {"update": kg.update.last(3)}),
    ("unet", {"loss": "bce_with_logits", "update": kg.update.last(3)}),
    ("mlp", {"optimizer": kg.SGD(lr=0.01, atomic=False)}),
    ("tcn", {**INT8, "optimizer": kg.SGD(lr=0.01, momentum=0.9, accumulate=2)}),
    ("se_net", {**INT8, "optimizer": kg.SGD(lr=0.01, momentum=0.9)}),
    ("mlp", {**INT8, "optimizer": kg.SGD(lr=0.01, rounding="residual")}),
    ("resnet8", {**INT8, "update": kg.update.last(3)}),
    ("dscnn", {**INT8, "gradients": "int8"}),
    ("lenet", {**INT8, "gradients": "int8"}),
]


def compiled(network: str, options: dict[str, Any]) -> tuple[Program, Any, Any]:
    model, example = zoo.create(network)
    more = {}
    if "precision" in options:
        rng = np.random.default_rng(1)
        more["calibration"] = rng.standard_normal((8, *example.shape[1:])).astype(np.float32)
    return kg.compile(model, example, name="net", **options, **more), model, example


def draw(rng: random.Random) -> Choice:
    """Half of the values, the same ones whenever asked."""
    known: dict[str, bool] = {}

    def choice(value: Value) -> bool:
        return known.setdefault(value.name, rng.random() < 0.5)

    return choice


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda i: f"{i}-{CASES[i][0]}")
def test_any_choice_of_tensors_gives_the_same_bits(number: int):
    network, options = CASES[number]
    plain, model, example = compiled(network, options)
    rng = random.Random(number)
    program = paged(
        plain,
        pages=draw(rng),
        stored=draw(rng),
        geometry=rng.choice(GEOMETRIES),
        chunk_bytes=rng.choice([None, 512]),
    )
    loss = options.get("loss", "cross_entropy")
    samples = [draw_sample(loss, model, example, index) for index in range(3)]
    first, second = plain.on_host(optimize="-O1"), program.on_host(optimize="-O1", poison=True)
    for x, y in samples:
        assert first.train_step(x, y) == second.train_step(x, y)
        assert second.traffic.reads
    assert bits(first) == bits(second)
    x, y = samples[0]
    assert first.predict(x).tobytes() == second.predict(x).tobytes()
    before = bits(second)
    for kind in ("read", "write"):
        for how in ("fail", "flip", "short"):
            second.storage.faults = (Fault(kind, rng.randrange(5), how),)
            with pytest.raises(StorageError):
                second.train_step(x, y)
            second.storage.faults = ()
            assert bits(second) == before
    assert first.train_step(x, y) == second.train_step(x, y)
    assert bits(first) == bits(second)
