"""The gradients of int8 graphs are those of fake-quantised PyTorch networks."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from kilograd import zoo
from kilograd.transforms.select import select
from kilograd.update import All, SpecLike, normalise
from tests.agreement.networks import NETWORKS, Network, data_folder
from tests.quantised.cases import build, expected, gradients

TINY = {"mcunet-5fps": "mcunet_5fps", "mbv2-w0.35": "mbv2_w035", "proxyless-w0.3": "proxyless_w03"}


def tiny(network: str) -> Network:
    """One of the paper's networks, with its weights, at half the resolution."""
    file = f"models/{network}.safetensors"
    return TINY_NETWORKS.setdefault(
        network, Network(TINY[network], options={"resolution": 64, "weights": file})
    )


TINY_NETWORKS: dict[str, Network] = {}
ALL = [*(n for n in NETWORKS if n.name not in TINY.values()), *map(tiny, TINY)]


def check(network: Network, spec: SpecLike, head: str = "float32") -> list[str]:
    """Compare what the spec trains; the names of it."""
    if "weights" in network.options and not data_folder().is_dir():
        pytest.skip(f"no data folder {data_folder()} (set KILOGRAD_DATA)")
    case = build(network, head)
    wanted, model = expected(network, head)
    assert model.differing <= 1e-3 * model.rounded
    got = gradients(case, select(case.graph, normalise(spec)))
    for name, (index, array) in got.of.items():
        a, b = array.astype(np.float64), wanted[name][index]
        assert a.shape == b.shape
        norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
        if norms[1] == 0:
            assert norms[0] == 0, name
            continue
        assert float(np.sum(a * b)) / (norms[0] * norms[1]) > 0.999, name
        assert abs(norms[0] / norms[1] - 1) < 0.01, name
    return list(got.of)


@pytest.mark.parametrize("network", ALL, ids=str)
def test_all_parameters(network: Network):
    names = check(network, All())
    assert set(names) == set(build(network).parameters)
