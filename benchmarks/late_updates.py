"""What it saves that gradients of weights wait, and how close to any order's bound that is.

    python benchmarks/late_updates.py

For the published schemes of the Tiny Training Engine paper (int8, 128 x 128, ten classes) and some
networks trained whole in float32, plain SGD, atomic: the peak of the training step's live bytes in
the best of the orders without `kilograd.planning.late_updates`, with it, and a lower bound of any
order's (`kilograd.planning.necessary`; of the backward pass, so that streams do not matter). The
bound is "-" where the forward pass makes the peak.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.quantization import crops, data_directory

import kilograd as kg
from kilograd import zoo
from kilograd.compiler import Prepared, prepare
from kilograd.planning import order as ordering
from kilograd.planning.lifetimes import measure
from kilograd.planning.necessary import Alive
from kilograd.planning.stream import narrow
from kilograd.update import Spec

FLOAT = ("lenet", "dscnn", "resnet8", "mobilenetv1_025", "tcn", "unet")


def bound(prepared: Prepared, update: Spec) -> int:
    """Of what must be alive at a node of the backward pass, the most."""
    graph = prepared.training_graph(update)
    alive = Alive(graph, atomic=True)
    most = alive.aligned(alive.waiting())
    for index, node in enumerate(graph.nodes):
        if node.location.backward and not node.op.alias:
            kept = alive.kept(index)
            groups = alive.groups(alive.loose(index), kept)
            loose = (alive.least_bytes(index, g, alive.touched(g) - kept) for g in groups)
            most = max(most, alive.aligned(kept) + alive.own_bytes(index) + sum(loose))
    return most


def row(name: str, prepared: Prepared, update: Spec) -> str:
    graph = prepared.training_graph(update)
    with mock.patch.object(ordering, "late_updates", lambda g, _: list(range(len(g.nodes)))):
        before = measure(narrow(ordering.order(graph, atomic=True))).peak_bytes
    after = measure(narrow(ordering.order(graph, atomic=True))).peak_bytes
    least = bound(prepared, update)
    shown = f"{least:,}" if least > 0.9 * after else "-"
    share = 100 * (after / before - 1)
    return f"| {name} | {before:,} | {after:,} | {share:.1f} % | {shown} |"


def main() -> None:
    torch.set_num_threads(1)
    print("| network | peak without, B | with, B | change | bound, B |")
    print("|---|---:|---:|---:|---:|", flush=True)
    samples = crops(False, 128, 24)[0][:64]
    prepared: dict[str, Prepared] = {}
    for scheme in zoo.schemes():
        if scheme.network not in prepared:
            torch.manual_seed(0)
            path = data_directory() / "models" / f"{scheme.network}.safetensors"
            model = scheme.build(
                num_classes=10, weights=path if path.is_file() else None, resolution=128
            )
            prepared[scheme.network] = prepare(
                model, samples[:1], precision="int8", calibration=samples
            )
        name = f"{scheme.network} {scheme.label}"
        print(row(name, prepared[scheme.network], scheme.spec()), flush=True)
    for name in FLOAT:
        model, example = zoo.create(name)
        print(row(f"{name}, float32, all", prepare(model, example), kg.update.all()), flush=True)


if __name__ == "__main__":
    main()
