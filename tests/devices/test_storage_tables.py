"""Secondary storage: what transfers cost, and which tables a device file may hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.devices.test_devices import MINE

from kilograd import devices
from kilograd.errors import InputError

SD = """
[[storage]]
name = "sd"
title = "a card"
kind = "sd"
size_bytes = 1_048_576
read_seconds = 0.001
read_bytes_per_second = 1_000_000
write_seconds = 0.002
write_bytes_per_second = 500_000
watts = 0.25
block_bytes = 512
sources = ["an estimate, for the tests"]
"""
NOR = """
[[storage]]
name = "qspi"
title = "a flash"
kind = "nor_flash"
size_bytes = 65_536
read_seconds = 0.0
read_bytes_per_second = 10_000_000
write_seconds = 0.0
write_bytes_per_second = 100_000
watts = 0.1
erase_bytes = 4096
erase_seconds = 0.05
erase_cycles = 100_000
"""


def load(folder: Path, *tables: str) -> devices.Device:
    path = folder / "mine.toml"
    path.write_text(MINE + "".join(tables), encoding="utf-8")
    return devices.load(path)


def test_a_card_moves_whole_blocks(tmp_path: Path) -> None:
    card = load(tmp_path, SD).storage[0]
    for size, moved in ((1, 512), (512, 512), (513, 1024)):
        read, write = card.read_cost(size), card.write_cost(size)
        assert read.seconds == pytest.approx(0.001 + moved / 1e6)
        assert write.seconds == pytest.approx(0.002 + moved / 5e5)
        assert read.joules == pytest.approx(0.25 * read.seconds)
        assert write.joules == pytest.approx(0.25 * write.seconds)
        assert card.padded(size) == moved
    assert card.read_cost(0) == card.write_cost(0) == devices.Cost(0.0, 0.0)
    assert card.padded(0) == 0


def test_flash_is_erased_before_it_is_written(tmp_path: Path) -> None:
    flash = load(tmp_path, NOR).storage[0]
    assert flash.read_cost(5000).seconds == pytest.approx(5000 / 1e7)
    for size, blocks in ((1, 1), (4096, 1), (4097, 2), (10_000, 3)):
        write = flash.write_cost(size)
        assert write.seconds == pytest.approx(0.05 * blocks + size / 1e5)
        assert write.joules == pytest.approx(0.1 * write.seconds)
        assert flash.padded(size) == 4096 * blocks


def test_a_tensor_has_whole_blocks_and_erase_blocks_of_its_own(tmp_path: Path) -> None:
    odd = NOR.replace("erase_cycles", "block_bytes = 24\nerase_cycles").replace("65_536", "98_304")
    assert load(tmp_path, odd).storage[0].padded(1) == 12_288


def test_storages_are_found_by_name(tmp_path: Path) -> None:
    device = load(tmp_path, SD, NOR)
    assert device.storage_named() is device.storage[0]
    assert device.storage_named("qspi") is device.storage[1]
    with pytest.raises(InputError, match="'mine' has no storage 'tape'; it has sd, qspi"):
        device.storage_named("tape")
    bare = load(tmp_path)
    assert bare.storage_named() is None
    with pytest.raises(InputError, match=r"it has none: describe it in a \[\[storage\]\] table"):
        bare.storage_named("sd")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "sd"', 'kind = "tape"', r"storage\.0\.kind: Input should be 'sd', 'nor_flash'"),
        ('kind = "sd"', 'kind = "nor_flash"', '"sd" is NOR flash.*"erase_bytes" is missing'),
        ("watts = 0.25\n", "", r"storage\.0\.watts: Field required"),
        ("watts = 0.25", "watts = -1.0", r"storage\.0\.watts: Input should be greater"),
        ("watts = 0.25", "watts = nan", r"storage\.0\.watts: Input should be"),
        ("read_bytes_per_second = 1_000_000", "read_bytes_per_second = 0", "greater than 0"),
        ("size_bytes = 1_048_576", "size_bytes = 1_000_000", "no multiple of block_bytes = 512"),
        ("watts", "erase_seconds = 0.1\nwatts", '"erase_seconds" or "erase_cycles" but no'),
        ("watts", "erase_bytes = 3000\nwatts", "no multiple of erase_bytes = 3000"),
        ("watts", "speed = 3\nwatts", r"storage\.0\.speed: Extra inputs"),
        ('name = "sd"', 'name = ""', r"storage\.0\.name: String should have at least 1"),
    ],
)
def test_bad_storage_tables(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SD
    with pytest.raises(InputError, match=rf"(?s)mine\.toml does not describe a device.*{message}"):
        load(tmp_path, SD.replace(old, new, 1))


def test_names_of_storages_differ(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two storages have the same name: sd, sd"):
        load(tmp_path, SD, SD)


def test_pages_of_poet() -> None:
    """The card of POET's microcontrollers: 330 mW, and its latencies and bandwidths."""
    for name in ("mkr1000", "nrf52840"):
        card = devices.load(name).storage_named("sd")
        assert card is not None
        assert card.read_cost(51_200).joules == pytest.approx(
            0.33 * (0.109e-3 + 51_200 / 4616.51e3), rel=1e-6
        )
        assert card.write_cost(51_200).joules == pytest.approx(
            0.33 * (0.113e-3 + 51_200 / 4440e3), rel=1e-6
        )
