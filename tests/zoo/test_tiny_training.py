"""The networks of the Tiny Training Engine paper against the released weights and layer tables."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from kilograd import zoo
from kilograd.errors import InputError

DATA = Path(os.environ.get("KILOGRAD_DATA", Path(__file__).parents[3] / "shared" / "data"))
FILES: dict[str, tuple[str, Callable[..., zoo.TinyNet]]] = {
    "mcunet_5fps": ("mcunet-5fps", zoo.mcunet_5fps),
    "mbv2_w035": ("mbv2-w0.35", zoo.mbv2_w035),
    "proxyless_w03": ("proxyless-w0.3", zoo.proxyless_w03),
}
needs_data = pytest.mark.skipif(
    not (DATA / "models").is_dir(), reason=f"no data folder {DATA} (set KILOGRAD_DATA)"
)


def description(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((DATA / "models" / f"{FILES[name][0]}.json").read_text())
    return result


def weights(name: str) -> Path:
    return DATA / "models" / f"{FILES[name][0]}.safetensors"


def picture(pixels: np.ndarray) -> torch.Tensor:
    """The central square of an 8-bit picture as [1, 3, 128, 128], normalised for the networks."""
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float()
    side = min(image.shape[2:])
    top, left = ((length - side) // 2 for length in image.shape[2:])
    square = image[:, :, top : top + side, left : left + side]
    small = functional.interpolate(
        square, size=(128, 128), mode="bilinear", antialias=True, align_corners=False
    )
    return (small - 127.5) / 127.5


@needs_data
@pytest.mark.parametrize("name", sorted(FILES))
def test_names_a_cat_and_an_espresso(name: str) -> None:
    data = pytest.importorskip("skimage.data")
    model, _ = zoo.create(name, weights=weights(name))
    with torch.no_grad():
        cat = int(model(picture(data.chelsea())).argmax())
        espresso = int(model(picture(data.coffee())).argmax())
    assert 281 <= cat <= 285
    assert espresso == 967


@needs_data
@pytest.mark.parametrize("name", sorted(FILES))
def test_every_layer_and_residual_is_the_described_one(name: str) -> None:
    described = description(name)
    model = FILES[name][1]()
    assert len(model.blocks) == len(described["blocks"])
    layers = [described["first_conv"], described["classifier"]]
    for module, block in zip(model.blocks, described["blocks"], strict=True):
        assert module.residual == (block["residual"] is not None)
        layers += [
            block[key]
            for key in ("pointwise1", "depthwise", "pointwise2")
            if block[key] is not None
        ]
    convolutions = {
        key: module
        for key, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    assert sorted(convolutions) == sorted(layer["name"] for layer in layers)
    for layer in layers:
        module = convolutions[layer["name"]]
        if isinstance(module, nn.Linear):
            assert (module.in_features, module.out_features) == (
                layer["in_channels"],
                layer["out_channels"],
            )
            continue
        assert module.in_channels == layer["in_channels"]
        assert module.out_channels == layer["out_channels"]
        assert module.kernel_size == (layer["kernel_size"],) * 2
        assert module.stride == (layer["stride"],) * 2
        assert module.groups == layer["groups"]


@needs_data
@pytest.mark.parametrize("name", sorted(FILES))
def test_macs_follow_from_the_described_shapes(name: str) -> None:
    described = description(name)
    layers = [described["first_conv"], described["classifier"]]
    for block in described["blocks"]:
        layers += [block[key] for key in ("pointwise1", "depthwise", "pointwise2") if block[key]]
    expected = sum(
        (layer["out_shape"][0] ** 2 if layer["out_shape"] else 1)
        * layer["out_channels"]
        * layer["kernel_size"] ** 2
        * (layer["in_channels"] // layer["groups"])
        for layer in layers
    )
    assert zoo.count_macs(*zoo.create(name)) == expected


@needs_data
def test_another_number_of_classes_replaces_the_head_only() -> None:
    full = zoo.mcunet_5fps(weights=weights("mcunet_5fps")).state_dict()
    ten = zoo.mcunet_5fps(num_classes=10, weights=weights("mcunet_5fps")).state_dict()
    assert ten["classifier.weight"].shape == (10, 160)
    for key, value in ten.items():
        if not key.startswith("classifier."):
            assert torch.equal(value, full[key]), key


@needs_data
def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(InputError, match="another network"):
        zoo.mcunet_5fps(weights=weights("proxyless_w03"))


def test_five_frames_a_second_is_22_and_a_half_million_macs() -> None:
    # Printed by the released engine for this network with ten classes: 22.5 M.
    assert round(zoo.count_macs(*zoo.create("mcunet_5fps", num_classes=10)) / 1e6, 1) == 22.5


def test_weights_round_trip_through_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = zoo.mbv2_w035(num_classes=5, resolution=32)
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    loaded = zoo.mbv2_w035(num_classes=5, weights=path)
    assert all(
        torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items()
    )


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.safetensors"):
        zoo.mcunet_5fps(weights=tmp_path / "absent.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("not tensors")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        zoo.mcunet_5fps(weights=text)
    state = zoo.mcunet_5fps(num_classes=2).state_dict()
    del state["blocks.3.pointwise1.bias"]
    save_file(state, tmp_path / "short.safetensors")
    with pytest.raises(InputError, match=r"no tensor 'blocks.3.pointwise1.bias'"):
        zoo.mcunet_5fps(weights=tmp_path / "short.safetensors")
