"""MiniMalloc's eleven instances, each known to fit 1,048,576 bytes: who packs them, and how fast.

    python benchmarks/allocation.py [--seconds 60] [--method auto] [INSTANCE ...]

Reads $KILOGRAD_DATA/allocation, or ../shared/data/allocation beside the repository.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from kilograd.planning import allocation

CAPACITY_BYTES = 1_048_576


def data_directory() -> Path:
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("KILOGRAD_DATA", default)) / "allocation"


def main() -> None:
    parser = argparse.ArgumentParser(description="offset allocation on MiniMalloc's instances")
    parser.add_argument("instances", nargs="*", metavar="INSTANCE", help="A to K; default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of each")
    parser.add_argument("--method", default="auto", help="auto, heuristic, search or cp-sat")
    arguments = parser.parse_args()
    paths = sorted(data_directory().glob(f"*.{CAPACITY_BYTES}.csv"))
    if arguments.instances:
        paths = [path for path in paths if path.name.split(".")[0] in arguments.instances]
    if not paths:
        parser.exit(1, f"no instances in {data_directory()}; set KILOGRAD_DATA\n")
    print(
        f"{'instance':8} {'buffers':>7} {'lower bound':>11} {'heuristic':>9} {'height':>9} "
        f"{'solved':6} {'seconds':>7} method"
    )
    solved = 0
    for path in paths:
        solved += run(path, arguments.seconds, arguments.method)
    print(f"{solved} of {len(paths)} in {CAPACITY_BYTES} bytes")


def run(path: Path, seconds: float, method: allocation.Method) -> bool:
    problem = allocation.load_csv(path, CAPACITY_BYTES)
    greedy = allocation.solve(problem, target_bytes=CAPACITY_BYTES, method="heuristic")
    start = time.perf_counter()
    answer = allocation.solve(
        problem, target_bytes=CAPACITY_BYTES, time_limit_seconds=seconds, method=method
    )
    elapsed_seconds = time.perf_counter() - start
    fits = not allocation.validate(problem, answer)
    print(
        f"{path.name.split('.')[0]:8} {len(problem.buffers):7} "
        f"{allocation.lower_bound_bytes(problem.buffers):11} {greedy.height_bytes:9} "
        f"{answer.height_bytes:9} {'yes' if fits else 'no':6} {elapsed_seconds:7.2f} "
        f"{answer.method}",
        flush=True,
    )
    return fits


if __name__ == "__main__":
    main()
