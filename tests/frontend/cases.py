"""One module per operator that both front ends cover, with the shape of its input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.frontend.networks import Apply, Ids

Case = tuple[nn.Module, tuple[int, ...]]


class Scaled(nn.Module):
    """A parameter per channel that multiplies, one that adds."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3, 1, 1))
        self.offset = nn.Parameter(torch.ones(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain + self.offset


class SelfAttention(nn.Module):
    """Two heads, from linear layers and matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 18)
        self.out = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = (y.view(n, t, 2, 3).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))
        scores = (q @ k.transpose(-2, -1)) / 3**0.5
        y = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(n, t, c)
        return self.out(y)


class MatrixParameter(nn.Module):
    """A matrix product with a parameter in the layout of a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Positions(Ids):
    """Token and position embeddings added; the table of positions may be longer than needed."""

    def __init__(self, length: int, leading: bool = False) -> None:
        super().__init__()
        self.positions = nn.Embedding(length, 6)
        self.leading = leading

    def forward(self, x: Tensor) -> Tensor:
        index = torch.arange(x.shape[1])
        return self.table(x) + self.positions(index[None] if self.leading else index)


class MultiheadAttention(nn.Module):
    """`nn.MultiheadAttention` on the input, and on multiples of it as keys and values."""

    def __init__(self, batch_first: bool = True, factor: float = 1.0, masked: bool = False,
                 need_weights: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=batch_first)
        self.batch_first, self.factor, self.need_weights = batch_first, factor, need_weights
        self.mask = torch.ones(5, 5, dtype=torch.bool).triu(1) if masked else None

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.batch_first else x.transpose(0, 1)
        other = y if self.factor == 1.0 else y * self.factor
        options = {"attn_mask": self.mask, "need_weights": self.need_weights}
        y = torch.relu(self.attention(y, other, other, **options)[0])
        return y if self.batch_first else y.transpose(0, 1)


class Causal(nn.Module):
    """Attention of one head with the future masked as nanoGPT writes it."""

    def __init__(self, number: float = float("-inf")) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 18)
        self.number = number
        self.register_buffer("mask", torch.ones(1, 5, 5).tril() == 0)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        scores = (q @ k.transpose(1, 2)).masked_fill(self.mask, self.number)
        return scores.softmax(-1) @ v


class TimeMajor(nn.Module):
    """Layers on [time, batch, features], and the last time step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = x.permute(1, 0, 2)
        y = y + self.second(F.gelu(self.first(y))) * 0.5
        return y[-1] + (y.softmax(-1) - y)[0]


def encoder(**options: object) -> nn.Module:
    return nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, **options)


def _attended(**options: object) -> nn.Module:
    return Apply(lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1, **options))


def _gated(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


IMAGE = (1, 3, 7, 6)
SIGNAL = (1, 4, 11)
VECTOR = (1, 6)
SEQUENCE = (1, 5, 6)

LAYERS: dict[str, Case] = {
    "conv2d": (nn.Conv2d(3, 5, 3), IMAGE),
    "conv2d_strided": (nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 0)), IMAGE),
    "conv2d_dilated": (nn.Conv2d(3, 5, 3, dilation=(2, 1), padding=2, bias=False), IMAGE),
    "conv2d_same": (nn.Conv2d(3, 5, 4, padding="same"), IMAGE),
    "conv2d_valid": (nn.Conv2d(3, 5, 3, padding="valid"), IMAGE),
    "conv2d_groups": (nn.Conv2d(6, 4, 3, groups=2, padding=1), (1, 6, 5, 5)),
    "conv2d_pointwise": (nn.Conv2d(3, 5, 1), IMAGE),
    "conv2d_one_channel": (nn.Conv2d(1, 1, 3), (1, 1, 5, 5)),
    "depthwise": (nn.Conv2d(3, 3, 3, groups=3, stride=2, padding=1), IMAGE),
    "depthwise_multiplier": (nn.Conv2d(3, 6, 3, groups=3), IMAGE),
    "conv1d": (nn.Conv1d(4, 5, 3, padding=1), SIGNAL),
    "conv1d_strided": (nn.Conv1d(4, 5, 3, stride=2, dilation=2, bias=False), SIGNAL),
    "conv1d_same": (nn.Conv1d(4, 5, 4, padding="same"), SIGNAL),
    "depthwise1d": (nn.Conv1d(4, 4, 3, groups=4, padding=1), SIGNAL),
    "conv_transpose2d": (nn.ConvTranspose2d(3, 5, 3, stride=2), IMAGE),
    "conv_transpose2d_padded": (
        nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 3), padding=1, output_padding=(1, 2), groups=2),
        (1, 4, 4, 5),
    ),
    "conv_transpose2d_dilated": (nn.ConvTranspose2d(3, 2, 3, dilation=2, bias=False), IMAGE),
    "conv_transpose1d": (nn.ConvTranspose1d(4, 3, 4, stride=2, padding=1), SIGNAL),
    "linear": (nn.Linear(6, 4), VECTOR),
    "linear_sequence": (nn.Linear(6, 4, bias=False), SEQUENCE),
    "matmul_parameter": (MatrixParameter(), SEQUENCE),
    "attention": (SelfAttention(), SEQUENCE),
    "batch_norm2d": (nn.BatchNorm2d(3), IMAGE),
    "batch_norm2d_plain": (nn.BatchNorm2d(3, affine=False), IMAGE),
    "batch_norm1d": (nn.BatchNorm1d(6), VECTOR),
    "batch_norm1d_signal": (nn.BatchNorm1d(4), SIGNAL),
    "layer_norm": (nn.LayerNorm(6), SEQUENCE),
    "layer_norm_axes": (nn.LayerNorm((5, 6)), SEQUENCE),
    "layer_norm_plain": (nn.LayerNorm(6, elementwise_affine=False), VECTOR),
    "layer_norm_no_bias": (nn.LayerNorm(6, bias=False), SEQUENCE),
    "group_norm": (nn.GroupNorm(2, 6), (1, 6, 5, 4)),
    "group_norm_signal": (nn.GroupNorm(2, 4, affine=False), SIGNAL),
    "instance_norm": (nn.InstanceNorm2d(3, affine=True), IMAGE),
    "max_pool2d": (nn.MaxPool2d(2), IMAGE),
    "max_pool2d_padded": (nn.MaxPool2d((3, 2), stride=2, padding=1), IMAGE),
    "max_pool2d_dilated": (nn.MaxPool2d(2, stride=1, dilation=2), IMAGE),
    "max_pool2d_ceil": (nn.MaxPool2d(3, stride=2, ceil_mode=True), (1, 2, 8, 7)),
    "max_pool2d_large": (nn.MaxPool2d(17), (1, 1, 34, 17)),
    "max_pool1d": (nn.MaxPool1d(3, stride=2, padding=1), SIGNAL),
    "avg_pool2d": (nn.AvgPool2d(2), IMAGE),
    "avg_pool2d_padded": (nn.AvgPool2d(3, stride=2, padding=1), IMAGE),
    "avg_pool2d_unpadded": (nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), IMAGE),
    "avg_pool2d_ceil": (nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True), (1, 2, 8, 7)),
    "avg_pool1d": (nn.AvgPool1d(3, stride=2), SIGNAL),
    "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d((3, 2)), (1, 3, 6, 6)),
    "global_avg_pool2d": (nn.AdaptiveAvgPool2d(1), IMAGE),
    "global_avg_pool1d": (nn.AdaptiveAvgPool1d(1), SIGNAL),
    "global_max_pool2d": (nn.AdaptiveMaxPool2d(1), IMAGE),
    "upsample": (nn.Upsample(scale_factor=2), IMAGE),
    "upsample_size": (nn.Upsample(size=(14, 18)), IMAGE),
    "upsample_signal": (nn.Upsample(scale_factor=3), SIGNAL),
    "dropout": (nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 2), nn.Dropout(0.1)), VECTOR),
    "identity": (nn.Sequential(nn.Identity(), nn.ReLU(), nn.Identity()), VECTOR),
}

ACTIVATIONS: dict[str, Case] = {
    "relu": (nn.ReLU(), IMAGE),
    "relu_in_place": (nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True)), VECTOR),
    "relu6": (nn.ReLU6(), IMAGE),
    "hardtanh": (nn.Hardtanh(-0.5, 0.7), VECTOR),
    "clamp": (Apply(lambda x: x.clamp(-0.3, 0.4)), VECTOR),
    "clamp_min": (Apply(lambda x: x.clamp(min=-0.3)), VECTOR),
    "leaky_relu": (nn.LeakyReLU(0.2), VECTOR),
    "hardswish": (nn.Hardswish(), IMAGE),
    "hardsigmoid": (nn.Hardsigmoid(), VECTOR),
    "sigmoid": (nn.Sigmoid(), VECTOR),
    "tanh": (nn.Tanh(), VECTOR),
    "silu": (nn.SiLU(), IMAGE),
    "gelu": (nn.GELU(), SEQUENCE),
    "gelu_tanh": (nn.GELU(approximate="tanh"), SEQUENCE),
    "elu": (nn.ELU(0.7), VECTOR),
    "softmax": (nn.Softmax(-1), SEQUENCE),
    "softmax_channels": (nn.Softmax(1), IMAGE),
    "softmax_rows": (nn.Softmax(2), IMAGE),
    "softmax_signal": (nn.Softmax(1), SIGNAL),
    "log_softmax": (nn.LogSoftmax(1), VECTOR),
    "log_softmax_channels": (nn.LogSoftmax(1), IMAGE),
    "exp": (Apply(torch.exp), VECTOR),
    "log": (Apply(lambda x: (x.abs() + 1.0).log()), VECTOR),
    "sqrt": (Apply(lambda x: (x.abs() + 0.5).sqrt()), VECTOR),
    "neg": (Apply(lambda x: -x), VECTOR),
    "erf": (Apply(torch.erf), VECTOR),
    "square": (Apply(lambda x: x**2), VECTOR),
    "power": (Apply(lambda x: x.abs() ** 1.5), VECTOR),
    "reciprocal": (Apply(lambda x: 1.0 / (x.abs() + 1.0)), VECTOR),
}

ARITHMETIC: dict[str, Case] = {
    "add": (Apply(lambda x: x + torch.relu(x)), IMAGE),
    "sub": (Apply(lambda x: x - torch.relu(x)), IMAGE),
    "mul": (Apply(_gated), IMAGE),
    "div": (Apply(lambda x: x / (x.abs() + 1.0)), IMAGE),
    "add_scalar": (Apply(lambda x: x + 1.5), VECTOR),
    "rsub_scalar": (Apply(lambda x: 2 - x), VECTOR),
    "mul_scalar": (Apply(lambda x: 3 * x), IMAGE),
    "div_scalar": (Apply(lambda x: x / 3), IMAGE),
    "parameters": (Scaled(), IMAGE),
    "mean_space": (Apply(lambda x: x.mean((2, 3))), IMAGE),
    "mean_space_kept": (Apply(lambda x: x.mean((-1, -2), keepdim=True)), IMAGE),
    "mean_signal": (Apply(lambda x: x.mean(2)), SIGNAL),
    "mean_channels": (Apply(lambda x: x.mean(1, keepdim=True)), IMAGE),
    "mean_apart": (Apply(lambda x: x.mean((1, 3))), IMAGE),
    "sum_apart": (Apply(lambda x: x.sum((1, 3), keepdim=True)), IMAGE),
    "sum_last": (Apply(lambda x: x.sum(-1)), SEQUENCE),
    "max_space": (Apply(lambda x: x.amax((2, 3))), IMAGE),
}

SHAPES: dict[str, Case] = {
    "flatten": (nn.Flatten(), IMAGE),
    "flatten_part": (nn.Flatten(2), IMAGE),
    "view": (Apply(lambda x: x.view(x.size(0), -1)), IMAGE),
    "reshape": (Apply(lambda x: x.reshape(x.shape[0], 6, -1)), IMAGE),
    "permute": (Apply(lambda x: x.permute(0, 2, 3, 1)), IMAGE),
    "transpose": (Apply(lambda x: x.transpose(1, 2)), SEQUENCE),
    "squeeze": (Apply(lambda x: x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1)), IMAGE),
    "unsqueeze": (Apply(lambda x: x.unsqueeze(1) * 2), VECTOR),
    "cat": (Apply(lambda x: torch.cat([x, x * 2, torch.relu(x)], 1)), IMAGE),
    "cat_last": (Apply(lambda x: torch.cat([x, -x], -1)), SEQUENCE),
    "stack": (Apply(lambda x: torch.stack([x, -x], 1)), VECTOR),
    "slice": (Apply(lambda x: x[:, 1:, :-1]), IMAGE),
    "slice_step": (Apply(lambda x: x[:, :, ::2, 1::2]), IMAGE),
    "select": (Apply(lambda x: x[:, -1]), SEQUENCE),
    "chunk": (Apply(lambda x: x.chunk(2, 1)[1] * x.chunk(2, 1)[0]), (1, 4, 5, 5)),
    "split": (Apply(lambda x: torch.split(x, [1, 3], 1)[1]), SIGNAL),
    "pad": (Apply(lambda x: F.pad(x, (1, 2, 0, 1), value=0.5)), IMAGE),
    "pad_module": (nn.ZeroPad2d((1, 0, 2, 1)), IMAGE),
    "contiguous": (Apply(lambda x: x.permute(0, 2, 1).contiguous().clone() + 1), SEQUENCE),
}

TOKENS = (1, 5)
HEADS = (1, 2, 5, 6)

ATTENTION: dict[str, Case] = {
    "embedding": (Ids(), TOKENS),
    "embedding_of_pictures": (Ids(), (1, 2, 3)),
    "embedding_layers": (Ids(nn.Sequential(nn.Linear(6, 4), nn.GELU())), TOKENS),
    "embedding_first": (Apply(lambda x: x[:, 0]), SEQUENCE),
    "positions": (Positions(5), TOKENS),
    "positions_leading": (Positions(5, leading=True), TOKENS),
    "positions_of_a_longer_table": (Positions(9), TOKENS),
    "positions_of_a_longer_table_leading": (Positions(9, leading=True), TOKENS),
    "multihead": (MultiheadAttention(), SEQUENCE),
    "multihead_time_major": (MultiheadAttention(batch_first=False), SEQUENCE),
    "multihead_masked": (MultiheadAttention(masked=True), SEQUENCE),
    "multihead_weights": (MultiheadAttention(need_weights=True), SEQUENCE),
    "multihead_weights_masked": (MultiheadAttention(False, 1.0, True, True), SEQUENCE),
    "encoder_norm_first": (
        Ids(nn.TransformerEncoder(encoder(activation="gelu", norm_first=True), 1)),
        TOKENS,
    ),
    "encoder": (Ids(nn.TransformerEncoder(encoder(), 2, enable_nested_tensor=False)), TOKENS),
    "sdpa": (_attended(), HEADS),
    "sdpa_scaled": (_attended(scale=0.3), HEADS),
    "sdpa_causal": (_attended(is_causal=True), HEADS),
    "sdpa_kept": (_attended(attn_mask=torch.ones(5, 5).tril() > 0), HEADS),
    "sdpa_biased": (_attended(attn_mask=torch.linspace(-1, 1, 25).reshape(5, 5)), HEADS),
    "masked_fill": (Causal(), SEQUENCE),
    "masked_fill_number": (Causal(-3.0), SEQUENCE),
    "time_major": (TimeMajor(), SEQUENCE),
}

CASES = {**ATTENTION, **LAYERS, **ACTIVATIONS, **ARITHMETIC, **SHAPES}
