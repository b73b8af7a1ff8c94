"""How long a search takes, and what it finds: MCUNet-5FPS with ImageNet weights on digits.

    python benchmarks/searching.py [--method quick] [--resolution 48] [--sram 256KB] [--jobs 2]

The task of contributions.py, measured anew in an empty store, on this computer; prints seconds of
contributions and selection, the table, and the front for an STM32F746. Judged by the 200 test
samples of transfer.py.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import contributions
import torch
import transfer
from real_data import data_file

import kilograd as kg
from kilograd import zoo


def main() -> None:
    parser = argparse.ArgumentParser(description="a search on MCUNet")
    parser.add_argument("--method", choices=("measured", "quick", "fast"), default="quick")
    parser.add_argument("--resolution", type=int, default=48)
    parser.add_argument("--precision", choices=("float32", "int8"), default="int8")
    parser.add_argument("--sram", default="256KB")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--front", type=int, default=6)
    parser.add_argument("--output", type=Path, default=contributions.STORE / "found")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = transfer.digits(arguments.resolution)
    model, example = zoo.create(
        "mcunet_5fps",
        num_classes=task.classes,
        weights=data_file(transfer.WEIGHTS),
        resolution=arguments.resolution,
    )
    some = task.pool[0][: transfer.CALIBRATION]
    transfer.scale_features(model, some)
    calibration = {"calibration": some} if arguments.precision == "int8" else {}
    with tempfile.TemporaryDirectory() as store:
        found = kg.search(
            model,
            example,
            data=task.pool,
            test=task.test,
            method=arguments.method,
            device="stm32f746",
            budget=kg.Budget(sram=arguments.sram),
            optimizer=kg.SGD(lr=0.01),
            precision=arguments.precision,
            front=arguments.front,
            jobs=arguments.jobs,
            store=store,
            **calibration,
        )
    measured, selected = found.seconds
    print(f"contributions {measured:.0f} s, selection {selected:.0f} s\n\n{found.table()}\n")
    for point in found.front:
        print(f"{point.sram_bytes:9,} B {100 * point.gain:+6.1f} proven {point.proven}")
    print(found.save(arguments.output))


if __name__ == "__main__":
    main()
