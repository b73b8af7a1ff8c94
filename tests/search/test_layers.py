"""Schemes as update specs, and specs as files."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import kilograd as kg
from kilograd import zoo
from kilograd.compiler import prepare
from kilograd.errors import InputError
from kilograd.search.layers import layers_of
from kilograd.transforms.select import select
from kilograd.update import Chosen, parse, unparse
from kilograd.zoo.schemes import find_scheme


def trained(network, spec):
    origins = {v: t.origin.name for v, t in network.forward.constants.items() if t.origin}
    return {origins[value]: count for value, count in select(network.forward, spec).items()}


def test_biases_are_those_of_the_last_layers_wherever_they_come_from():
    """The biases of ResNet-8 are those of its batch norms, of another name than the layer."""
    model, example = zoo.create("resnet8")
    network = prepare(model, example)
    layers = layers_of(network.forward)
    assert layers.paths[-1] == "blocks.2.conv2.0" and layers.head.path == "classifier"
    spec = layers.spec(2, {"blocks.2.conv1.0": Fraction(1, 4)})
    assert trained(network, spec) == {
        "blocks.2.conv1.0.weight": 8,
        "blocks.2.conv1.1.bias": None,
        "blocks.2.conv2.1.bias": None,
        "classifier.weight": None,
        "classifier.bias": None,
    }


def test_a_scheme_of_the_paper_is_the_spec_of_the_zoo():
    model, example = zoo.create("mcunet_5fps", resolution=32, num_classes=4)
    network = prepare(model, example)
    layers = layers_of(network.forward)
    published = find_scheme("mcunet-5fps", "49kb")
    weights = {layers.paths[i]: ratio for i, ratio in published.weights.items() if ratio}
    assert trained(network, layers.spec(published.biases, weights)) == trained(
        network, published.spec()
    )


def test_texts_of_named_channels_read_back():
    spec = parse(["a.*=channels:[3,17]", "b=channels:0.25", "c.bias=full"])
    assert parse(unparse(spec)) == spec
    assert kg.update.channels([3, 17]) == Chosen((3, 17))
    for text in ("a=channels:[]", "a=channels:[1,1]", "a=channels:[-1]", "a=channels:[x]"):
        with pytest.raises(InputError):
            parse([text])


def test_a_scheme_file_is_an_update(tmp_path):
    model, example = zoo.create("lenet")
    path = tmp_path / "scheme.toml"
    path.write_text('update = ["last:1", "features.3.weight=channels:[0,4]"]\n')
    by_file = kg.compile(model, example, update=str(path))
    by_hand = kg.compile(
        model,
        example,
        update=[kg.update.last(1), {"features.3.weight": kg.update.channels([0, 4])}],
    )
    assert by_file.sources == by_hand.sources
    assert kg.compile(model, example, update=path).update == by_file.update
    assert unparse(parse([str(path), "hidden.3.bias=full"])) == [
        *unparse(by_hand.update),
        "hidden.3.bias=full",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the scheme"),
        ("update = [", "is not TOML"),
        ("other = 1", "is no scheme: its key update must be a list of texts"),
        ("update = []", "must be a list of texts"),
        ('update = "all"', "must be a list of texts"),
        ('update = ["first:3"]', "is not understood"),
        ('update = ["other.toml"]', "names no other scheme"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "scheme.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        kg.update.load(path)
    assert str(path) in str(caught.value)


def test_a_network_without_layers_is_refused():
    import torch

    class Scale(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(4))

        def forward(self, x):
            return x * self.scale

    network = prepare(Scale(), np.zeros((1, 4), np.float32))
    with pytest.raises(InputError, match="no convolution or linear layer"):
        layers_of(network.forward)
