"""The tangent kernel against PyTorch's gradients, and the gains that follow from it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.fx.experimental import optimization

from kilograd import zoo
from kilograd.compiler import prepare
from kilograd.errors import InputError
from kilograd.options import SGD, Loss
from kilograd.search.correction import rows_of
from kilograd.search.foretold import Foretold, foretell
from kilograd.search.kernel import SKETCH, TangentKernel, sketch, tangent_kernel
from kilograd.search.layers import layers_of
from kilograd.search.measure import RATIOS
from kilograd.search.predict import PASS_SAMPLES, train_head
from kilograd.search.scheme import Scheme
from kilograd.search.task import make_task
from tests.search.networks import CLASSES, FEATURES, bench, blobs, perceptron

HALF = Fraction(1, 2)


def gradients(model, x, y, trained):
    """Of each sample's loss, [samples, numbers]; `trained` maps the names of parameters to the
    slices of their gradients.
    """
    rows, known = [], dict(model.named_parameters())
    for sample, label in zip(x, y, strict=True):
        logits = model(torch.tensor(sample[None]))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([label]))
        found = torch.autograd.grad(loss, [known[name] for name in trained])
        parts = [g[part].reshape(-1) for g, part in zip(found, trained.values(), strict=True)]
        rows.append(torch.cat(parts).numpy())
    return np.stack(rows)


def sum_of(kernel, scheme):
    """The kernel of all that a scheme trains, part by part."""
    paths = kernel.layers.paths[len(kernel.layers.paths) - scheme.biases :]
    parts = [kernel.biases[path] for path in paths]
    parts += [kernel.weights[path, ratio] for path, ratio in scheme.weights]
    return sum(parts, kernel.head)


def gain_of(place, kernel, rates):
    return float(place.gains(kernel[None], rates)[0])


def kernel_of(name, **options):
    torch.manual_seed(0)
    model, example = zoo.create(name, **options)
    model.eval()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, *example.shape[1:])).astype(np.float32)
    y = np.arange(6) % 5
    network = prepare(model, example)
    layers = layers_of(network.folded)
    conv = layers.body[1]
    orders = {conv.path: tuple(reversed(range(conv.channels)))}
    found = tangent_kernel(
        network.folded, network.ports, Loss.CROSS_ENTROPY, layers, (x, y),
        ratios=RATIOS, orders=orders,
    )  # fmt: skip
    return model, layers, found, x, y


@pytest.mark.parametrize("name", ["lenet", "resnet8"])
def test_kernels_are_inner_products_of_pytorchs_gradients(name):
    model, layers, found, x, y = kernel_of(name)
    folded = optimization.fuse(model) if name == "resnet8" else model
    conv, head = layers.body[1], layers.head
    last = conv.channels - conv.count(HALF)
    trained = {f"{head.path}.weight": ..., f"{head.path}.bias": ...}
    trained |= {f"{layer.path}.bias": ... for layer in layers.body[1:]}
    # The better half, by an order that starts at the last channel.
    trained[f"{conv.path}.weight"] = (slice(None), slice(last, None))
    rows = gradients(folded, x, y, trained)
    kernel = sum_of(found, Scheme.of(len(layers.body) - 1, {conv.path: HALF}))
    np.testing.assert_allclose(kernel, rows @ rows.T, rtol=2e-3, atol=1e-5)
    with torch.no_grad():
        logits = model(torch.tensor(x))
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(y), reduction="none")
    np.testing.assert_allclose(found.losses, losses.numpy(), rtol=1e-4)


def test_a_step_on_one_sample_moves_the_losses_of_all_by_the_kernel():
    model, layers, found, x, y = kernel_of("lenet")
    whole = {layer.path: Fraction(1) for layer in layers.body}
    kernel = sum_of(found, Scheme.of(len(layers.body), whole))
    model = model.double()
    inputs, labels, rate = torch.tensor(x, dtype=torch.float64), torch.tensor(y), 1e-5

    def losses():
        return torch.nn.functional.cross_entropy(model(inputs), labels, reduction="none")

    before = losses()
    before[2].backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= rate * parameter.grad
    fallen = (before - losses()).detach().numpy() / rate
    size = np.sqrt(kernel[2, 2] * np.diag(kernel))
    assert np.all(np.abs(fallen - kernel[:, 2]) < 0.1 * size)  # sketches of the linear layers
    assert abs(fallen[2] - kernel[2, 2]) < 0.05 * kernel[2, 2]


def test_sketches_keep_inner_products():
    rng = np.random.default_rng(0)
    short = rng.standard_normal((3, SKETCH // 3)).astype(np.float32)
    assert np.array_equal(sketch(short), short.ravel())
    a, b = rng.standard_normal((2, 40, 5 * SKETCH + 7)).astype(np.float32)
    b += 0.3 * a
    of_a, of_b = (np.stack([sketch(row) for row in rows]) for rows in (a, b))
    assert of_a.shape == (40, SKETCH)
    exact, kept = (a * b).sum(axis=1), (of_a * of_b).sum(axis=1)
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    errors = (kept - exact) / scale
    assert abs(errors.mean()) < 0.01 and 0 < errors.std() < 0.03
    # Two outputs of many are reached, as behind a ReLU: a few columns of a matrix.
    columns = np.zeros((40, 256, 1024), np.float32)
    columns[:, :, [3, 515]] = rng.standard_normal((40, 256, 2))
    squares = np.array([np.square(sketch(row)).sum() for row in columns])
    errors = squares / np.square(columns).sum(axis=(1, 2)) - 1
    assert abs(errors.mean()) < 0.02 and errors.std() < 0.05


def alone(losses, kernel):
    return TangentKernel(None, np.array(losses), np.array(kernel), {}, {})


def test_gains_are_logarithms_of_determinants_and_long_steps_are_cut():
    kernel = np.array([[2.0, 1.0], [1.0, 2.0]])
    place = alone([0.5, 1.5], kernel)  # the mean loss is 1, the mean squared norm 2
    rates = np.array([0.1, 0.3])
    scale = 0.4 / 2
    expected = np.log((1 + 3 * scale) * (1 + scale)) / 2  # eigenvalues 3 and 1
    assert gain_of(place, kernel, rates) == pytest.approx(expected)
    at_most = gain_of(place, kernel, np.array([0.5, 0.5]))
    assert gain_of(place, kernel, np.array([0.7, 90.0])) == pytest.approx(at_most)
    assert gain_of(place, kernel, np.array([0.4, 90.0])) < at_most


def test_what_only_moves_one_way_takes_from_the_others():
    base, large = 20 * np.eye(4), 1e4 * np.ones((4, 4))
    place, rates = alone(np.ones(4), base), np.full(50, 0.01)
    assert gain_of(place, base + large, rates) < gain_of(place, base, rates)
    assert gain_of(place, 2 * base, rates) > gain_of(place, base, rates)
    assert gain_of(place, base + 0.01 * large, rates[:1]) > 0


def test_predictions_follow_from_the_kernel(tmp_path):
    network, layers, place = bench(tmp_path)
    head = train_head(network, place, layers)
    found = foretell(network, head, layers, place.rates, {}).contributions("net")
    assert found.method == "fast" and found.head.mean > 0
    assert found.biases[0].mean == 0 and found.biases[1].mean > 0
    assert set(found.weights) == {(p, r) for p in layers.paths for r in RATIOS}
    assert all(gain.runs == 0 for gain in found.weights.values())
    assert found.weights["fc1", Fraction(1)].mean > found.weights["fc1", Fraction(1, 8)].mean
    kernel = tangent_kernel(
        network.folded, network.ports, network.loss, layers_of(network.folded), head.split,
        ratios=RATIOS, parameters=head.parameters,
    )  # fmt: skip
    plain, more = Scheme(1), Scheme.of(1, {"fc1": HALF})
    by_hand = [gain_of(kernel, sum_of(kernel, scheme), place.rates) for scheme in (plain, more)]
    expected = (1 - head.reached.accuracy) * (by_hand[1] - by_hand[0])
    assert found.weights["fc1", HALF].mean == pytest.approx(expected)
    learned = kernel.losses.mean()
    fresh = tangent_kernel(
        network.folded, network.ports, network.loss, layers_of(network.folded), head.split,
        ratios=RATIOS,
    )  # fmt: skip
    assert learned < fresh.losses.mean()  # the head was trained
    with pytest.raises(InputError, match="the head alone diverged at lr="):
        worse = {name: array * np.nan for name, array in head.parameters.items()}
        broken = replace(head, parameters=worse)
        foretell(network, broken, layers, place.rates, {}).contributions("net")


def test_gains_of_whole_schemes_are_of_the_kernel_of_all_they_train():
    """Those of many at once, in any order of the options, as of each; they are no sums."""
    _, layers, kernel, _, _ = kernel_of("lenet")
    rates = np.full(2000, 0.1)
    place = Foretold(kernel, rates, reached=0.6)
    options = [(path, ratio) for ratio in reversed(RATIOS) for path in layers.paths]
    count = len(layers.body)
    schemes = [Scheme(k) for k in range(count + 1)]
    schemes += [Scheme.of(count, {path: ratio}) for path, ratio in options]
    schemes += [Scheme.of(count, dict.fromkeys(layers.paths, ratio)) for ratio in RATIOS]
    schemes *= 20  # more than are in memory at a time
    found = place.gains(*rows_of(schemes, options), options)
    head = gain_of(kernel, kernel.head, rates)
    each = [0.4 * (gain_of(kernel, sum_of(kernel, scheme), rates) - head) for scheme in schemes]
    np.testing.assert_allclose(found, each, rtol=1e-9, atol=1e-12)
    table = place.contributions("net")
    whole = Scheme.of(count, dict.fromkeys(layers.paths, Fraction(1)))
    together = place.gains(*rows_of([whole], options), options)[0]
    assert 0 < together < 0.9 * whole.gain(table)
    assert Scheme(count).gain(table) == pytest.approx(found[count])


def test_few_samples_are_of_all_classes(tmp_path):
    order = np.argsort(blobs(600)[1], kind="stable")
    x, y = (array[order] for array in blobs(600))
    task = make_task((x, y), shape=(FEATURES,), classes=CLASSES, samples=300)
    network, layers, place = bench(tmp_path, task=task)
    _, labels = train_head(network, place, layers).split
    assert len(labels) == PASS_SAMPLES
    assert np.ptp(np.bincount(labels)) <= 1


@pytest.mark.parametrize("head", ["float32", "int8"])
def test_gains_of_int8_networks_are_foretold(tmp_path, head):
    x, _ = blobs()
    network = prepare(
        perceptron(tmp_path / "net.onnx"), precision="int8", calibration=x, head=head,
        optimizer=SGD(lr=0.05),
    )  # fmt: skip
    layers = layers_of(network.forward)
    _, _, place = bench(tmp_path, trainer=network, network=network.inputs)
    trained = train_head(network, place, layers)
    found = foretell(network, trained, layers, place.rates, {}).contributions("net")
    assert found.weights["fc1", Fraction(1)].mean > 0


def test_a_network_that_knows_everything_has_nothing_to_gain():
    assert gain_of(alone(np.zeros(3), np.eye(3)), np.eye(3), np.ones(9)) == 0
    assert gain_of(alone(np.ones(3), np.zeros((3, 3))), np.zeros((3, 3)), np.ones(9)) == 0
