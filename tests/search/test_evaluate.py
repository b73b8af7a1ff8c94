"""Judging by references agrees with judging by the C program."""

from __future__ import annotations

import numpy as np
import pytest

from kilograd import SGD, zoo
from kilograd.compiler import prepare
from kilograd.errors import InputError
from kilograd.search.evaluate import outputs
from kilograd.search.layers import layers_of
from kilograd.search.measure import Plan, measure
from tests.search.networks import bench

NETWORKS = {"dscnn": {}, "mcunet_5fps": {"resolution": 32, "num_classes": 4}}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_outputs_of_a_trained_program(name, precision):
    """The same bits in int8 with an int8 head; the same up to rounding in float32."""
    model, example = zoo.create(name, **NETWORKS[name])
    model.eval()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, *example.shape[1:])).astype(np.float32)
    exact = {"calibration": x, "head": "int8"} if precision == "int8" else {}
    network = prepare(model, example, precision=precision, optimizer=SGD(lr=0.01), **exact)
    program = network.program(layers_of(network.forward).spec(2, {}))
    session = program.on_host(optimize="-O1")
    session.fit(x, np.arange(6) % 4, epochs=2, progress=False)
    in_c = session.predict(x)
    for judge in ("numpy", "torch"):
        found = outputs(program.predict.graph, network.ports, session.raw_state(), x, judge)
        assert found.shape == in_c.shape
        if precision == "int8":
            np.testing.assert_array_equal(found, in_c)
        else:
            scale = float(np.abs(in_c).max())
            np.testing.assert_allclose(found, in_c, rtol=0, atol=1e-5 * scale)


def test_contributions_are_the_same(tmp_path):
    _, layers, place = bench(tmp_path)
    plan = Plan((0, 2), (), (0,))
    expected = measure(place, layers, plan, name="net")
    for judge in ("numpy", "torch"):
        _, _, other = bench(tmp_path, judge=judge)
        assert measure(other, layers, plan, name="net") == expected
    stored = list((tmp_path / "store").glob("*/*.json"))
    assert len(stored) == 3 * 2  # each judge's are its own


@pytest.mark.parametrize(
    ("judge", "message"),
    [("fortran", "there are c, numpy, torch"), ("torch:cuda:99", "has no such device here")],
)
def test_unknown_judges_are_refused(tmp_path, judge, message):
    _, layers, place = bench(tmp_path, judge=judge)
    with pytest.raises(InputError, match=message):
        place.scores([layers.spec(0, {})], [0])
