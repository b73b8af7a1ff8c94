"""What a search found: the scheme, the evidence for it, and the files that tell both."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from kilograd.errors import InputError
from kilograd.planning.costs import with_prefix
from kilograd.planning.front import FrontPoint
from kilograd.search.layers import Layers, Orders
from kilograd.search.scheme import Scheme
from kilograd.search.table import Contributions, Gain
from kilograd.update import Spec, unparse

SCHEME, CONTRIBUTIONS, FRONT = "scheme.toml", "contributions.json", "front.json"
_OF_A_LIMIT = re.compile(r"scheme-\d+\.toml")


@dataclass(frozen=True)
class Point:
    """A scheme and what it needs: a point of the front of gain against SRAM.

    `gain` is the sum of its contributions over the head alone, a fraction. `sram_bytes` and
    `flash_bytes` are those of the linked program, `step_seconds` and `step_joules` what a training
    step takes by estimate, None where the device has none. `gap`: of a "found" one, by how much of
    gain a better scheme could exceed it, 0 where it is proven the best. `realised`: the gain over
    the head alone when the scheme is trained, at the rate `lr` that is best for it, None without
    data; contributions are summed as if they were independent. `kind`: "found" by its sum,
    "refined" by gains that trainings corrected, "foretold" by the sum of contributions
    that the tangent kernel foretells, or one that people write by hand, "biases" or "last layers".
    """

    biases: int
    weights: Mapping[str, Fraction]
    gain: float
    sram_bytes: int
    flash_bytes: int
    gap: float = 0.0
    realised: Gain | None = None
    lr: float | None = None
    kind: str = "found"
    step_seconds: float | None = None
    step_joules: float | None = None

    @property
    def scheme(self) -> Scheme:
        """What is trained."""
        return Scheme.of(self.biases, self.weights)

    @property
    def realised_mean(self) -> float:
        """The mean of `realised`, 0 where it is not known."""
        return 0.0 if self.realised is None else self.realised.mean

    @property
    def proven(self) -> bool:
        """Whether no scheme within the limits has a larger sum of contributions."""
        return self.kind == "found" and self.gap == 0

    def told(self) -> str:
        """How good its sum of contributions is, or where it is from."""
        if self.kind == "refined":
            return "chosen by what was trained"
        if self.kind == "foretold":
            return "chosen by foretold contributions"
        if self.kind != "found":
            return f"written by hand: {self.kind}"
        return "proven best" if self.proven else f"at most {100 * self.gap:.1f} points more"

    def step(self) -> str:
        """`12 ms, 3.4 mJ`: what a training step takes, as far as it is known."""
        known = ((self.step_seconds, "s"), (self.step_joules, "J"))
        return ", ".join(with_prefix(each, unit) for each, unit in known if each is not None)

    def to_json(self) -> dict[str, Any]:
        """The point as JSON values."""
        return {
            "biases": self.biases,
            "weights": {path: str(ratio) for path, ratio in self.weights.items()},
            "gain": self.gain,
            "sram_bytes": self.sram_bytes,
            "flash_bytes": self.flash_bytes,
            "step_seconds": self.step_seconds,
            "step_joules": self.step_joules,
            "gap": self.gap if self.kind == "found" else None,
            "realised": None if self.realised is None else asdict(self.realised),
            "lr": self.lr,
            "kind": self.kind,
        }


def undominated(points: Iterable[Point], gain: Callable[[Point], float]) -> tuple[Point, ...]:
    """The points by SRAM, without those that gain no more than a smaller one."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.sram_bytes, -gain(p))):
        if not kept or gain(point) > gain(kept[-1]):
            kept.append(point)
    return tuple(kept)


