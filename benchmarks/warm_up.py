"""Whether the rate should rise before it falls: the published schemes of MCUNet-5FPS.

    python benchmarks/warm_up.py [--task digits] [--schemes 49kb 74kb ...] [--seeds 5] [--jobs 2]

Accuracy on samples to judge by (of contributions.py), at three rates: without a rise, and where the
rate rises to its height in an eighth or a quarter of the epochs. Runs are kept in build/search.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from contributions import CASES
from real_data import percent, table
from search_accuracy import RATES, published

RISES = (0.0, 0.125, 0.25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=("digits", "faces", "spoken"), default="digits")
    parser.add_argument("--schemes", nargs="+", help="labels of published ones, by default all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    case = CASES[arguments.task]("int8")
    named = {
        label: scheme.spec(case.layers) for label, scheme in published(case.layers.paths).items()
    }
    labels = arguments.schemes or list(named)
    rows = []
    for rate in (min(RATES) / 3, *RATES):
        columns = []
        for rise in RISES:
            training = replace(case.bench.training, lr=rate, rise=rise)
            bench = replace(case.bench, training=training, jobs=arguments.jobs)
            scores = bench.scores([named[label] for label in labels], range(arguments.seeds))
            columns.append([percent(score.accuracy for score in row) for row in scores])
        rows += [
            (label, f"{rate:.2g}", *cells) for label, *cells in zip(labels, *columns, strict=True)
        ]
    header = ("scheme", "rate", *(f"rise in {rise:.0%} of the epochs" for rise in RISES))
    print(table(header, sorted(rows, key=lambda row: labels.index(row[0]))))


if __name__ == "__main__":
    main()
