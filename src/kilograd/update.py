"""What to train, as data: everything, the last layers, the last biases, chosen parameters, or any
mixture.

    update=kg.update.all()
    update=kg.update.last(2)      # the last two layers, weights and biases
    update=kg.update.biases(20)   # the last twenty biases
    update={"blocks.8.*": kg.update.channels(0.25), "fc.bias": kg.update.none()}
    update=[kg.update.biases(20), {"blocks.8.pointwise1": kg.update.channels(0.5)}]
    update="scheme.toml"          # as `kilograd search` writes it

The entries of a list, and of a mapping, are applied in order; a later one overrides an earlier one.
"""

from __future__ import annotations

import builtins
import numbers
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kilograd.errors import InputError

SCHEME_SUFFIX = ".toml"


@dataclass(frozen=True)
class Full:
    """Train the matched parameters whole."""


@dataclass(frozen=True)
class Bias:
    """Train the biases among the matched parameters."""


@dataclass(frozen=True)
class Channels:
    """Train the first `fraction` of the input channels of the matched weights, and the matched
    biases whole.
    """

    fraction: float


@dataclass(frozen=True)
class Chosen:
    """Train the input channels `indices` of the matched weights, and the matched biases whole."""

    indices: tuple[int, ...]


@dataclass(frozen=True)
class Frozen:
    """Do not train the matched parameters."""


Choice = Full | Bias | Channels | Chosen | Frozen


@dataclass(frozen=True)
class All:
    """Train every parameter."""


@dataclass(frozen=True)
class Last:
    """Train the last `layers` layers that have parameters, weights and biases."""

    layers: int


@dataclass(frozen=True)
class Biases:
    """Train the last `count` biases, or all of them where it is None."""

    count: int | None = None


@dataclass(frozen=True)
class Patterns:
    """Pairs of a pattern and a choice; shell wildcards match parameter names and layer names."""

    entries: tuple[tuple[str, Choice], ...]


@dataclass(frozen=True)
class Mixture:
    """Several specs, applied in order."""

    members: tuple[Spec, ...]


Spec = All | Last | Biases | Patterns | Mixture
SpecLike = Spec | str | Path | Mapping[str, Choice] | Sequence["SpecLike"]


def all() -> All:
    """Train every parameter."""
    return All()


def _is_count(number: object) -> bool:
    whole = isinstance(number, numbers.Integral) and not isinstance(number, bool)
    return whole and number >= 0  # type: ignore[operator]


def last(layers: int) -> Last:
    """Train the last `layers` layers that have parameters, in execution order.

    Raises InputError for a number that is not whole, or negative.
    """
    if not _is_count(layers):
        raise InputError(
            f"update.last({layers!r}): the number of layers must be whole, not negative"
        )
    return Last(layers)


def biases(count: int | None = None) -> Biases:
    """Train the last `count` biases in execution order, or all of them.

    Raises InputError for a number that is not whole, or negative.
    """
    if count is not None and not _is_count(count):
        raise InputError(
            f"update.biases({count!r}): the number of biases must be whole, not negative"
        )
    return Biases(count)


def full() -> Full:
    """Train the matched parameters whole."""
    return Full()


def bias() -> Bias:
    """Train only the biases among the matched parameters."""
    return Bias()


def channels(fraction: float | Sequence[int]) -> Channels | Chosen:
    """Train the first `fraction` (0 to 1) of the input channels of the matched weights, and their
    biases; or the channels with these indices.

    Zero means biases only. At least one channel is trained when the fraction is above zero.
    Channels that are named are brought to the front when the network is compiled. Raises InputError
    for a fraction outside 0 to 1, and for indices that are no different whole numbers from 0.
    """
    if isinstance(fraction, Sequence) and not isinstance(fraction, str):
        indices = tuple(fraction)
        whole = builtins.all(map(_is_count, indices))
        if not indices or not whole or len(set(indices)) != len(indices):
            raise InputError(
                f"update.channels({list(indices)!r}): name different channels, counted from 0"
            )
        return Chosen(tuple(map(int, indices)))
    if not isinstance(fraction, numbers.Real) or not 0 <= fraction <= 1:
        raise InputError(f"update.channels({fraction!r}): the fraction must be between 0 and 1")
    return Channels(fraction)


def none() -> Frozen:
    """Do not train the matched parameters."""
    return Frozen()


