"""The tangent kernel against PyTorch's gradients, and the gains that follow from it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from kilograd import zoo
from kilograd.compiler import prepare
from kilograd.options import Loss
from kilograd.search.kernel import SKETCH, TangentKernel, sketch, tangent_kernel
from kilograd.search.layers import layers_of
from kilograd.search.measure import RATIOS
from kilograd.search.predict import predicted
from kilograd.search.scheme import Scheme
from tests.search.networks import bench

NETWORKS = {"lenet5": {}, "dscnn": {"num_classes": 5}}


def gradients(model, x, y, trained):
    """[samples, numbers]; `trained` maps the names of parameters to their input channels or None
    for all.
    """
    rows, known = [], dict(model.named_parameters())
    for sample, label in zip(x, y, strict=True):
        logits = model(torch.tensor(sample[None]))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([label]))
        found = torch.autograd.grad(loss, [known[name] for name in trained])
        parts = []
        for gradient, channels in zip(found, trained.values(), strict=True):
            axis = 0 if gradient.ndim > 1 and gradient.shape[1] == 1 else 1
            whole = gradient if channels is None else gradient.movedim(axis, 0)[channels]
            parts.append(whole.reshape(-1))
        rows.append(torch.cat(parts).numpy())
    return np.stack(rows)


def setting(name):
    torch.manual_seed(0)
    model, example = zoo.create(name, **NETWORKS[name])
    model.eval()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, *example.shape[1:])).astype(np.float32)
    y = np.arange(6) % 5
    network = prepare(model, example)
    layers = layers_of(network.folded)
    return model, network, layers, x, y


def test_kernels_are_inner_products_of_pytorchs_gradients():
    model, network, layers, x, y = setting("lenet5")
    order = {layers.paths[1]: tuple(reversed(range(layers.body[1].channels)))}
    kernel = tangent_kernel(
        network.folded,
        network.ports,
        Loss.CROSS_ENTROPY,
        layers,
        (x, y),
        ratios=RATIOS,
        orders=order,
    )
    second, last = layers.body[1], layers.body[-1]
    half = second.count(Fraction(1, 2))
    scheme = Scheme.of(len(layers.body) - 1, {second.path: Fraction(1, 2), last.path: Fraction(1)})
    trained = {f"{layers.head.path}.weight": None, f"{layers.head.path}.bias": None}
    trained |= {layer.bias.name: None for layer in layers.body[1:]}
    trained |= {second.weight.name: list(order[second.path][:half]), last.weight.name: None}
    rows = gradients(model, x, y, trained)
    sizes = [p.value.type.size for p in (second.weight, last.weight)]
    close = {"rtol": 1e-3, "atol": 1e-6}
    expected = rows @ rows.T
    if max(sizes) > SKETCH:  # inner products are estimates
        norms = np.sqrt(np.diag(expected))
        close = {"rtol": 0, "atol": 0.1 * norms.max() ** 2}
    np.testing.assert_allclose(kernel.of(scheme), expected, **close)
    with torch.no_grad():
        logits = model(torch.tensor(x))
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(y), reduction="none")
    np.testing.assert_allclose(kernel.losses, losses.numpy(), rtol=1e-4)
