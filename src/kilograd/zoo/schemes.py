"""The published sparse updates of the Tiny Training Engine paper, and its memory model.

Lin et al., "On-Device Training Under 256KB Memory", NeurIPS 2022: for each of its three networks
five schemes, found by an evolutionary search under a memory constraint. A scheme trains the biases
of the last k convolutions, a fraction of the input channels of some weights, and the classifier::

    zoo.scheme("mcunet-5fps", "49kb")        # an update spec, for kilograd.compile(update=...)
    zoo.analytic_memory(model, scheme)       # what the paper's model says that it needs

Convolutions count from the input: the first is 0, then pointwise1, depthwise and pointwise2 of each
block. A scheme names layers, so it fits the network with any number of classes and any resolution.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import nn

from kilograd.errors import InputError
from kilograd.update import Choice, Spec, channels, full, normalise
from kilograd.zoo.tiny_training import TinyNet, mbv2_w035, mcunet_5fps, proxyless_w03

_NETWORKS = {
    "mbv2-w0.35": mbv2_w035,
    "mcunet-5fps": mcunet_5fps,
    "proxyless-w0.3": proxyless_w03,
}

_HALF, _QUARTER, _EIGHTH = (Fraction(1, n) for n in (2, 4, 8))

_Row = tuple[str, int, tuple[int, ...], tuple[Fraction | int, ...]]

# Label, number of biases, convolutions, the fraction of the input channels of each.
_PUBLISHED: Mapping[str, tuple[_Row, ...]] = {
    "mbv2-w0.35": (
        ("49kb", 16, (36, 39, 40, 41, 42, 45, 48, 49),
         (1, 1, 0, _QUARTER, _EIGHTH, _EIGHTH, _EIGHTH, _EIGHTH)),
        ("73kb", 20, (32, 33, 36, 39, 41, 42, 45, 48),
         (_EIGHTH, _HALF, _HALF, 1, _QUARTER, _EIGHTH, _EIGHTH, 1)),
        ("99kb", 25, (27, 30, 33, 36, 39, 42, 45, 48), (1, 1, 1, 1, 1, _EIGHTH, _HALF, 1)),
        ("123kb", 31, (27, 30, 33, 36, 39, 42, 45, 48), (1, 1, 1, 1, 1, _HALF, 1, 1)),
        ("138kb", 34, (27, 30, 33, 36, 39, 42, 45, 48), (1,) * 8),
    ),
    "mcunet-5fps": (
        ("49kb", 20, (23, 24, 27, 30, 33, 39), (0, _QUARTER, _HALF, _HALF, 0, 0)),
        ("74kb", 21, (21, 23, 24, 26, 27, 30), (1, 0, 1, 0, _HALF, 1)),
        ("99kb", 22, (21, 24, 27, 30, 36, 39), (1, 1, 1, 1, _EIGHTH, _QUARTER)),
        ("124kb", 24, (21, 24, 27, 30, 33, 39), (_QUARTER, 1, 1, 1, _HALF, _HALF)),
        ("148kb", 23, (21, 24, 27, 30, 36, 39), (1, 1, 1, 1, 1, _HALF)),
    ),
    "proxyless-w0.3": (
        ("49kb", 21, (39, 42, 44, 45, 50, 51, 54, 57),
         (_QUARTER, 1, 0, 1, 0, _EIGHTH, _QUARTER, _QUARTER)),
        ("74kb", 28, (33, 36, 39, 42, 45, 51, 54, 57),
         (_HALF, _QUARTER, 1, 1, 1, _HALF, _QUARTER, _HALF)),
        ("98kb", 25, (36, 39, 42, 45, 48, 51, 54, 57), (1, _HALF, 1, 1, _QUARTER, _HALF, 1, 1)),
        ("120kb", 32, (36, 39, 42, 45, 48, 51, 54, 57), (1, 1, 1, 1, _HALF, 1, 1, 1)),
        ("148kb", 45, (36, 39, 42, 45, 48, 51, 54, 57), (1,) * 8),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Scheme:
    """A published sparse update of `network`.

    `label` is the memory that the paper gives it, in KiB. Trained are the biases of the last
    `biases` convolutions, of the weight of each convolution in `weights` the first so many of its
    input channels (a fraction; 0 is the bias alone), and the classifier.
    """

    network: str
    label: str
    biases: int
    weights: Mapping[int, Fraction]

    @property
    def label_bytes(self) -> int:
        """The label as a number."""
        return 1024 * int(self.label.removesuffix("kb"))

    def build(self, **options: object) -> TinyNet:
        """The network of this scheme; `options` are those of its constructor in the zoo."""
        return _NETWORKS[self.network](**options)  # type: ignore[arg-type]

    def spec(self) -> Spec:
        """The scheme for `kilograd.compile(update=...)`."""
        with torch.device("meta"):
            names = [name for name, _ in convolutions(self.build())]
        chosen: dict[str, Choice] = {f"{name}.bias": full() for name in names[-self.biases :]}
        for place, fraction in self.weights.items():
            if fraction:
                chosen[f"{names[place]}.weight"] = channels(float(fraction))
        return normalise([chosen, {"classifier.*": full()}])


@dataclass(frozen=True)
class AnalyticMemory:
    """What a scheme needs by the paper's model, in bits by purpose.

    `mask_bits`: one for each output of a convolution whose bias is trained. `bias_bits`: 32 a
    bias. `activation_bits`: the inputs kept for the gradients of weights, int8. `weight_bits`: the
    trained weights, int8. `head_bits`: the classifier's input.
    """

    mask_bits: int
    bias_bits: int
    activation_bits: int
    weight_bits: int
    head_bits: int

    @property
    def bytes(self) -> float:
        """The sum, in bytes."""
        bits = self.mask_bits + self.bias_bits + self.activation_bits + self.weight_bits
        return (bits + self.head_bits) / 8


def schemes() -> tuple[Scheme, ...]:
    """The fifteen published schemes, by network and size."""
    return tuple(
        Scheme(network, label, biases, dict(zip(places, map(Fraction, fractions), strict=True)))
        for network, rows in _PUBLISHED.items()
        for label, biases, places, fractions in rows
    )


def scheme(network: str, label: str) -> Spec:
    """The update spec of one published scheme, such as ("mcunet-5fps", "49kb").

    Networks go by the paper's name or by the zoo's ("mcunet_5fps"). Raises InputError for a scheme
    that is not there.
    """
    return find_scheme(network, label).spec()


def find_scheme(network: str, label: str) -> Scheme:
    """One published scheme as data; see `scheme`."""
    known = [entry for entry in schemes() if _bare(entry.network) == _bare(network)]
    if not known:
        raise InputError(
            f"no published schemes for {network!r}; there are some for {', '.join(_PUBLISHED)}"
        )
    for entry in known:
        if entry.label == label.lower():
            return entry
    raise InputError(
        f"no scheme {label!r} for {known[0].network}; there are "
        f"{', '.join(entry.label for entry in known)}"
    )


def analytic_memory(model: TinyNet, scheme: Scheme) -> AnalyticMemory:
    """The paper's memory model for `scheme` on its network.

    It counts what training adds to inference in the paper's accounting; gradients, the forward
    pass, buffers, alignment and stack are not in it.
    """
    layers = [layer for _, layer in convolutions(model)]
    size, first = model.input_shape[1], len(layers) - scheme.biases
    masks = biases = activations = weights = 0
    for place, layer in enumerate(layers):
        size_in, size = size, -(-size // layer.stride[0])
        if place >= first:
            masks += size**2 * layer.out_channels
            biases += 32 * layer.out_channels
        kept = int(scheme.weights.get(place, Fraction(0)) * layer.in_channels)
        rows = 1 if layer.groups > 1 else layer.out_channels
        activations += 8 * size_in**2 * kept
        weights += 8 * rows * kept * layer.kernel_size[0] ** 2
    return AnalyticMemory(masks, biases, activations, weights, 8 * model.classifier.in_features)


def convolutions(model: TinyNet) -> list[tuple[str, nn.Conv2d]]:
    """The convolutions and their names, in the order of execution, which the schemes count in."""
    return [(n, module) for n, module in model.named_modules() if isinstance(module, nn.Conv2d)]


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