@dataclass(frozen=True, eq=False)
class Found:
    """The result of `kilograd.search`.

    `front`: the schemes with the largest sums of contributions at several limits up to those given,
    by SRAM; `by_hand`: at each limit that was asked for the biases of the last layers, and the last
    layers whole, as far as they fit; `foretold`: at each such limit the largest sum of foretold
    contributions; `refined`: schemes found by gains that trainings corrected; `best`: of
    those that gained most the one that does so with more seeds, or without data the largest sum;
    `answers` the same at every SRAM limit that was asked for, by bytes, ascending, with `best` at
    the largest; `spec`: what `kilograd.compile(update=...)` takes for it; `contributions` the table
    that they were chosen by; `orders` the input channels of layers, best first, of which a scheme
    trains the first. `seconds` is how long contributions took, how long selection, and how long
    trainings with what they led to.
    """

    network: str
    device: str
    layers: Layers
    contributions: Contributions
    best: Point
    front: tuple[Point, ...]
    answers: Mapping[int, Point] = field(default_factory=dict)
    by_hand: tuple[Point, ...] = ()
    foretold: tuple[Point, ...] = ()
    refined: tuple[Point, ...] = ()
    orders: Orders = field(default_factory=dict)
    seconds: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def points(self) -> tuple[Point, ...]:
        """The front, what was foretold and refined, and what is written by hand, by SRAM."""
        points = (*self.front, *self.foretold, *self.refined, *self.by_hand)
        return tuple(sorted(points, key=lambda p: p.sram_bytes))

    @property
    def ahead(self) -> tuple[Point, ...]:
        """The points without what was refined to no avail: that gains no more than a smaller one,
        and was not among the last to choose from.
        """
        points = self.points
        best = undominated(points, lambda point: point.realised_mean)
        runs = max((p.realised.runs for p in points if p.realised), default=0)
        return tuple(
            p
            for p in points
            if p.kind != "refined" or p in best or (p.realised and p.realised.runs == runs)
        )

    def limits_of(self, point: Point) -> tuple[int, ...]:
        """The SRAM limits in bytes for which a point's scheme is the answer."""
        return tuple(sram for sram, p in self.answers.items() if p.scheme == point.scheme)

    @property
    def spec(self) -> Spec:
        """The update spec of the scheme."""
        return self.spec_of(self.best)

    def spec_of(self, point: Point) -> Spec:
        """The update spec of a point."""
        return self.layers.spec(point.biases, point.weights, self.orders)

    def scheme(self, point: Point | None = None) -> str:
        """The text of a scheme file for the best scheme, or for another point."""
        point = point or self.best
        head = self.contributions.head
        lines = [
            f"# {self.network} for {self.device}, found by `kilograd search` "
            f"({self.contributions.method}).",
            f"# SRAM {point.sram_bytes:,} B, flash {point.flash_bytes:,} B.",
            *(f"# The best within {limit:,} B of SRAM." for limit in self.limits_of(point)),
            *([f"# A training step takes {point.step()}, by estimate."] if point.step() else []),
            f"# Head alone {100 * head.mean:.1f} %, contributions {100 * point.gain:+.1f} points "
            f"({point.told()}).",
            *_told_realised(point),
            "update = [",
            *(f"  {json.dumps(text)}," for text in unparse(self.spec_of(point))),
            "]",
            "",
            "[scheme]",
            f"biases = {point.biases}",
            "",
            "[scheme.weights]",
            *(
                f"{json.dumps(path)} = {json.dumps(str(point.weights[path]))}"
                for path in self.layers.paths
                if path in point.weights
            ),
        ]
        return "\n".join(lines) + "\n"

    def table(self, largest: int | None = None) -> str:
        """The contributions as text: biases by k, then layers with their ratios; with `largest`
        only so many layers, those with the largest contributions.
        """
        found = self.contributions
        ratios = sorted({ratio for _, ratio in found.weights})
        lines = [
            f"head alone: accuracy {_percent(found.head)}",
            "biases of the last k layers, points over the head:",
            *_columns([f"{k}: {_points(gain)}" for k, gain in sorted(found.biases.items())]),
            "weights, points over the biases from their layer on:",
        ]
        paths = list(self.layers.paths)
        if largest is not None and largest < len(paths):
            paths.sort(key=lambda path: -self._best(path))
            paths = [path for path in self.layers.paths if path in paths[:largest]]
            lines[-1] = f"the {largest} largest of {len(self.layers.paths)} {lines[-1]}"
        width = max([len(path) for path in paths] or [0])
        lines.append(f"  {'':{width}}" + "".join(f"{ratio!s:>14}" for ratio in ratios))
        for path in paths:
            cells = (found.weights.get((path, ratio)) for ratio in ratios)
            row = "".join(f"{_points(cell) if cell else '':>14}" for cell in cells)
            chosen = self.best.weights.get(path)
            mark = f"   trained: {chosen}" if chosen else ""
            lines.append(f"  {path:{width}}{row}{mark}")
        return "\n".join(lines)

    def _best(self, path: str) -> float:
        gains = self.contributions.weights
        return max((gains[path, r].mean for r in self.contributions.ratios(path)), default=0.0)

    def choices(self) -> tuple[FrontPoint, ...]:
        """The points as `Program.report` takes them for its `fronts`; gains are sums of
        contributions, in percentage points.
        """
        return tuple(
            FrontPoint(
                label=_title(point),
                sram_bytes=point.sram_bytes,
                seconds=point.step_seconds,
                joules=point.step_joules,
                gain=100 * point.gain,
                chosen=point.scheme == self.best.scheme,
                kind=_kind(point),
                note=_note(point),
            )
            for point in self.ahead
        )

    def realised(self) -> tuple[FrontPoint, ...]:
        """What the schemes gain when they are trained, in points, as far as known."""
        return tuple(
            FrontPoint(
                label=_title(point),
                sram_bytes=point.sram_bytes,
                seconds=point.step_seconds,
                joules=point.step_joules,
                gain=100 * point.realised.mean,
                spread=100 * point.realised.spread,
                kind="trained",
            )
            for point in self.ahead
            if point.realised is not None
        )

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "network": self.network,
            "device": self.device,
            "method": self.contributions.method,
            "update": unparse(self.spec),
            "scheme": self.best.to_json(),
            "answers": [
                {"limit_bytes": limit, **point.to_json(), "update": unparse(self.spec_of(point))}
                for limit, point in self.answers.items()
            ],
            "front": [point.to_json() for point in self.front],
            "foretold": [point.to_json() for point in self.foretold],
            "refined": [point.to_json() for point in self.refined],
            "by_hand": [point.to_json() for point in self.by_hand],
            "contributions": json.loads(self.contributions.to_json()),
            "channels": {path: list(order) for path, order in self.orders.items()},
            "seconds": dict(
                zip(("contributions", "selection", "trial"), self.seconds, strict=True)
            ),
        }

    def files(self) -> dict[str, str]:
        """The files of `save`, as text by name."""
        several = self.answers if len(self.answers) > 1 else {}
        front = [
            {
                **point.to_json(),
                "update": unparse(self.spec_of(point)),
                "best_within": list(self.limits_of(point)),
            }
            for point in self.points
        ]
        return {
            SCHEME: self.scheme(),
            **{f"scheme-{limit}.toml": self.scheme(p) for limit, p in several.items()},
            CONTRIBUTIONS: self.contributions.to_json(),
            FRONT: json.dumps(front, indent=1) + "\n",
        }

    def save(self, directory: str | Path) -> Path:
        """Write scheme, contributions and front into a directory; returns the scheme's path.

        Files of the same names are replaced, each whole, and `scheme-BYTES.toml` of other limits
        are removed. Raises InputError where it cannot.
        """
        folder, files = Path(directory), self.files()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("scheme-*.toml"):
                if old.name not in files and _OF_A_LIMIT.fullmatch(old.name):
                    old.unlink()
            for name, text in files.items():
                partial = folder / f".{name}.partial"
                partial.write_text(text, encoding="utf-8")
                partial.replace(folder / name)
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error}") from error
        return folder / SCHEME


