"""Device files: what comes with kilograd, what a user may write, what is refused."""

from pathlib import Path

import pydantic
import pytest

from kilograd import devices
from kilograd.errors import InputError

MINE = """
name = "mine"
title = "A board of my own"
cpu = "cortex-m4"
fpu = "single"
clock_hz = 120_000_000
sram_base = 0x2000_0000
sram_bytes = 65_536
flash_base = 0x0800_0000
flash_bytes = 524_288
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_names_are_sorted_and_load() -> None:
    assert devices.names() == [
        *("cortex-m7-256k", "host", "jetson-tx2", "mkr1000", "nrf52840", "rp2040"),
        *("rpi4", "rpi4-uncached", "stm32f746"),
    ]
    for name in devices.names():
        assert devices.load(name).name == name


@pytest.mark.parametrize(
    ("name", "sram_bytes", "flash_bytes", "clock_hz"),
    [
        ("stm32f746", 320 * 1024, 1024 * 1024, 216_000_000),
        ("nrf52840", 256 * 1024, 1024 * 1024, 64_000_000),
        ("rp2040", 264 * 1024, 2048 * 1024 - 256, 133_000_000),
        ("cortex-m7-256k", 256 * 1024, 1024 * 1024, 216_000_000),
        ("mkr1000", 32 * 1024, 248 * 1024, 48_000_000),
    ],
)
def test_sizes(name: str, sram_bytes: int, flash_bytes: int, clock_hz: int) -> None:
    device = devices.load(name)
    memory = device.memory_map()
    assert (memory.sram_bytes, memory.flash_bytes) == (sram_bytes, flash_bytes)
    assert device.clock_hz == clock_hz
    assert device.sources


def test_every_estimate_says_how_good_it_is() -> None:
    for name in devices.names():
        device = devices.load(name)
        assert device.cycles_quality
        if device.joules_per_cycle is not None:
            assert device.joules_source != "unknown"
        if device.cycles_per_instruction is not None or device.flop_per_second is not None:
            assert device.cycles_quality != "unknown"
        if device.flop_per_joule is not None:
            assert device.joules_source != "unknown"


def test_every_microcontroller_has_an_estimate_and_a_storage() -> None:
    boards = [devices.load(name) for name in devices.names()]
    for board in (board for board in boards if not board.is_host):
        assert board.seconds(10**6) and board.joules(10**6), board.name
        assert board.storage[0].kind == "sd", board.name


def test_every_number_of_a_storage_has_a_source() -> None:
    for name in devices.names():
        for storage in devices.load(name).storage:
            told = " ".join(storage.sources)
            words = ["size", "power", "latenc", "bandwidth"]
            words += ["erase", "endurance"] if storage.erase_bytes else []
            words += ["block"] if storage.block_bytes > 1 else []
            for word in words:
                assert word in told, f"{name}, {storage.name}: {word}"


def test_loading_a_device_returns_it() -> None:
    device = devices.load("stm32f746")
    assert devices.load(device) is device


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path, MINE)
    for given in (path, str(path)):
        device = devices.load(given)
        assert device.name == "mine"
        assert device.sram_bytes == 65_536
        assert device.cycles_per_instruction is None
        assert device.seconds(1000) is None


def test_time_and_energy_of_instructions(tmp_path: Path) -> None:
    text = MINE + "cycles_per_instruction = 1.5\njoules_per_cycle = 1e-10\n"
    device = devices.load(write(tmp_path, text))
    assert device.seconds(8_000_000) == pytest.approx(0.1)
    assert device.joules(2_000_000) == pytest.approx(3e-4)


def test_a_device_cannot_be_changed() -> None:
    with pytest.raises(pydantic.ValidationError):
        devices.load("host").name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["host", "rpi4", "rpi4-uncached", "jetson-tx2"])
def test_the_host_has_no_memory_map(name: str) -> None:
    host = devices.load(name)
    assert host.is_host
    assert host.kernel_table() is None
    with pytest.raises(InputError, match=r"no SRAM and flash of a fixed size.*stm32f746"):
        host.memory_map()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stm32f764", "did you mean 'stm32f746'"),
        ("STM32F746", "did you mean 'stm32f746'"),
        ("zzz", r"no device 'zzz'; Known devices: cortex-m7-256k, host"),
        ("absent.toml", "cannot read the device file absent.toml"),
    ],
)
def test_unknown_devices(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        devices.load(name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("clock_hz = 120_000_000\n", "", '"clock_hz" is missing'),
        ('title = "A board of my own"\n', "", "title: Field required"),
        ('cpu = "cortex-m4"', 'cpu = "cortex-m3"', "cpu: Input should be"),
        ('fpu = "single"', 'fpu = "none"', 'goes with fpu = "single"'),
        ("sram_bytes = 65_536", "sram_bytes = 65_530", "multiples of 8"),
        ("flash_base = 0x0800_0000", "flash_base = 0x2000_8000", "SRAM and flash overlap"),
        ("sram_base = 0x2000_0000", "sram_base = 0xFFFF_FFF8", "beyond the 32-bit address space"),
        ("clock_hz", "clock_mhz = 1\nclock_hz", "clock_mhz: Extra inputs"),
        ("name =", "name", "is not TOML"),
        ("name =", "flop_per_second = 1e9\nname =", 'give "cycles_per_instruction"'),
        ("name =", 'kernels = "none.json"\nname =', r"cannot read the kernel table .*none\.json"),
    ],
)
def test_bad_device_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINE
    path = write(tmp_path, MINE.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        devices.load(path)
