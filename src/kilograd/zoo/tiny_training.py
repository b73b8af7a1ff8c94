"""The three networks of the Tiny Training Engine paper, batch norm folded into convolutions.

Lin et al., "On-Device Training Under 256KB Memory", NeurIPS 2022; architectures as released in
mit-han-lab/tiny-training. A block is the inverted residual of MobileNetV2 (Sandler et al., 2018)::

    x - pointwise1 - ReLU6 - depthwise - ReLU6 - pointwise2 - (+ x where the shapes agree)

and the network: first_conv (3x3, stride 2, 16 channels) - ReLU6 - blocks - mean over pixels -
classifier. Input 3 x 128 x 128, `(pixel - 127.5) / 127.5`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kilograd.errors import InputError
from kilograd.zoo.model import ZooModel

# One block: expansion, output channels, kernel size, stride. Expansion 1 has no pointwise1.
_Block = tuple[int, int, int, int]

_MCUNET_5FPS: Sequence[_Block] = (
    (1, 8, 3, 1),
    (4, 16, 3, 2),
    (3, 16, 3, 1),
    (3, 24, 7, 2),
    (5, 24, 3, 1),
    (5, 40, 3, 2),
    (4, 40, 7, 1),
    (4, 48, 5, 1),
    (3, 48, 3, 1),
    (4, 48, 3, 1),
    (5, 96, 7, 2),
    (4, 96, 5, 1),
    (4, 96, 5, 1),
    (6, 160, 3, 1),
)
_MBV2_W035: Sequence[_Block] = (
    (1, 8, 3, 1),
    (6, 8, 3, 2),
    (6, 8, 3, 1),
    (6, 16, 3, 2),
    *((6, 16, 3, 1),) * 2,
    (6, 24, 3, 2),
    *((6, 24, 3, 1),) * 3,
    *((6, 32, 3, 1),) * 3,
    (6, 56, 3, 2),
    *((6, 56, 3, 1),) * 2,
    (6, 112, 3, 1),
)
_PROXYLESS_W03: Sequence[_Block] = (
    (1, 8, 3, 1),
    (3, 16, 5, 2),
    (3, 16, 3, 1),
    (3, 16, 7, 2),
    (3, 16, 3, 1),
    *((3, 16, 5, 1),) * 2,
    (6, 24, 7, 2),
    *((3, 24, 5, 1),) * 3,
    (6, 32, 5, 1),
    *((3, 32, 5, 1),) * 3,
    (6, 64, 7, 2),
    (6, 64, 7, 1),
    *((3, 64, 7, 1),) * 2,
    (6, 96, 7, 1),
)


class _InvertedResidual(nn.Module):
    """One block; the residual sum is there where the stride is 1 and the widths agree."""

    def __init__(
        self, in_channels: int, out_channels: int, expansion: int, kernel_size: int, stride: int
    ) -> None:
        super().__init__()
        expanded = in_channels * expansion
        self.pointwise1 = nn.Conv2d(in_channels, expanded, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(
            expanded,
            expanded,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=expanded,
        )
        self.pointwise2 = nn.Conv2d(expanded, out_channels, 1)
        self.activation = nn.ReLU6()
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        y: Tensor = x if self.pointwise1 is None else self.activation(self.pointwise1(x))
        y = self.pointwise2(self.activation(self.depthwise(y)))
        return x + y if self.residual else y


class TinyNet(ZooModel):
    """Inverted residuals without batch norm: [N, 3, 128, 128] -> [N, num_classes]."""

    def __init__(self, blocks: Sequence[_Block], num_classes: int, resolution: int) -> None:
        """`resolution` only shapes the example input: the mean over pixels takes any size."""
        super().__init__()
        self.input_shape = (3, resolution, resolution)
        channels = 16
        self.first_conv = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.activation = nn.ReLU6()
        modules: list[nn.Module] = []
        for expansion, out_channels, kernel_size, stride in blocks:
            modules.append(
                _InvertedResidual(channels, out_channels, expansion, kernel_size, stride)
            )
            channels = out_channels
        self.blocks = nn.Sequential(*modules)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(channels, num_classes)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 3, resolution, resolution] to logits [N, num_classes]."""
        y: Tensor = self.classifier(self.pool(self.blocks(self.activation(self.first_conv(x)))))
        return y


def mcunet_5fps(
    num_classes: int = 1000, weights: str | Path | None = None, resolution: int = 128
) -> TinyNet:
    """MCUNet at five frames a second (Lin et al., "MCUNet", NeurIPS 2020): 14 blocks.

    `weights` is a safetensors file with `<layer>.weight` and `<layer>.bias`; the classifier keeps
    its random initialisation where the file has another number of classes.
    """
    return _build(_MCUNET_5FPS, num_classes, weights, resolution)


def mbv2_w035(
    num_classes: int = 1000, weights: str | Path | None = None, resolution: int = 128
) -> TinyNet:
    """MobileNetV2 at width 0.35, without the last 1x1 convolution: 17 blocks; see `mcunet_5fps`."""
    return _build(_MBV2_W035, num_classes, weights, resolution)


def proxyless_w03(
    num_classes: int = 1000, weights: str | Path | None = None, resolution: int = 128
) -> TinyNet:
    """ProxylessNAS (Cai et al., ICLR 2019) at width 0.3: 20 blocks; see `mcunet_5fps`."""
    return _build(_PROXYLESS_W03, num_classes, weights, resolution)


def _build(
    blocks: Sequence[_Block], num_classes: int, weights: str | Path | None, resolution: int
) -> TinyNet:
    model = TinyNet(blocks, num_classes, resolution)
    if weights is not None:
        _load(model, Path(weights))
    return model


def _initialize(model: TinyNet) -> None:
    # He et al. 2015: without batch norm, PyTorch's default makes the signal vanish in 14 blocks.
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, nonlinearity="linear" if name.endswith("pointwise2") else "relu"
            )
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def _load(model: TinyNet, path: Path) -> None:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}") from error
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in tensors:
                raise InputError(f"{path}: no tensor {name!r}, which the network has")
            value = tensors[name]
            is_head = name.startswith("classifier.")
            if is_head and value.shape[0] != parameter.shape[0]:
                continue
            if value.numel() != parameter.numel() or value.shape[0] != parameter.shape[0]:
                raise InputError(
                    f"{path}: {name} has shape {list(value.shape)}, the network's has "
                    f"{list(parameter.shape)}; is this the file of another network?"
                )
            # A classifier may be stored as a 1x1 convolution.
            parameter.copy_(value.reshape(parameter.shape))
