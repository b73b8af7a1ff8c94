"""The gradients of int8 graphs are those of fake-quantised PyTorch networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from kilograd import zoo
from kilograd.ir import Graph, Origin, Permute, Reshape
from kilograd.transforms.select import select
from kilograd.update import All, SpecLike, normalise
from tests.agreement.networks import NETWORKS, Network, data_folder
from tests.quantised.cases import build, expected, gradients
from tests.quantised.fake_module import module_gradients

FILES = {"mbv2_w035": "mbv2-w0.35", "mcunet_5fps": "mcunet-5fps", "proxyless_w03": "proxyless-w0.3"}
"""The networks of the paper, with their weights, at half the resolution; a head of its own."""


def tiny(name: str) -> Network:
    file = f"models/{FILES[name]}.safetensors"
    return Network(name, options={"resolution": 64, "weights": file, "num_classes": 10})


TINY = {FILES[name]: tiny(name) for name in FILES}
FLOAT = ("bert",)
"""Networks of which int8 programs keep most layers in float32."""
OTHERS = [*(n for n in NETWORKS if n.name not in (*FILES, *FLOAT)), Network("face_detector")]
VARIANTS = [
    (Network("lenet", options={"activation": "tanh", "pooling": "average"}), "float32"),
    *((network, "int8") for network in OTHERS if network.name in ("lenet", "resnet8", "se_net")),
]

Wanted = Mapping[str, np.ndarray]


def prepare(network: Network) -> None:
    if "weights" in network.options and not data_folder().is_dir():
        pytest.skip(f"no data folder {data_folder()} (set KILOGRAD_DATA)")


def check(network: Network, spec: SpecLike, wanted: Wanted, head: str = "float32") -> set[str]:
    """Compare the gradients of what the spec trains; the names of it."""
    case = build(network, head)
    found = gradients(case, select(case.graph, normalise(spec)))
    for name, (index, array) in found.of.items():
        a, b = array.astype(np.float64), wanted[name][index]
        assert a.shape == b.shape
        norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
        assert norms[1] > 0, f"{name} has no gradient here: the test says nothing of it"
        assert float(np.sum(a * b)) / (norms[0] * norms[1]) > 1 - 1e-6, name
        assert abs(norms[0] / norms[1] - 1) < 1e-4, name
    return set(found.of)


def check_all(network: Network, head: str = "float32") -> None:
    prepare(network)
    wanted, model = expected(network, head)
    # The rounding of the int8 network is to the nearest, but for near ties.
    assert model.rounded > 0 and model.differing <= 1e-3 * model.rounded
    assert check(network, All(), wanted, head) == set(build(network, head).parameters)


@pytest.mark.parametrize("network", [*OTHERS, *TINY.values()], ids=str)
def test_all_parameters(network: Network):
    check_all(network)


@pytest.mark.parametrize(("network", "head"), VARIANTS, ids=lambda value: str(value))
def test_all_parameters_of_variants(network: Network, head: str):
    check_all(network, head)


@pytest.mark.parametrize("scheme", zoo.schemes(), ids=lambda s: f"{s.network}-{s.label}")
def test_published_schemes(scheme: zoo.Scheme):
    network = TINY[scheme.network]
    prepare(network)
    wanted, _ = expected(network)
    names = check(network, zoo.scheme(scheme.network, scheme.label), wanted)
    trained = sum(fraction > 0 for fraction in scheme.weights.values())
    assert len(names) == scheme.biases + trained + 2


@pytest.mark.parametrize("network", TINY.values(), ids=str)
def test_the_module_itself(network: Network):
    """The user's module, rounded by hooks, instead of a walk over the graph; it knows neither
    layouts nor fused activations.
    """
    prepare(network)
    case = build(network)
    theirs = module_gradients(case)
    wanted = {}
    for name, value in case.parameters.items():
        origin = case.graph.constants[value].origin
        assert origin is not None
        layout = tuple(step for step in origin.steps if isinstance(step, Permute | Reshape))
        wanted[name] = Origin(name, layout).to_program(theirs[name]).astype(np.float64)
    assert check(network, All(), wanted) == set(theirs)


def test_the_cases_have_what_is_easily_got_wrong():
    """Depthwise and projection convolutions with an input zero point of -128, sums below which
    everything is trained, results on both bounds.
    """
    network = TINY["mcunet-5fps"]
    prepare(network)
    graph = build(network).graph
    for kind in ("depthwise", "pointwise2"):
        points = [node.op.x_zero_point for node in graph.nodes if kind in node.location.layer]
        assert len(points) >= 14 and points.count(-128) >= 14, kind
    assert count(graph, lambda op: op.name == "q_add") == 7
    _, model = expected(network)
    assert model.on_bound["low"] > 0.1 * model.rounded and model.on_bound["high"] > 0


def count(graph: Graph, condition: Callable[..., bool]) -> int:
    return sum(condition(node.op) for node in graph.nodes)