def _title(point: Point) -> str:
    told = f"{point.biases} biases, {len(point.weights)} weights"
    return told if point.kind == "found" else f"{point.kind}: {told}"


def _kind(point: Point) -> str:
    if point.kind != "found":
        return f"sum, {point.kind}"
    return "sum of contributions" if point.proven else "sum, not proven the best"


def _note(point: Point) -> str:
    told = (
        []
        if point.proven or point.kind != "found"
        else [f"another could gain {100 * point.gap:.2g} more"]
    )
    if point.realised is not None:
        at = f" at lr {point.lr:g}" if point.lr is not None else ""
        told.append(f"trained {_points(point.realised)}{at}")
    return ", ".join(told)


def _told_realised(point: Point) -> list[str]:
    if point.realised is None:
        return []
    gained = f"# Trained, it gains {_points(point.realised)} points over the head alone"
    return [gained + (f" (lr {point.lr:g})." if point.lr is not None else ".")]


def _percent(gain: Gain) -> str:
    spread = f" ± {100 * gain.spread:.1f}" if gain.runs > 1 else ""
    return f"{100 * gain.mean:.1f}{spread} %"


def _points(gain: Gain) -> str:
    spread = f" ± {100 * gain.spread:.1f}" if gain.runs > 1 else ""
    return f"{100 * gain.mean:+.1f}{spread}"


def _columns(cells: Sequence[str], count: int = 5) -> list[str]:
    rows = [cells[start : start + count] for start in range(0, len(cells), count)]
    return ["  " + "".join(f"{cell:<18}" for cell in row).rstrip() for row in rows]