def normalise(spec: SpecLike) -> Spec:
    """A spec from what users may write; raises InputError for anything else."""
    if isinstance(spec, All | Last | Biases | Patterns | Mixture):
        return spec
    if isinstance(spec, Path) or (isinstance(spec, str) and spec.endswith(SCHEME_SUFFIX)):
        return load(spec)
    if isinstance(spec, Mapping):
        for pattern, choice in spec.items():
            if not isinstance(pattern, str) or not isinstance(
                choice, Full | Bias | Channels | Chosen | Frozen
            ):
                raise InputError(
                    f"update: {pattern!r}: {choice!r} is not a pattern and one of update.full(), "
                    "update.bias(), update.channels(fraction), update.none()"
                )
        return Patterns(tuple(spec.items()))
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        return Mixture(tuple(normalise(member) for member in spec))
    raise InputError(
        f"update={spec!r} is not understood; use kg.update.all(), last(k), biases(k), a "
        "mapping from "
        "parameter patterns to choices, the path of a .toml file, or a list of these"
    )


def parse(texts: Sequence[str]) -> Spec:
    """A spec from command-line texts, applied in order.

    `all`, `last:2`, `biases`, `biases:20`, the path of a scheme (`.toml`), or `PATTERN=CHOICE` with
    the choices `full`, `bias`, `none`, `channels:0.25` and `channels:[3,17]`. Raises InputError for
    any other text.
    """
    return Mixture(tuple(_parse_one(text) for text in texts))


def _parse_one(text: str) -> Spec:
    choices: dict[str, Choice] = {"full": Full(), "bias": Bias(), "none": Frozen()}
    head, _, number = text.partition(":")
    if text.endswith(SCHEME_SUFFIX) and "=" not in text:
        return load(text)
    try:
        if "=" in text:
            pattern, _, choice = text.partition("=")
            kind, _, fraction = choice.partition(":")
            if kind == "channels":
                return Patterns(((pattern, _parse_channels(fraction)),))
            return Patterns(((pattern, choices[choice]),))
        if text == "all":
            return All()
        if head == "last":
            return last(int(number))
        if head == "biases":
            return biases(int(number) if number else None)
    except (ValueError, KeyError):
        pass
    raise InputError(
        f"--update {text!r} is not understood; write all, last:2, biases, biases:20, or "
        "PATTERN=CHOICE with "
        "the choices full, bias, none and channels:0.25"
    )


def _parse_channels(text: str) -> Channels | Chosen:
    if text.startswith("[") and text.endswith("]"):
        return channels([int(index) for index in text[1:-1].split(",")])
    return channels(float(text))


def load(path: str | Path) -> Spec:
    """The spec in a scheme file: TOML whose key `update` is a list of texts as `parse` takes them.

    `kilograd search` writes such files. Raises InputError, naming the file, for any other.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the scheme {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    texts = content.get("update")
    if not isinstance(texts, list) or not texts or not {type(text) for text in texts} <= {str}:
        raise InputError(
            f"{path} is no scheme: its key update must be a list of texts, as in "
            'update = ["biases:20", "blocks.8.*=channels:0.25"]'
        )
    for text in texts:
        if text.endswith(SCHEME_SUFFIX) and "=" not in text:
            raise InputError(f"{path}: a scheme names no other scheme ({text})")
    try:
        return parse(texts)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def entries(spec: Spec) -> list[Spec]:
    """The entries of a spec, one decision each, in the order in which they apply."""
    if isinstance(spec, Mixture):
        return [entry for member in spec.members for entry in entries(member)]
    if isinstance(spec, Patterns):
        return [Patterns((entry,)) for entry in spec.entries]
    return [spec]


def unparse(spec: Spec) -> list[str]:
    """The command-line texts of a spec: `parse(unparse(spec))` trains the same."""
    return [_unparse_one(entry) for entry in entries(spec)]


def _unparse_one(entry: Spec) -> str:
    if isinstance(entry, Last):
        return f"last:{entry.layers}"
    if isinstance(entry, Biases):
        return "biases" if entry.count is None else f"biases:{entry.count}"
    if isinstance(entry, Patterns):
        ((pattern, choice),) = entry.entries
        if isinstance(choice, Channels):
            return f"{pattern}=channels:{float(choice.fraction)!r}"
        if isinstance(choice, Chosen):
            return f"{pattern}=channels:[{','.join(map(str, choice.indices))}]"
        return f"{pattern}={({Full: 'full', Bias: 'bias', Frozen: 'none'})[type(choice)]}"
    return "all"
