"""An update scheme: the biases of the last k layers, and fractions of some layers' weights."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from kilograd.errors import InputError
from kilograd.search.layers import Layers
from kilograd.search.table import Contributions
from kilograd.update import Spec, unparse


@dataclass(frozen=True)
class Scheme:
    """The head, the biases of the last `biases` layers, and of the weight of each layer in
    `weights` the first so many of its input channels (a ratio above 0, at most 1).

    A weight is trained on top of the biases from its layer to the end, so every layer in `weights`
    is among the last `biases`.
    """

    biases: int
    weights: tuple[tuple[str, Fraction], ...] = ()

    @staticmethod
    def of(biases: int, weights: Mapping[str, Fraction]) -> Scheme:
        """The scheme with its weights by layer in a fixed order."""
        return Scheme(biases, tuple(sorted(weights.items())))

    def spec(self, layers: Layers) -> Spec:
        """The scheme for `kilograd.compile(update=...)`."""
        self.check(layers)
        return layers.spec(self.biases, dict(self.weights))

    def check(self, layers: Layers) -> None:
        """Raise InputError where the network has no such layers, or a ratio is none."""
        paths = layers.paths
        if not 0 <= self.biases <= len(paths):
            raise InputError(
                f"the scheme trains the biases of the last {self.biases} layers; the network has "
                f"{len(paths)} beside its head"
            )
        for path, ratio in self.weights:
            if path not in paths:
                raise InputError(
                    f"the scheme trains {path!r}; the network's layers are {', '.join(paths)}"
                )
            if not 0 < ratio <= 1:
                raise InputError(
                    f"the scheme trains {ratio} of {path}; a ratio is above 0 and at most 1"
                )
            if layers.biases_from(path) > self.biases:
                raise InputError(
                    f"the scheme trains the weight of {path}, which is not among the last "
                    f"{self.biases} layers, whose biases it trains"
                )

    def gain(self, contributions: Contributions) -> float:
        """The sum of its contributions. Raises InputError for a ratio that was not measured."""
        total = contributions.bias_gain(self.biases)
        for layer, ratio in self.weights:
            if (layer, ratio) not in contributions.weights:
                known = ", ".join(map(str, contributions.ratios(layer))) or "none"
                raise InputError(
                    f"{ratio} of {layer} has no measured contribution; its ratios are {known}"
                )
            total += contributions.weights[layer, ratio].mean
        return total


def write_scheme(path: str | Path, scheme: Scheme, layers: Layers, note: str = "") -> None:
    """Write a scheme as TOML that `update=` takes; whole or not at all.

    The key `update` is what `kilograd.update.load` reads; the table `scheme` says the same in the
    terms of the search, for `read_scheme` and for people. `note` becomes a comment.
    """
    lines = [f"# {line}" for line in note.splitlines()]
    lines += ["update = ["]
    lines += [f"  {json.dumps(text)}," for text in unparse(scheme.spec(layers))]
    lines += ["]", "", "[scheme]", f"biases = {scheme.biases}", "", "[scheme.weights]"]
    weights = dict(scheme.weights)
    lines += [
        f"{json.dumps(path_)} = {json.dumps(str(weights[path_]))}"
        for path_ in layers.paths
        if path_ in weights
    ]
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    try:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        raise InputError(f"cannot write the scheme {path}: {error}") from error


def read_scheme(path: str | Path, layers: Layers) -> Scheme:
    """The scheme in a file of `write_scheme`. Raises InputError, naming the file, for any other,
    and for one that is not for these layers.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))["scheme"]
        weights = {str(k): Fraction(v) for k, v in table.get("weights", {}).items()}
        scheme = Scheme.of(int(table["biases"]), weights)
        scheme.check(layers)
    except OSError as error:
        raise InputError(f"cannot read the scheme {path}: {error}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise InputError(
            f"{path} is no scheme of a search: {error!r}; it needs a table [scheme] with biases = "
            'a number, and [scheme.weights] with lines such as "blocks.8.conv" = "1/4"'
        ) from None
    return scheme
