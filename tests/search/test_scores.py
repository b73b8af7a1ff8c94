"""Scores against PyTorch's gradients, sample by sample, and the orders that follow from them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.fx.experimental import optimization

from kilograd import zoo
from kilograd.compiler import prepare
from kilograd.options import Loss
from kilograd.search.layers import layers_of
from kilograd.search.predict import PREDICTOR, channel_orders
from kilograd.search.scores import score
from kilograd.transforms.reorder import to_front
from kilograd.transforms.select import named_channels

NETWORKS = {
    "resnet8": ({"num_classes": 4}, ["blocks.0.conv2.0", "blocks.1.skip", "blocks.2.conv1.0"]),
    "mcunet_5fps": (
        {"resolution": 32, "num_classes": 4},
        ["blocks.2.pointwise1", "blocks.2.depthwise", "blocks.12.pointwise2"],
    ),
}


def setting(name):
    torch.manual_seed(0)
    options, paths = NETWORKS[name]
    model, example = zoo.create(name, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    model.eval()
    x = np.random.default_rng(0).standard_normal((5, *example.shape[1:])).astype(np.float32)
    return model, example, paths, (x, np.arange(5) % 4)


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_those_of_pytorch(name):
    """A batch norm behind a convolution is folded, so weights are those of the folded layer."""
    model, example, paths, (x, y) = setting(name)
    network = prepare(model, example)
    layers = layers_of(network.folded)
    found = score(network.folded, network.ports, Loss.CROSS_ENTROPY, layers, (x, y), batch=2)
    assert set(found) == set(layers.paths)
    folded = optimization.fuse(model) if name == "resnet8" else model
    for path in paths:
        module = dict(folded.named_modules())[path]
        inputs, results = [], []
        gradients = []
        fisher_in, fisher_out = 0.0, 0.0

        def keep(module, given, result, inputs=inputs, results=results):
            (value,) = given
            inputs.append(value)
            results.append(result)

        hook = module.register_forward_hook(keep)
        for sample, label in zip(x, y, strict=True):
            inputs.clear()
            results.clear()
            folded.zero_grad()
            logits = folded(torch.tensor(sample[None]))
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor([label]))
            (d_result, d_weight, d_bias) = torch.autograd.grad(
                loss, [results[0], module.weight, module.bias]
            )
            gradients.append((d_weight, d_bias))
            # The contribution of this reader alone: through its own vector-Jacobian product.
            alone = inputs[0].detach().requires_grad_()
            (d_input,) = torch.autograd.grad(module(alone), alone, d_result)
            by_input = (alone * d_input).sum(dim=(0, 2, 3))
            by_output = (results[0] * d_result).sum(dim=(0, 2, 3))
            fisher_in = fisher_in + by_input.square().detach().numpy()
            fisher_out = fisher_out + by_output.square().detach().numpy()
        hook.remove()
        d_weight = torch.stack([g for g, _ in gradients]).mean(0).numpy()
        d_bias = torch.stack([g for _, g in gradients]).mean(0).numpy()
        weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
        axes = (1, 2, 3) if module.groups > 1 else (0, 2, 3)
        ours = found[path]
        close = {"rtol": 2e-3, "atol": 1e-9}
        np.testing.assert_allclose(
            ours.channels["first_order"], np.square(d_weight).sum(axis=axes), **close
        )
        np.testing.assert_allclose(
            ours.channels["taylor"], np.abs(weight * d_weight).sum(axis=axes), **close
        )
        np.testing.assert_allclose(ours.channels["fisher"], fisher_in / (2 * len(x)), **close)
        np.testing.assert_allclose(ours.layer["fisher"], fisher_out.sum() / (2 * len(x)), **close)
        np.testing.assert_allclose(
            ours.channels["magnitude"], np.sqrt(np.square(weight).sum(axis=axes)), **close
        )
        np.testing.assert_allclose(ours.bias["first_order"], np.square(d_bias).sum(), **close)
        np.testing.assert_allclose(ours.bias["taylor"], np.abs(bias * d_bias).sum(), **close)


def test_layers_that_read_the_same_channels_share_an_order():
    model, example, _, split = setting("mcunet_5fps")
    network = prepare(model, example)
    layers = layers_of(network.forward)
    scores = score(network.folded, network.ports, network.loss, layers, split)
    orders = channel_orders(network.forward, layers, scores)
    assert "first_conv" not in orders  # it reads the input of the network
    assert orders["blocks.2.pointwise1"] == orders["blocks.3.pointwise1"]  # a residual stream
    assert orders["blocks.2.depthwise"] == orders["blocks.2.pointwise2"]
    alone = scores["blocks.4.pointwise1"].channels[PREDICTOR]
    if orders["blocks.4.pointwise1"] != orders["blocks.5.pointwise1"]:
        assert orders["blocks.4.pointwise1"][0] == int(alone.argmax())
    for path, order in orders.items():
        assert sorted(order) == list(range(len(order))), path
    # Any ratios of all layers at once can be compiled.
    spec = layers.spec(
        len(layers.body),
        {p: Fraction(1, 2 ** (i % 3 + 1)) for i, p in enumerate(layers.paths[1:])},
        orders,
    )
    to_front(network.forward, named_channels(network.forward, spec))
