"""Published hard instances; each fits 1,048,576 bytes and none is packed by the heuristics."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kilograd.planning import allocation

CAPACITY_BYTES = 1_048_576
DATA = Path(os.environ.get("KILOGRAD_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.parametrize("instance", "BCDEFGHJK")
def test_the_search_packs_it(instance: str) -> None:
    path = DATA / "allocation" / f"{instance}.{CAPACITY_BYTES}.csv"
    if not path.exists():
        pytest.skip(f"{path} is absent; set KILOGRAD_DATA to the folder of public data")
    problem = allocation.load_csv(path, CAPACITY_BYTES)
    greedy = allocation.solve(problem, method="heuristic")
    assert greedy.height_bytes > CAPACITY_BYTES
    answer = allocation.solve(problem, target_bytes=CAPACITY_BYTES, time_limit_seconds=60)
    assert allocation.validate(problem, answer) == []
    assert answer.method == "search"
