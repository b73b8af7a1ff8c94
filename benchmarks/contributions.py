"""Contribution analysis: what training each bias and weight gains, and how well it can be foretold.

    python benchmarks/contributions.py [--task digits|faces|spoken|speech] [--seeds N] [--quick]
        [--order first|best] [--rise SHARE]

In int8, or --precision float32. `digits`, `faces`, `spoken`: the ImageNet MCUNet-5FPS at 48x48 as
in transfer.py, as many samples and epochs. `speech`: the DS-CNN of speech.py on a speaker whom it
does not know: 50 samples, 5 epochs. Each seed sets aside a third of the samples that are not for
testing and judges by at most 400 of these. Of the rates 0.003 and 0.01 the one is taken at which
the head alone and the head with all biases do best.

All biases and all layers at four ratios (with --quick nine k and two ratios) are measured by
trainings of the compiled program, with several seeds; every run is kept (build/search), so a second
call, or one after an interruption, reuses what is there. Then one pass over the training samples
scores the layers. The table has rank correlations of each predictor with measured gains: of the
weights of all layers, of all (layer, ratio), of the biases between two measured k, and of weights
and biases together, which is what a selection by predictions needs.

--order says which input channels are trained: the first, or those of the best scores; --rise in
what share of the epochs the rate rises, none in a search.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np
import speech
import torch
import transfer
from real_data import BUILD, Log, Split, data_file, table
from scipy.stats import pearsonr, spearmanr

import kilograd as kg
from kilograd import zoo
from kilograd.compiler import Prepared, prepare
from kilograd.search.foretold import foretell
from kilograd.search.layers import Layers, Orders, layers_of
from kilograd.search.measure import Bench, Plan, measure
from kilograd.search.predict import Trained, channel_orders, score_layers, train_head
from kilograd.search.scores import PREDICTORS, LayerScore
from kilograd.search.store import Store
from kilograd.search.table import Contributions
from kilograd.search.task import Task, make_task
from kilograd.search.training import Training
from kilograd.search.trials import best_rate

STORE = BUILD.parent / "search"
EPOCHS, RATES, JOBS, JUDGED = 5, (0.003, 0.01), 2, 400
SPEAKER = 2
"""lucas, whose digits are recognised least before learning (docs/accuracy.md)."""


@dataclass(frozen=True, eq=False)
class Case:
    """A network and a task, with the samples that nothing is chosen by."""

    network: Prepared
    layers: Layers
    bench: Bench
    test: Split


def mcunet(task: transfer.Task, precision: str) -> tuple[Any, Any, dict[str, Any]]:
    """MCUNet with its ImageNet weights, an example input, and further arguments of `compile`."""
    model, example = zoo.create(
        "mcunet_5fps",
        num_classes=task.classes,
        weights=data_file(transfer.WEIGHTS),
        resolution=task.pool[0].shape[-1],
    )
    some = task.pool[0][: transfer.CALIBRATION]
    transfer.scale_features(model, some)
    options = {"precision": precision, "optimizer": kg.SGD(lr=RATES[-1])}
    return model, example, options | ({"calibration": some} if precision == "int8" else {})


def pictures(name: str, precision: str) -> Case:
    """MCUNet on a task of transfer.py, whose samples for testing are not looked at."""
    task = transfer.digits(48, 500) if name == "digits" else transfer.TASKS[name](48)
    model, example, options = mcunet(task, precision)
    labelled = make_task(
        task.pool,
        shape=task.pool[0].shape[1:],
        classes=task.classes,
        samples=task.train_count,
        test_samples=JUDGED,
    )
    return case(prepare(model, example, **options), labelled, task.epochs, task.test)


def speaker(precision: str) -> Case:
    """The DS-CNN of spoken digits and the speaker that it knows least; a third of his takes that
    are not for testing is set aside to judge by, drawn with each seed.
    """
    names = speech.speaker_names()
    cached = speech.cache(names, SPEAKER, speech.EPOCHS).is_file()
    sounds = speech.recordings(speech.SPEEDS[:1] if cached else speech.SPEEDS)
    model = speech.pretrained(sounds, SPEAKER, speech.EPOCHS, Log())
    learned, left = sounds.draw(SPEAKER, 0)
    others = np.flatnonzero(sounds.speaker != SPEAKER)
    chosen = np.random.default_rng(0).permutation(others)[: speech.CALIBRATION]
    options = {"calibration": sounds.x[0, chosen]} if precision == "int8" else {}
    network = prepare(
        model, learned[0][:1], precision=precision, optimizer=kg.SGD(lr=RATES[-1]), **options
    )
    x, y = (np.concatenate(parts) for parts in zip(learned, left, strict=True))
    labelled = make_task((x, y), shape=x.shape[1:], classes=10, samples=50)
    return case(network, labelled, EPOCHS, sounds.test(SPEAKER))


def case(network: Prepared, task: Task, epochs: int, test: Split) -> Case:
    training = Training(epochs, RATES[-1])
    bench = Bench(network, network.inputs, task, training, Store(STORE), JOBS)
    return Case(network, layers_of(network.forward), bench, test)


CASES: dict[str, Callable[[str], Case]] = {
    "digits": partial(pictures, "digits"),
    "faces": partial(pictures, "faces"),
    "spoken": partial(pictures, "spoken"),
    "speech": speaker,
}


def correlations(
    found: Contributions,
    chosen: Case,
    head: Trained,
    scores: dict[str, LayerScore],
    orders: Orders,
) -> list[list[object]]:
    """A row a predictor; scores also divided by the weights and the multiply-accumulates of the
    layer, as TinyTrain does (biases by the latter alone).
    """
    layers = {layer.path: layer for layer in chosen.layers.body}
    macs, sizes = layer_macs(chosen), {p: c.weight.value.type.size for p, c in layers.items()}
    pairs, ks = list(found.weights), sorted(found.biases)
    is_whole = [place for place, (_, ratio) in enumerate(pairs) if ratio == 1]
    steps = [
        chosen.layers.paths[len(layers) - high : len(layers) - low] for low, high in pairwise(ks)
    ]
    start = time.perf_counter()
    rates = chosen.bench.rates
    foretold = foretell(chosen.network, head, chosen.layers, rates, orders).contributions("")
    print(f"kernel in {time.perf_counter() - start:.1f} s", flush=True)
    tables = {"kernel": ([foretold.weights[pair].mean for pair in pairs], bias_steps(foretold, ks))}
    for predictor, form in product(PREDICTORS, ("", "per weight and MAC: ")):
        by_pair, by_bias = [], []
        for path, ratio in pairs:
            values = scores[path].channels[predictor]
            order = list(orders.get(path, range(len(values))))[: layers[path].count(ratio)]
            share = values[order].sum() / max(values.sum(), 1e-300)
            score = scores[path].layer[predictor] * share
            by_pair.append(score / (sizes[path] * macs[path]) if form else score)
        for paths in steps:
            total = sum(scores[path].bias[predictor] for path in paths)
            by_bias.append(total / sum(macs[path] for path in paths) if form else total)
        tables[form + predictor] = (by_pair, by_bias)
    gains, more = [found.weights[pair].mean for pair in pairs], bias_steps(found, ks)
    rows: list[list[object]] = []
    for name, (by_pair, by_bias) in tables.items():
        by_layer, of_layer = np.array(by_pair)[is_whole], np.array(gains)[is_whole]
        both, both_gains = [*by_pair, *by_bias], [*gains, *more]
        statistics = (
            spearmanr(by_layer, of_layer).statistic,
            spearmanr(by_pair, gains).statistic,
            pearsonr(by_pair, gains).statistic,
            spearmanr(by_bias, more).statistic,
            spearmanr(both, both_gains).statistic,
            pearsonr(both, both_gains).statistic,
        )
        rows.append([name, *(f"{value:+.2f}" for value in statistics)])
    return rows


def bias_steps(table: Contributions, ks: Sequence[int]) -> list[float]:
    """What each step from one k to the next gains."""
    return [table.biases[high].mean - table.biases[low].mean for low, high in pairwise(ks)]


def layer_macs(chosen: Case) -> dict[str, int]:
    """Multiply-accumulates of the forward pass by layer."""
    weights = {layer.weight.value: layer.path for layer in chosen.layers.body}
    return {
        weights[value]: node.op.cost(*(v.type for v in node.inputs)).macs
        for node in chosen.network.forward.nodes
        for value in node.inputs
        if value in weights
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="measured and predicted contributions")
    parser.add_argument("--task", choices=CASES, default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", choices=("float32", "int8"), default="int8")
    parser.add_argument("--table", help="contributions measured before, instead of measuring")
    parser.add_argument("--quick", action="store_true", help="nine k and two ratios")
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--order", choices=("first", "best"), default="first")
    parser.add_argument("--rise", type=float, default=0.0, help="share of epochs: the rate rises")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = CASES[arguments.task](arguments.precision)
    bench = replace(chosen.bench, jobs=arguments.jobs)
    chosen = replace(chosen, bench=best_rate(bench, chosen.layers, RATES, arguments.seeds))
    print(f"rate {chosen.bench.training.lr:g}", flush=True)
    start = time.perf_counter()
    head = train_head(chosen.network, chosen.bench, chosen.layers)
    scores = score_layers(chosen.network, head, chosen.layers)
    orders = (
        channel_orders(chosen.network.forward, chosen.layers, scores)
        if arguments.order == "best"
        else {}
    )
    print(f"scores in {time.perf_counter() - start:.1f} s", flush=True)
    start = time.perf_counter()
    make = Plan.quick if arguments.quick else Plan.full
    plan = make(chosen.layers, arguments.seeds)
    training = replace(chosen.bench.training, rise=arguments.rise)
    found = (
        Contributions.load(arguments.table)
        if arguments.table
        else measure(
            replace(chosen.bench, training=training),
            chosen.layers,
            plan,
            name=chosen.network.name,
            orders=orders,
        )
    )
    print(f"measured in {time.perf_counter() - start:.0f} s", flush=True)
    STORE.mkdir(parents=True, exist_ok=True)
    found.save(STORE / f"{arguments.task}.json")
    header = (
        *("predictor", "weights: Spearman", "and ratios: Spearman", "Pearson", "biases: Spearman"),
        *("both: Spearman", "Pearson"),
    )
    print(table(header, correlations(found, chosen, head, scores, orders)), flush=True)


if __name__ == "__main__":
    main()
