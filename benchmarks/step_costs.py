"""Time and energy of a training step: rows against planned programs, and selection by both.

    python benchmarks/step_costs.py [--schemes 60] [--select] [--resolution 64]

For MCUNet-5FPS (42 layers and the head) and for three small networks, a chain, one with a
shortcut and one with pools, random schemes are planned, and the time of a step by
`Program.step_estimate` is compared with the rows of `kilograd.search.costs`. `above the sure row`
is by how much more a program takes, as a share; `above the expected` the same of the row that
counts masks as bits, for the programs that keep them so; `not expected` counts the int8 programs
that read masks off results, or need none.

--select chooses schemes of MCUNet-5FPS in int8 under a time limit, with synthetic contributions
(see selection.py), without a limit of SRAM that matters and with one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.selection import synthetic
from tests.search.test_step_limits import NETWORKS

from kilograd import zoo
from kilograd.compiler import prepare
from kilograd.planning.step_limits import StepLimit
from kilograd.search.limits import Limits
from kilograd.search.resources import ResourceModel
from kilograd.search.scheme import Scheme
from kilograd.search.select import select

DEVICE, PLENTY = "stm32f746", 10**7


def model_of(network: nn.Module, shape: tuple[int, ...], **options: Any) -> ResourceModel:
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    if options.get("precision") == "int8":
        options["calibration"] = x
    return ResourceModel(prepare(network, x[:1], device=DEVICE, **options))


def mcunet(resolution: int) -> nn.Module:
    scheme = zoo.find_scheme("mcunet-5fps", "49kb")
    return scheme.build(num_classes=10, resolution=resolution)


def models(resolution: int) -> Iterator[tuple[str, ResourceModel]]:
    variants: tuple[dict[str, Any], ...] = (
        {"precision": "int8"},
        {"precision": "int8", "gradients": "int8"},
        {"precision": "float32"},
    )
    for options in variants:
        told = options["precision"] + (", int8 gradients" if "gradients" in options else "")
        for name, make in NETWORKS.items():
            torch.manual_seed(0)
            yield f"{name}, {told}", model_of(make(), (3, 16, 16), **options)
        size = (3, resolution, resolution)
        yield f"mcunet-5fps, {told}", model_of(mcunet(resolution), size, **options)


def schemes(model: ResourceModel, count: int) -> list[Scheme]:
    """Random depths and densities, and the two extremes."""
    rng, paths = np.random.default_rng(1), model.layers.paths
    found = [Scheme(0), Scheme.of(len(paths), dict.fromkeys(paths, model.ratios[-1]))]
    while len(found) < count:
        k, share = int(rng.integers(1, len(paths) + 1)), rng.random() * 0.8
        chosen = [path for path in paths[-k:] if rng.random() < share]
        ratios = rng.integers(0, len(model.ratios), len(chosen))
        weights = {p: model.ratios[r] for p, r in zip(chosen, ratios, strict=True)}
        found.append(Scheme.of(k, weights))
    return found


def compare(model: ResourceModel, count: int) -> tuple[str, ...]:
    rows = model.costs("seconds")
    sure, expected = [], []
    for scheme in schemes(model, count):
        taken = model.step(scheme).seconds or 0.0
        sure.append((taken - (rows.least.value(scheme) or 0.0)) / taken)
        graph = model.compiler.program(scheme.spec(model.layers)).train.graph
        if not rows.expected.unless or "pack_mask" in {node.op.name for node in graph.nodes}:
            expected.append((taken - (rows.expected.value(scheme) or 0.0)) / taken)
    spread = [f"{100 * min(each):.4f} to {100 * max(each):.4f} %" for each in (sure, expected)]
    return str(len(sure)), *spread, str(len(sure) - len(expected))


def chosen(model: ResourceModel) -> Iterator[tuple[str, ...]]:
    paths = model.layers.paths
    contributions = synthetic(paths, tuple(model.ratios), 0)
    low = model.step(Scheme(0)).seconds or 0.0
    whole = Scheme.of(len(paths), dict.fromkeys(paths, model.ratios[-1]))
    high = model.step(whole).seconds or 0.0
    for sram in (PLENTY, 90 * 1024):
        for share in (0.15, 0.4):
            most = low + (high - low) * share
            limits = Limits(sram, step=(StepLimit("seconds", most),))
            start = time.perf_counter()
            found = select(contributions, model, limits, link=False, reserve_bytes=1024)
            yield (
                "none" if sram == PLENTY else f"{sram:,}",
                f"{1e3 * most:.2f}", f"{1e3 * (found.step.seconds or 0.0):.2f}",
                f"{found.static_bytes + 1024:,}", f"{100 * found.gain:.3f}",
                f"{100 * found.bound:.3f}", f"{100 * found.sure_bound:.3f}",
                f"{time.perf_counter() - start:.1f}", str(found.compiles), str(found.refuted),
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemes", type=int, default=60)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--select", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.select:
        size = (3, arguments.resolution, arguments.resolution)
        model = model_of(mcunet(arguments.resolution), size, precision="int8")
        columns = ("SRAM limit, B", "time limit, ms", "a step, ms", "SRAM, B", "gain", "bound")
        show((*columns, "sure", "seconds", "compiles", "refuted"), chosen(model))
        return
    columns = ("network", "schemes", "above the sure row", "above the expected", "not expected")
    told = ((name, *compare(m, arguments.schemes)) for name, m in models(arguments.resolution))
    show(columns, told)


def show(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns), flush=True)
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
