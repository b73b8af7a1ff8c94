"""Contribution analysis: what training each bias and weight gains, and how well it can be foretold.

    python benchmarks/contributions.py [--task digits|speaker] [--seeds N] [--quick] [--channels]

`digits`: the ImageNet MCUNet-5FPS on load_digits of scikit-learn, 48x48, as in transfer.py: 100
samples, 8 epochs, judged on 200 others. `speaker`: the DS-CNN of speech.py on the first speaker,
whom it does not know: five samples a digit, judged on the takes that are left.

All biases and all layers at four ratios are measured by trainings of the compiled program, with
several seeds; every run is kept (build/search), so a second call, or one after an interruption,
reuses what is there. Then one pass over the training samples scores the layers, and the table shows
rank correlations (Spearman, Kendall) of each predictor with measured gains: over the weights of all
layers at ratio 1, over all (layer, ratio), and over the biases of single layers (gain of the last k
over the last k - 1). The last column is Pearson's correlation over all (layer, ratio).

--channels asks which input channels to train: for the --layers layers that gain most, the mean gain
of an eighth of them, those that each predictor puts first, the first ones, and the worst ones.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import speech
import torch
import transfer
from real_data import BUILD, Log, data_file, percent, table
from scipy.stats import kendalltau, pearsonr, spearmanr

import kilograd as kg
from kilograd import zoo
from kilograd.compiler import Prepared, prepare
from kilograd.search.layers import Layers, layers_of
from kilograd.search.measure import RATIOS, Bench, Plan, measure
from kilograd.search.predict import score_layers
from kilograd.search.scores import PREDICTORS, LayerScore
from kilograd.search.store import Store
from kilograd.search.table import Contributions
from kilograd.search.task import make_task
from kilograd.search.training import Training
from kilograd.transforms.reorder import ChannelMap
from kilograd.update import Spec

STORE = BUILD.parent / "search"
EIGHTH = Fraction(1, 8)


@dataclass(frozen=True, eq=False)
class Case:
    """A network and a task."""

    network: Prepared
    layers: Layers
    bench: Bench


def digits(resolution: int = 48, epochs: int = 8, samples: int = 100) -> Case:
    """MCUNet with its ImageNet weights on handwritten digits."""
    task = transfer.digits(resolution)
    model, example = zoo.create(
        "mcunet_5fps",
        num_classes=task.classes,
        weights=data_file(transfer.WEIGHTS),
        resolution=resolution,
    )
    transfer.scale_features(model, task.pool[0][: transfer.CALIBRATION])
    network = prepare(model, example)
    labelled = make_task(
        task.pool,
        task.test,
        shape=task.pool[0].shape[1:],
        classes=task.classes,
        samples=samples,
    )
    return case(network, labelled, Training(epochs, 0.01))


def speaker() -> Case:
    """The DS-CNN of spoken digits and a speaker that it does not know."""
    names = speech.speaker_names()
    cached = speech.cache(names, 0, speech.EPOCHS).is_file()
    sounds = speech.recordings(speech.SPEEDS[:1] if cached else speech.SPEEDS)
    model = speech.pretrained(sounds, 0, speech.EPOCHS, Log())
    learned, left = sounds.draw(0, 0)
    network = prepare(model, learned[0][:1])
    # Each seed draws its samples from those that are not for testing.
    pool = tuple(np.concatenate(parts) for parts in zip(learned, left, strict=True))
    labelled = make_task(pool, sounds.test(0), shape=learned[0].shape[1:], classes=10, samples=50)
    return case(network, labelled, Training(10, 0.01))


def case(network: Prepared, task: object, training: Training) -> Case:
    layers = layers_of(network.forward)
    bench = Bench(network, network.inputs, task, training, Store(STORE))
    return Case(network, layers, bench)


CASES = {"digits": digits, "speaker": speaker}


def correlations(
    found: Contributions, layers: Layers, scores: dict[str, LayerScore]
) -> list[list[object]]:
    """A row a predictor."""
    rows = []
    whole = [path for path in layers.paths if (path, Fraction(1)) in found.weights]
    pairs = list(found.weights)
    ks = sorted(found.biases)
    for predictor in PREDICTORS:
        for root in (False, True):

            def f(value: float, root: bool = root) -> float:
                return float(np.sqrt(value)) if root else value

            by_layer = [f(scores[path].layer[predictor]) for path in whole]
            by_pair = []
            for path, ratio in pairs:
                layer = next(layer for layer in layers.body if layer.path == path)
                channels = scores[path].channels[predictor]
                share = channels[: layer.count(ratio)].sum() / max(channels.sum(), 1e-300)
                by_pair.append(f(scores[path].layer[predictor] * float(share)))
            gained = [found.weights[path, Fraction(1)].mean for path in whole]
            all_gained = [found.weights[pair].mean for pair in pairs]
            bias_scores, bias_gains = [], []
            for low, high in pairwise(ks):
                paths = layers.paths[len(layers.body) - high : len(layers.body) - low]
                bias_scores.append(f(sum(scores[p].bias[predictor] for p in paths)))
                bias_gains.append(found.biases[high].mean - found.biases[low].mean)
            rows.append(
                [
                    ("root of " if root else "") + predictor,
                    f"{spearmanr(by_layer, gained).statistic:.2f}",
                    f"{kendalltau(by_layer, gained).statistic:.2f}",
                    f"{spearmanr(by_pair, all_gained).statistic:.2f}",
                    f"{kendalltau(by_pair, all_gained).statistic:.2f}",
                    f"{spearmanr(bias_scores, bias_gains).statistic:.2f}",
                    f"{pearsonr(by_pair, all_gained).statistic:.2f}",
                ]
            )
    return rows


def channel_rows(
    chosen: Case, found: Contributions, scores: dict[str, LayerScore], count: int, seeds: int
) -> list[list[object]]:
    """Points gained by an eighth of the input channels of the `count` layers that gain most."""
    layers, network = chosen.layers, chosen.network
    channels = ChannelMap(network.forward)
    movable = [
        layer
        for layer in layers.body
        if not channels.inputs_of(layer.weight.value).fixed and layer.channels >= 16
    ]
    movable.sort(key=lambda layer: -found.weights[layer.path, Fraction(1)].mean)
    ways: dict[str, list[Spec]] = {}
    for layer in movable[:count]:
        values = scores[layer.path].channels
        orders = {f"best by {name}": np.argsort(-values[name]) for name in PREDICTORS}
        orders["first"] = np.arange(layer.channels)
        orders["worst by first_order"] = np.argsort(values["first_order"])
        for way, order in orders.items():
            spec = layers.spec(
                layers.biases_from(layer.path),
                {layer.path: EIGHTH},
                {layer.path: tuple(map(int, order))},
            )
            ways.setdefault(way, []).append(spec)
    base = [layers.spec(layers.biases_from(layer.path), {}) for layer in movable[:count]]
    seeds_of = range(seeds)
    flat = [*base, *(spec for specs in ways.values() for spec in specs)]
    scored = chosen.bench.scores(flat, seeds_of)
    accuracy = np.array([[score.accuracy for score in row] for row in scored])
    over = accuracy[len(base) :].reshape(len(ways), len(base), seeds) - accuracy[: len(base)]
    return [[way, percent(over[i].mean(axis=0))] for i, way in enumerate(ways)]


def main() -> None:
    parser = argparse.ArgumentParser(description="measured and predicted contributions")
    parser.add_argument("--task", choices=CASES, default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=None)
    parser.add_argument("--channels", action="store_true", help="which channels to train")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--quick", action="store_true", help="two ratios")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = CASES[arguments.task]()
    print(arguments, chosen.network.name, kg.__version__, RATIOS, flush=True)
    start = time.perf_counter()
    plan = Plan.full(chosen.layers, arguments.seeds)
    if arguments.quick:
        few = Plan.quick(chosen.layers, arguments.seeds)
        plan = Plan(plan.biases, few.weights, plan.seeds)
    found = measure(chosen.bench, chosen.layers, plan, name=chosen.network.name)
    print(f"measured in {time.perf_counter() - start:.0f} s", flush=True)
    STORE.mkdir(parents=True, exist_ok=True)
    found.save(STORE / f"{arguments.task}.json")
    scores, _ = score_layers(chosen.network, chosen.bench, chosen.layers)
    header = (
        "predictor",
        "layers, Spearman",
        "layers, Kendall",
        "layers and ratios, Spearman",
        "layers and ratios, Kendall",
        "biases, Spearman",
        "Pearson",
    )
    print(table(header, correlations(found, chosen.layers, scores)), flush=True)
    if arguments.channels:
        rows = channel_rows(chosen, found, scores, arguments.layers, arguments.seeds)
        print(table(("channels", "points over the biases"), rows))


if __name__ == "__main__":
    main()
