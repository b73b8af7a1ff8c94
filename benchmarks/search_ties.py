"""Whether what search_accuracy.py found worse is worse: the same rows with more seeds.

    python benchmarks/search_ties.py FILE [--tests 48] [--jobs 2]

FILE is what search_accuracy.py left as --json. Each row whose reference tested better than what was
found is tested again. The seeds of FILE chose the row, so the others are told apart: found less
reference in points, with the standard error over the seeds.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contributions import CASES
from real_data import table
from search_accuracy import references, specs_of, standard_error, tested

from kilograd.search.predict import train_head
from kilograd.search.resources import ResourceModel
from kilograd.update import parse


def told(more: np.ndarray) -> str:
    """Mean and standard error, in points."""
    return f"{100 * more.mean():+.2f} ± {100 * standard_error(more):.2f}"


def again(document: dict[str, Any], seeds: int, jobs: int) -> list[tuple[str, ...]]:
    """A row for each reference that tested better than what was found."""
    name = document["task"]
    case = CASES[name]("int8")
    bench = replace(case.bench, jobs=jobs)
    judged = replace(bench.task, test=case.test, test_samples=None)
    head = train_head(case.network, case.bench, case.layers)
    specs = specs_of(case, head, references(name, ResourceModel(case.network)))
    answers = {answer["limit_bytes"]: answer for answer in document["found"]["answers"]}
    known = {each["name"]: each for each in document["tested"]}
    rows = []
    for key, spec in specs.items():
        if key not in known:  # of a smoke run
            continue
        own, limit = known[key], known[key]["sram_bytes"]
        found = known[f"found at {limit:,} B"]
        before = len(own["accuracies"])
        if np.mean(found["accuracies"]) >= np.mean(own["accuracies"]):
            continue
        reference, best = tested(
            replace(bench, task=judged),
            [spec, parse(answers[limit]["update"])],
            [own["lr"], found["lr"]],
            seeds,
        )
        more = best - reference
        rows.append((name, key, f"{limit:,} B", told(more[:before]), told(more[before:])))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--tests", type=int, default=48, help="seeds in all")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    documents = json.loads(arguments.file.read_text(encoding="utf-8"))
    rows = [row for each in documents for row in again(each, arguments.tests, arguments.jobs)]
    header = ("task", "reference", "SRAM", "more by the seeds of the file", "by the others")
    print(table(header, rows) if rows else "nothing found tested worse than its reference")


if __name__ == "__main__":
    main()
