"""How long a search takes, and what it finds: MCUNet-5FPS with ImageNet weights on digits.

    python benchmarks/searching.py [--method quick] [--rounds N] [--resolution 48] [--sram 256KB]
        [--jobs 2]

The task of contributions.py, measured anew in an empty store, on this computer; prints seconds of
contributions, selection and trial, processor seconds of all processes, the table, and the schemes
for an STM32F746. Judged by a third of the samples that are not for testing, drawn with each seed.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

import contributions
import torch
import transfer
from joblib.externals.loky import get_reusable_executor

import kilograd as kg


def main() -> None:
    parser = argparse.ArgumentParser(description="a search on MCUNet")
    parser.add_argument("--method", choices=("measured", "quick", "fast"), default="quick")
    parser.add_argument("--resolution", type=int, default=48)
    parser.add_argument("--precision", choices=("float32", "int8"), default="int8")
    parser.add_argument("--sram", default="256KB")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--front", type=int, default=6)
    parser.add_argument("--rounds", type=int, help="of refinement, by default the method's")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--store", type=Path, help="keep measurements; a new, empty one by default")
    parser.add_argument("--output", type=Path, default=contributions.STORE / "found")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = transfer.digits(arguments.resolution)
    model, example, options = contributions.mcunet(task, arguments.precision)
    with tempfile.TemporaryDirectory() as scratch:
        found = kg.search(
            model,
            example,
            data=task.pool,
            method=arguments.method,
            device="stm32f746",
            budget=kg.Budget(sram=arguments.sram),
            samples=arguments.samples,
            front=arguments.front,
            rounds=arguments.rounds,
            jobs=arguments.jobs,
            store=arguments.store or scratch,
            **options,
        )
    measured, selected, tried = found.seconds
    # Workers of joblib are waited for when their executor goes.
    get_reusable_executor().shutdown(wait=True)
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"processor seconds: {sum(u.ru_utime + u.ru_stime for u in used):.0f}")
    print(f"contributions {measured:.0f} s, selection {selected:.0f} s, trial {tried:.0f} s\n")
    print(f"{found.table()}\n")
    for point in found.points:
        told = f"{point.told()}, trained {point.realised}"
        print(f"{point.sram_bytes:9,} B {100 * point.gain:+6.1f} {told}")
    print(found.save(arguments.output))


if __name__ == "__main__":
    main()
