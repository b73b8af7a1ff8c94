"""What each candidate of an update scheme gains in accuracy: the table that selection chooses from.

A candidate is the biases of the last k layers, or a fraction of one layer's weight on top of the
biases (Lin et al., "On-Device Training Under 256KB Memory", NeurIPS 2022, "contribution analysis").
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from kilograd.errors import InputError
from kilograd.search.layers import Layers

FORMAT = "kilograd contributions 1"


@dataclass(frozen=True)
class Gain:
    """A gain of accuracy, as a fraction in [-1, 1].

    `mean` and `spread` (standard deviation) are over `runs` runs with different seeds.
    """

    mean: float
    spread: float = 0.0
    runs: int = 1


@dataclass(frozen=True)
class Contributions:
    """The measured gains of one network on one task.

    `layers`: paths of the convolution and linear layers from input to output, without the head
    (the last layer). `head`: the accuracy itself when only the head is trained. `biases`: k -> the
    gain of training the head and the biases of the last k layers over the head only; some k may be
    missing (`bias_gain` interpolates). `weights`: (layer, ratio) -> the gain of training the first
    `ratio` of that layer's input channels on top of the biases of all layers from it to the end.
    `method`: how the gains were found ("measured", "quick", "fast").
    """

    network: str
    layers: tuple[str, ...]
    head: Gain
    biases: Mapping[int, Gain]
    weights: Mapping[tuple[str, Fraction], Gain]
    method: str

    def __post_init__(self) -> None:
        """Raise InputError for a table that contradicts itself."""
        if len(set(self.layers)) != len(self.layers):
            raise InputError(f"contributions of {self.network}: a layer is listed twice")
        for k in self.biases:
            if not 0 <= k <= len(self.layers):
                raise InputError(
                    f"contributions of {self.network}: the biases of the last {k} layers, but it "
                    f"has {len(self.layers)}"
                )
        for layer, ratio in self.weights:
            if layer not in self.layers:
                raise InputError(
                    f"contributions of {self.network}: {layer!r} is not among its layers "
                    f"({_some(self.layers)})"
                )
            if not 0 < ratio <= 1:
                raise InputError(
                    f"contributions of {self.network}: {layer!r} has the ratio {ratio}; ratios are "
                    "above 0 and at most 1"
                )
        gains = [self.head, *self.biases.values(), *self.weights.values()]
        if not all(math.isfinite(gain.mean) and math.isfinite(gain.spread) for gain in gains):
            raise InputError(f"contributions of {self.network}: a gain is not a finite number")

    def bias_gain(self, k: int) -> float:
        """The mean gain of the biases of the last `k` layers.

        Between measured k it is interpolated linearly; below the smallest, towards 0 at k = 0;
        above the largest, the largest's.
        """
        known = {0: 0.0} | {k: gain.mean for k, gain in self.biases.items()}
        if k in known:
            return known[k]
        below = max(other for other in known if other < k)
        above = min((other for other in known if other > k), default=None)
        if above is None:
            return known[below]
        return known[below] + (known[above] - known[below]) * (k - below) / (above - below)

    def ratios(self, layer: str) -> tuple[Fraction, ...]:
        """The ratios at which `layer` was measured, ascending."""
        return tuple(sorted(ratio for other, ratio in self.weights if other == layer))

    def distinct(self, layers: Layers) -> Contributions:
        """The table with one ratio, the largest, of those that come to the same number of a layer's
        channels, and so to the same program.
        """
        counts = {layer.path: layer.count for layer in layers.body}
        last = {(path, counts[path](ratio)): ratio for path, ratio in sorted(self.weights)}
        kept = {(path, ratio) for (path, _), ratio in last.items()}
        weights = {option: gain for option, gain in self.weights.items() if option in kept}
        return replace(self, weights=weights)

    def to_json(self) -> str:
        """The table as JSON text, the same for the same table; `from_json` reads it."""
        document = {
            "format": FORMAT,
            "network": self.network,
            "method": self.method,
            "layers": list(self.layers),
            "head": _gain_to_json(self.head),
            "biases": [{"k": k, **_gain_to_json(self.biases[k])} for k in sorted(self.biases)],
            "weights": [
                {
                    "layer": layer,
                    "ratio": str(ratio),
                    **_gain_to_json(self.weights[layer, ratio]),
                }
                for layer in self.layers
                for ratio in self.ratios(layer)
            ],
        }
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Contributions:
        """The table from the text of `to_json`; raises InputError where it is not that."""
        try:
            document = json.loads(text)
            if not isinstance(document, dict) or document.get("format") != FORMAT:
                raise InputError(f'not a table of contributions: its "format" is not "{FORMAT}"')
            return cls(
                network=str(document["network"]),
                layers=tuple(map(str, document["layers"])),
                head=_gain_from_json(document["head"]),
                biases={int(row["k"]): _gain_from_json(row) for row in document["biases"]},
                weights={
                    (str(row["layer"]), Fraction(row["ratio"])): _gain_from_json(row)
                    for row in document["weights"]
                },
                method=str(document["method"]),
            )
        except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise InputError(f"not a table of contributions: {error!r}") from None

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file, whole or not at all."""
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        partial.write_text(self.to_json())
        partial.replace(target)

    @classmethod
    def load(cls, path: str | Path) -> Contributions:
        """The table in a file that `save` wrote; raises InputError naming the file."""
        try:
            return cls.from_json(Path(path).read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read: {error}") from None
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def _gain_to_json(gain: Gain) -> dict[str, Any]:
    return {"mean": gain.mean, "spread": gain.spread, "runs": gain.runs}


def _gain_from_json(row: Mapping[str, Any]) -> Gain:
    return Gain(float(row["mean"]), float(row["spread"]), int(row["runs"]))


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
