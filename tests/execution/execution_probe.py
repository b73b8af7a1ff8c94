"""What the tests of this folder share: the probe program and the boards it runs on."""

import re
from dataclasses import dataclass
from pathlib import Path

from kilograd.devices import Device
from kilograd.execution.emulator import Emulator
from kilograd.execution.image import Image

PROGRAMS = Path(__file__).with_name("programs")
BOARDS = ("stm32f746", "nrf52840", "rp2040")
PROBE_FUNCTIONS = (
    *re.findall(r"(\w+)\(", (PROGRAMS / "probe.h").read_text(encoding="utf-8")),
    "count_up",
)


@dataclass(frozen=True)
class Board:
    """The probe on one device; `emulator` is fresh for every test."""

    device: Device
    image: Image
    emulator: Emulator
