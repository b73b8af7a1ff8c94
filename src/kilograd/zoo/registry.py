"""Networks by name, each with an example input, seeded."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kilograd.errors import InputError
from kilograd.zoo.bert import Bert
from kilograd.zoo.dense import MLP, Autoencoder
from kilograd.zoo.dscnn import DSCNN
from kilograd.zoo.face_detector import FaceDetector
from kilograd.zoo.gallery import Functions, Shapes
from kilograd.zoo.lenet import LeNet5
from kilograd.zoo.mobilenet import MobileNetV1
from kilograd.zoo.model import ZooModel
from kilograd.zoo.resnet import ResNet8, ResNet18
from kilograd.zoo.senet import SENet
from kilograd.zoo.tcn import TCN
from kilograd.zoo.tiny_training import mbv2_w035, mcunet_5fps, proxyless_w03
from kilograd.zoo.unet import UNet
from kilograd.zoo.vgg import VGG16

_NETWORKS: Mapping[str, Callable[..., ZooModel]] = {
    "autoencoder": Autoencoder,
    "bert": Bert,
    "dscnn": DSCNN,
    "face_detector": FaceDetector,
    "lenet": LeNet5,
    "mbv2_w035": mbv2_w035,
    "mcunet_5fps": mcunet_5fps,
    "mlp": MLP,
    "mobilenetv1_025": MobileNetV1,
    "proxyless_w03": proxyless_w03,
    "resnet18": ResNet18,
    "resnet8": ResNet8,
    "se_net": SENet,
    "tcn": TCN,
    "unet": UNet,
    "vgg16": VGG16,
}

_GALLERIES: Mapping[str, Callable[..., ZooModel]] = {"functions": Functions, "shapes": Shapes}
"""For measurements alone: `create` knows them, `names` does not list them."""

_BATCH_NORM_SAMPLES = 16


def names() -> tuple[str, ...]:
    """The networks that `create` knows, sorted."""
    return tuple(sorted(_NETWORKS))


def create(name: str, *, seed: int = 0, **options: Any) -> tuple[ZooModel, Tensor]:
    """Build the network `name` in evaluation mode, and an input for it of batch 1.

    The same seed gives the same parameters and the same input (float32, standard normal, or int64
    token ids, all equally likely); the global random state is left alone. The running statistics of
    batch norm are those of 16 random inputs, so that folding it is not the identity. Options go to
    the network's constructor.

    Raises InputError for a name or an option that does not exist.
    """
    makers = {**_NETWORKS, **_GALLERIES}
    if name not in makers:
        raise InputError(f"no network {name!r} in the zoo; there are {', '.join(names())}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = makers[name](**options)
        except TypeError as error:
            raise InputError(f"zoo.create({name!r}): {error}") from error
        samples = draw_input(model, _BATCH_NORM_SAMPLES)
        if any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in model.modules()):
            _settle_batch_norm(model, samples)
        example_input = draw_input(model, 1)
    return model.eval(), example_input


def draw_input(model: ZooModel, batch: int) -> Tensor:
    """A random input: real numbers, or ids of the network's vocabulary."""
    if model.vocabulary is not None:
        return torch.randint(model.vocabulary, (batch, *model.input_shape))
    return torch.randn(batch, *model.input_shape)


def _settle_batch_norm(model: nn.Module, samples: Tensor) -> None:
    norms = [
        module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # A cumulative mean: one batch gives exactly its own statistics.
    model.train()
    with torch.no_grad():
        model(samples)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
