"""The published sparse schemes: their memory by the paper's model, and what they train."""

from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from tests.agreement.networks import data_folder

import kilograd as kg
from kilograd import zoo
from kilograd.errors import InputError
from kilograd.transforms.differentiate import differentiate
from kilograd.transforms.select import select

SCHEMES = zoo.schemes()
IDS = [f"{scheme.network}-{scheme.label}" for scheme in SCHEMES]


def module_name(place: int) -> str:
    """The layer that has this index in the published table."""
    if place == 0:
        return "first_conv"
    return f"blocks.{place // 3}.{('pointwise1', 'depthwise', 'pointwise2')[place % 3]}"


@pytest.mark.parametrize("scheme", SCHEMES, ids=IDS)
def test_the_memory_model_gives_the_label(scheme: zoo.Scheme) -> None:
    memory = zoo.analytic_memory(scheme.build(), scheme)
    assert abs(memory.bytes - scheme.label_bytes) < 1024
    assert memory.bytes >= scheme.label_bytes  # labels are rounded down


def test_the_memory_model_by_hand() -> None:
    """MCUNet-5FPS at 49 KB: convolutions 24, 27 and 30 are pointwise1 of blocks 8, 9 and 10, on
    8x8 pixels of 48 channels; masks from 22, the depthwise convolution of block 7, on.
    """
    scheme = zoo.find_scheme("mcunet-5fps", "49kb")
    memory = zoo.analytic_memory(scheme.build(num_classes=3), scheme)
    kept = {24: (12, 144), 27: (24, 192), 30: (24, 240)}
    assert memory.activation_bits == sum(8 * 64 * c for c, _ in kept.values())
    assert memory.weight_bits == sum(8 * c * out for c, out in kept.values())
    assert memory.head_bits == 8 * 160
    large = [160, 48, 144, 144, 48, 192, 192, 48, 240]
    small = [240, 96, 384, 384, 96, 384, 384, 96, 576, 576, 160]
    assert len(large) + len(small) == 20
    assert memory.mask_bits == 8**2 * sum(large) + 4**2 * sum(small)
    assert memory.bias_bits == 32 * (sum(large) + sum(small))


def test_the_memory_model_takes_any_resolution() -> None:
    scheme = zoo.find_scheme("mbv2_w035", "49KB")
    large, small = (
        zoo.analytic_memory(scheme.build(resolution=resolution), scheme) for resolution in (128, 64)
    )
    assert large.mask_bits == 4 * small.mask_bits
    assert large.activation_bits == 4 * small.activation_bits
    assert large.weight_bits == small.weight_bits


@cache
def compiled(network: str) -> tuple[zoo.TinyNet, kg.Program]:
    name = network.replace("-", "_").replace(".", "")
    model, example = zoo.create(name, num_classes=3, resolution=32)
    assert isinstance(model, zoo.TinyNet)
    return model, kg.compile(model, example, update=zoo.scheme(network, "49kb"))


@pytest.mark.parametrize("scheme", SCHEMES, ids=IDS)
def test_a_compiled_scheme_trains_what_the_table_says(scheme: zoo.Scheme) -> None:
    """Names and channels, with another number of classes and another resolution."""
    model, program = compiled(scheme.network)
    choice = select(program.forward, zoo.scheme(scheme.network, scheme.label))
    graphs = differentiate(program.forward, kg.Loss.CROSS_ENTROPY, choice, kg.SGD(), program.ports)
    trained = {
        tensor.origin.name: tensor.origin.part
        for tensor in graphs.train.state.values()
        if tensor.origin
    }
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "groups")}
    last = len(layers) - scheme.biases
    expected = {f"{module_name(place)}.bias": Fraction(1) for place in range(last, len(layers))}
    expected |= {"classifier.weight": Fraction(1), "classifier.bias": Fraction(1)}
    for place, fraction in scheme.weights.items():
        assert place >= last
        if fraction:
            expected[f"{module_name(place)}.weight"] = fraction
    assert set(trained) == set(expected)
    for name, part in trained.items():
        share = Fraction(part.stop, part.whole) if part else Fraction(1)
        assert share == expected[name] and (part is None or part.start == 0)
        if part and name.endswith(".weight"):
            assert part.whole == layers[name.removesuffix(".weight")].in_channels


def test_five_schemes_for_each_of_three_networks() -> None:
    assert len(SCHEMES) == 15
    assert {scheme.network for scheme in SCHEMES} == {"mbv2-w0.35", "mcunet-5fps", "proxyless-w0.3"}
    assert len({(scheme.network, scheme.label) for scheme in SCHEMES}) == 15


def test_what_is_not_published_is_named() -> None:
    with pytest.raises(InputError, match=r"'resnet8'; there are some for mbv2-w0.35, mcunet-5fps"):
        zoo.scheme("resnet8", "49kb")
    with pytest.raises(InputError, match=r"'50kb' for mcunet-5fps; there are 49kb, 74kb, 99kb"):
        zoo.scheme("mcunet-5fps", "50kb")


def test_the_published_example_is_smaller_and_faster_than_the_released_engine():
    """MCUNet-5FPS with the 49 KB scheme: the engine released with the paper takes 252,336 bytes and
    106.4 million instructions.
    """
    path = data_folder() / "models/mcunet-5fps.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path}; set KILOGRAD_DATA")
    model = zoo.mcunet_5fps(num_classes=10, weights=path)
    x = np.random.default_rng(0).uniform(-1, 1, (8, 3, 128, 128)).astype(np.float32)
    program = kg.compile(
        model, x[:1], device="stm32f746", precision="int8", calibration=x,
        update=zoo.scheme("mcunet-5fps", "49kb"),
    )  # fmt: skip
    assert program.memory.sram_bytes < 160_000
    board = program.on_emulator()
    board.train_step(x[0], 1)
    assert board.instructions is not None and board.instructions < 85_000_000
