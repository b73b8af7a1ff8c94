"""Print how fast the emulator runs and how long firmware takes to build.

python benchmarks/emulator_speed.py
"""

import os
import tempfile
import time
from pathlib import Path

from kilograd import devices
from kilograd.execution.emulator import Emulator
from kilograd.execution.image import Image
from kilograd.execution.toolchain import toolchain

PROGRAMS = Path(__file__).parents[1] / "tests" / "execution" / "programs"
CALLS = {"float_bits": 2_000_000, "count_up": 50_000_000}
DEVICES = ("stm32f746", "nrf52840", "rp2040")


def build(name: str, folder: Path, tag: str) -> tuple[Image, float]:
    """Build the probe program with a flag that makes it differ from every other build."""
    start = time.perf_counter()
    elf = toolchain().firmware(
        [PROGRAMS / "probe.c", PROGRAMS / "counted_loop.c"],
        [PROGRAMS],
        devices.load(name),
        folder / f"{name}.elf",
        exports=tuple(CALLS),
        extra_flags=[f"-DTAG={tag}"],
    )
    return Image(elf), time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["KILOGRAD_CACHE"] = f"{scratch}/cache"
        os.environ["ZIG_GLOBAL_CACHE_DIR"] = f"{scratch}/zig"
        print("device        first build   changed flag   cached")
        images = {}
        for name in DEVICES:
            _, cold_seconds = build(name, Path(scratch), "1")
            images[name], warm_seconds = build(name, Path(scratch), "2")
            _, cached_seconds = build(name, Path(scratch), "2")
            print(f"{name:12} {cold_seconds:8.2f} s {warm_seconds:12.2f} s {cached_seconds:9.4f} s")
        print("\ndevice       function     instructions   million a second")
        for name, image in images.items():
            emulator = Emulator(image, devices.load(name))
            for function, argument in CALLS.items():
                emulator.call(function, 1)
                start = time.perf_counter()
                result = emulator.call(function, argument)
                seconds = time.perf_counter() - start
                rate = result.instructions / seconds / 1e6
                print(f"{name:12} {function:12} {result.instructions:12} {rate:12.0f}")
        emulator = Emulator(images["stm32f746"], devices.load("stm32f746"))
        start = time.perf_counter()
        for _ in range(1000):
            emulator.call("count_up", 1)
        print(f"\nan empty call: {(time.perf_counter() - start) * 1e3:.0f} us")


if __name__ == "__main__":
    main()
