"""Reference networks in PyTorch, which the compiler is tested and measured on.

    model, example_input = zoo.create("resnet8", num_classes=10, seed=0)

Importing this package needs PyTorch; nothing else in kilograd imports it.
"""

from kilograd.errors import InputError

try:
    import torch as _torch
except ImportError as error:
    raise InputError(
        "kilograd.zoo needs PyTorch, which is not installed: pip install kilograd[torch] "
        "(or pip install torch==2.13.0)"
    ) from error

del _torch

from kilograd.zoo.bert import Bert  # noqa: E402
from kilograd.zoo.counting import count_macs, count_parameters  # noqa: E402
from kilograd.zoo.dense import MLP, Autoencoder  # noqa: E402
from kilograd.zoo.dscnn import DSCNN  # noqa: E402
from kilograd.zoo.face_detector import FaceDetector  # noqa: E402
from kilograd.zoo.lenet import LeNet5  # noqa: E402
from kilograd.zoo.mobilenet import MobileNetV1  # noqa: E402
from kilograd.zoo.model import ZooModel  # noqa: E402
from kilograd.zoo.registry import create, names  # noqa: E402
from kilograd.zoo.resnet import ResNet8, ResNet18  # noqa: E402
from kilograd.zoo.schemes import (  # noqa: E402
    AnalyticMemory,
    Scheme,
    analytic_memory,
    find_scheme,
    scheme,
    schemes,
)
from kilograd.zoo.senet import SENet  # noqa: E402
from kilograd.zoo.tcn import TCN  # noqa: E402
from kilograd.zoo.tiny_training import TinyNet, mbv2_w035, mcunet_5fps, proxyless_w03  # noqa: E402
from kilograd.zoo.unet import UNet  # noqa: E402
from kilograd.zoo.vgg import VGG16  # noqa: E402

__all__ = [
    "DSCNN",
    "MLP",
    "TCN",
    "VGG16",
    "AnalyticMemory",
    "Autoencoder",
    "Bert",
    "FaceDetector",
    "LeNet5",
    "MobileNetV1",
    "ResNet8",
    "ResNet18",
    "SENet",
    "Scheme",
    "TinyNet",
    "UNet",
    "ZooModel",
    "analytic_memory",
    "count_macs",
    "count_parameters",
    "create",
    "find_scheme",
    "mbv2_w035",
    "mcunet_5fps",
    "names",
    "proxyless_w03",
    "scheme",
    "schemes",
]
