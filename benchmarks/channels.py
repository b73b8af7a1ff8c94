"""Which input channels a partial update should train: the first, or those that a predictor names.

    python benchmarks/channels.py [--tasks digits spoken speech] [--schemes 49kb 74kb ...]
        [--seeds 5] [--jobs 2]

For MCUNet-5FPS the five published schemes, for the DS-CNN of `speech` an eighth of each layer
behind the first with the biases from there on. Accuracy on samples to judge by (contributions.py),
each scheme at the best of the rates 0.0033, 0.01 and 0.03; a row a way to choose the channels, and
the mean over the schemes. Runs are kept in build/search.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from fractions import Fraction

import torch
from contributions import CASES, Case
from real_data import percent, table
from search_accuracy import at_best_rates, published

from kilograd.errors import InputError
from kilograd.search.layers import Orders
from kilograd.search.predict import channel_orders, score_layers, train_head
from kilograd.search.scheme import Scheme
from kilograd.search.scores import PREDICTORS

EIGHTH = Fraction(1, 8)


def schemes(task: str, case: Case, labels: list[str] | None) -> dict[str, Scheme]:
    """What to compare channels by."""
    if task == "speech":
        layers = case.layers
        return {
            path: Scheme.of(layers.biases_from(path), {path: EIGHTH}) for path in layers.paths[1:]
        }
    known = published(case.layers.paths)
    if unknown := {*(labels or ())} - {*known}:
        raise InputError(f"no published scheme {', '.join(unknown)}; there are {', '.join(known)}")
    return {label: known[label] for label in labels or known}


def ways(case: Case) -> dict[str, Orders]:
    """Orders of channels."""
    head = train_head(case.network, case.bench, case.layers)
    scores = score_layers(case.network, head, case.layers)
    graph = case.network.forward
    found: dict[str, Orders] = {"first": {}}
    for name in PREDICTORS:
        found[f"best by {name}"] = channel_orders(graph, case.layers, scores, name)
    worst = {path: order[::-1] for path, order in found["best by first_order"].items()}
    return found | {"worst by first_order": worst}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=CASES, default=["digits", "spoken", "speech"])
    parser.add_argument("--schemes", nargs="+", help="labels of published ones, by default all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for task in arguments.tasks:
        case = CASES[task]("int8")
        bench = replace(case.bench, jobs=arguments.jobs)
        named = schemes(task, case, arguments.schemes)
        rows = []
        for way, orders in ways(case).items():
            specs = [case.layers.spec(s.biases, dict(s.weights), orders) for s in named.values()]
            _, found = at_best_rates(bench, specs, arguments.seeds)
            rows.append((way, *map(percent, found), percent(found.mean(axis=0))))
        print(f"\n{task}\n\n{table(('channels', *named, 'mean'), rows)}", flush=True)


if __name__ == "__main__":
    main()
