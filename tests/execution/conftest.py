"""The probe program, built once for every device and for the host."""

import ctypes
from collections.abc import Callable

import pytest
from execution_probe import BOARDS, PROBE_FUNCTIONS, PROGRAMS, Board

from kilograd import devices
from kilograd.execution.emulator import Emulator
from kilograd.execution.image import Image
from kilograd.execution.toolchain import toolchain


@pytest.fixture(scope="session")
def probe_image(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Image]:
    folder = tmp_path_factory.mktemp("probe")
    images: dict[str, Image] = {}

    def build(name: str) -> Image:
        if name not in images:
            elf = toolchain().firmware(
                [PROGRAMS / "probe.c", PROGRAMS / "counted_loop.c"],
                [PROGRAMS],
                devices.load(name),
                folder / f"{name}.elf",
                exports=PROBE_FUNCTIONS,
            )
            images[name] = Image(elf)
        return images[name]

    return build


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest, probe_image: Callable[[str], Image]) -> Board:
    device = devices.load(request.param)
    image = probe_image(request.param)
    return Board(device, image, Emulator(image, device))


@pytest.fixture(scope="session")
def probe_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    output = tmp_path_factory.mktemp("host") / "probe.so"
    library = toolchain().shared_library([PROGRAMS / "probe.c"], [PROGRAMS], output)
    return ctypes.CDLL(str(library))
