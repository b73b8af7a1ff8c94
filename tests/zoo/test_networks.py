"""Shapes, parameters and MACs of the reference networks against published figures."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from kilograd import zoo
from kilograd.errors import InputError
from kilograd.zoo.registry import draw_input

# name: input, output, parameters, MACs. Published: LeNet-5 61,706 parameters; the four of MLPerf
# Tiny from the layers of their Keras code (batch norm counted with its two trained vectors).
SHAPES = {
    "autoencoder": ((1, 640), (1, 640), 267_928, 264_192),
    "bert": ((1, 32), (1, 2), 548_738, 12_599_552),
    "dscnn": ((1, 1, 49, 10), (1, 12), 23_756, 2_656_768),
    "face_detector": ((1, 1, 25, 25), (1, 2), 6_210, 186_584),
    "lenet": ((1, 1, 28, 28), (1, 10), 61_706, 416_520),
    "mbv2_w035": ((1, 3, 128, 128), (1, 1000), 357_448, 16_758_912),
    "mcunet_5fps": ((1, 3, 128, 128), (1, 1000), 630_224, 22_613_504),
    "mlp": ((1, 64), (1, 10), 2_778, 2_720),
    "mobilenetv1_025": ((1, 3, 96, 96), (1, 2), 216_322, 7_489_664),
    "proxyless_w03": ((1, 3, 128, 128), (1, 1000), 423_232, 18_715_904),
    "resnet18": ((1, 3, 32, 32), (1, 10), 11_173_962, 555_422_720),
    "resnet8": ((1, 3, 32, 32), (1, 10), 78_186, 12_501_632),
    "se_net": ((1, 3, 32, 32), (1, 10), 5_812, 319_552),
    "tcn": ((1, 6, 100), (1, 4), 9_764, 944_128),
    "unet": ((1, 3, 32, 32), (1, 2, 32, 32), 14_794, 4_366_336),
    "vgg16": ((1, 3, 32, 32), (1, 10), 14_986_698, 313_463_808),
}


def test_every_name_is_listed() -> None:
    assert zoo.names() == tuple(sorted(SHAPES))


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_shapes_parameters_and_macs(name: str) -> None:
    model, example_input = zoo.create(name)
    input_shape, output_shape, parameters, macs = SHAPES[name]
    assert not model.training
    assert tuple(example_input.shape) == input_shape
    assert tuple(model(example_input).shape) == output_shape
    assert zoo.count_parameters(model) == parameters
    assert zoo.count_macs(model, example_input) == macs


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_seed_decides_everything_and_the_global_state_nothing(name: str) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, first_input = zoo.create(name, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    second, second_input = zoo.create(name, seed=3)
    other, other_input = zoo.create(name, seed=4)
    assert torch.equal(first_input, second_input)
    assert torch.equal(first(first_input), second(second_input))
    assert not torch.equal(first_input, other_input)
    assert not torch.equal(first(first_input), other(first_input))


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_gradients_reach_every_parameter(name: str) -> None:
    model, _ = zoo.create(name)
    torch.manual_seed(0)
    inputs = draw_input(model, 4)
    model(inputs).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_batch_norm_statistics_are_not_the_identity() -> None:
    model, _ = zoo.create("resnet8")
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 7
    for norm in norms:
        assert norm.running_mean is not None and norm.running_var is not None
        assert norm.running_mean.abs().max() > 1e-3
        assert (norm.running_var - 1).abs().max() > 1e-3
        assert norm.momentum == 0.1


def test_options_reach_the_constructor() -> None:
    model, example_input = zoo.create("mcunet_5fps", num_classes=10, resolution=64)
    assert tuple(example_input.shape) == (1, 3, 64, 64)
    assert tuple(model(example_input).shape) == (1, 10)
    tanh, _ = zoo.create("lenet", activation="tanh", pooling="average")
    assert sum(isinstance(module, nn.Tanh) for module in tanh.modules()) == 4


def test_deep_networks_without_batch_norm_keep_their_signal() -> None:
    for name in ("mcunet_5fps", "mbv2_w035", "proxyless_w03"):
        model, example_input = zoo.create(name)
        assert 0.01 < model(example_input).std() < 100, name


def test_unknown_names_and_options_say_what_there_is() -> None:
    with pytest.raises(InputError, match=r"no network 'resnet9'.*resnet8"):
        zoo.create("resnet9")
    with pytest.raises(InputError, match=r"zoo.create\('mlp'\).*depth"):
        zoo.create("mlp", depth=3)
    with pytest.raises(InputError, match=r"attention='flash'.*encoder"):
        zoo.create("bert", attention="flash")
    with pytest.raises(InputError, match="activation is 'relu' or 'tanh'"):
        zoo.create("lenet", activation="gelu")


def test_missing_torch_is_an_input_error_with_a_hint() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from kilograd.errors import InputError\n"
        "try:\n"
        "    import kilograd.zoo\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install kilograd[torch]" in result.stdout
    assert "pip install torch==2.13.0" in result.stdout
