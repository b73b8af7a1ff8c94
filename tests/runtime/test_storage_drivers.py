"""The drivers in C, under a sanitizer: pages through each, with its geometry and its failures."""

from __future__ import annotations

import ctypes
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.c_library import build_library

TEXT = Path(__file__).with_name("storage_drivers.c").read_text()

KINDS = ["ram", "nor", "card", "file"]
SIZES = [1, 4, 511, 512, 513, 1500, 2048, 2049, 5000]


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    flags = ("-fsanitize=undefined", "-fsanitize-trap=undefined")
    library = build_library(TEXT, tmp_path_factory.mktemp("drivers"), *flags)
    for name in ("open_storage", "out", "keep", "in", "fits", "lacks", "read_only"):
        getattr(library, name).restype = ctypes.c_bool
    for name in ("mistakes", "calls_made", "size_of_card", "crc_of"):
        getattr(library, name).restype = ctypes.c_uint32
    library.content.restype = ctypes.c_void_p
    return library


class Storage:
    """A driver of the library, opened afresh."""

    def __init__(self, c: ctypes.CDLL, kind: str, directory: Path) -> None:
        self.c = c
        assert c.open_storage(kind.encode(), str(directory / "storage.bin").encode())

    def out(self, offset: int, data: bytes, function: str = "out") -> bool:
        buffer = ctypes.create_string_buffer(data, len(data))
        return getattr(self.c, function)(offset, buffer, len(data))

    def read(self, offset: int, size: int) -> bytes | None:
        """The page, or None where it is refused; nothing behind it is touched."""
        buffer = ctypes.create_string_buffer(b"\xa5" * (size + 8), size + 8)
        good = getattr(self.c, "in")(offset, buffer, size)
        assert buffer.raw[size:] == b"\xa5" * 8
        return buffer.raw[:size] if good else None


def data(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


@pytest.mark.parametrize("function", ["out", "keep"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_pages_come_back(c, kind: str, size: int, function: str, tmp_path: Path):
    storage = Storage(c, kind, tmp_path)
    for seed in range(3):  # written over and over: flash has to be erased
        assert storage.out(4096, data(size, seed), function)
        assert storage.read(4096, size) == data(size, seed)
    assert c.mistakes() == 0


@pytest.mark.parametrize("kind", ["ram", "nor", "card"])
def test_pages_leave_their_neighbours_alone(c, kind: str, tmp_path: Path):
    storage = Storage(c, kind, tmp_path)
    assert storage.out(4096, data(2049))
    memory = ctypes.string_at(c.content(), 16384)
    assert set(memory[:4096]) == set(memory[8192:]) == {0x5A}
    assert memory[4096 : 4096 + 2049] == data(2049)


@pytest.mark.parametrize("kind", ["nor", "card"])
def test_every_call_of_a_driver_may_fail(c, kind: str, tmp_path: Path):
    storage = Storage(c, kind, tmp_path)
    c.fail(0)
    assert storage.out(4096, data(3000), "keep") and storage.read(4096, 3000)
    count = c.calls_made()
    assert count >= 4
    for number in range(1, count + 1):
        c.fail(number)
        assert not (storage.out(4096, data(3000), "keep") and storage.read(4096, 3000))
    c.fail(0)
    assert storage.out(4096, data(3000), "keep") and storage.read(4096, 3000) == data(3000)


@pytest.mark.parametrize("kind", ["ram", "nor", "card"])
@pytest.mark.parametrize("bit", [0, 4095, 8 * 1500 - 1])
def test_a_flipped_bit_is_seen(c, kind: str, bit: int, tmp_path: Path):
    storage = Storage(c, kind, tmp_path)
    assert storage.out(4096, data(1500))
    address = c.content() + 4096 + bit // 8
    ctypes.memset(address, ctypes.string_at(address, 1)[0] ^ (1 << bit % 8), 1)
    assert storage.read(4096, 1500) is None


def test_flash_that_was_not_programmed_is_seen(c, tmp_path: Path):
    """A write that claims success and left a worn cell as it was fails itself."""
    storage = Storage(c, "nor", tmp_path)
    c.stick(True)
    assert not storage.out(4096, data(600))
    c.stick(False)
    assert storage.out(4096, data(600))


def test_a_file_that_ends_early_is_seen(c, tmp_path: Path):
    storage = Storage(c, "file", tmp_path)
    assert storage.out(0, data(1000))
    (tmp_path / "storage.bin").write_bytes(data(1000)[:999])
    assert storage.read(0, 1000) is None


def test_geometry_is_checked(c):
    assert c.fits(4096, 4096, 1, 512, 0, 512)
    assert c.fits(4096, 4096, 512, 512, 4096, 4096)
    assert c.fits(4096, 4096, 256, 512, 1024, 4096)
    assert not c.fits(4095, 4096, 1, 512, 0, 512), "too small"
    assert not c.fits(4096, 4096, 1024, 512, 0, 512), "larger blocks than planned"
    assert not c.fits(4096, 4096, 0, 512, 0, 512)
    assert not c.fits(4096, 4096, 512, 512, 8192, 4096), "larger erase blocks than planned"
    assert not any(c.lacks(what) for what in range(4)) and c.lacks(4)
    assert c.read_only()


def test_large_cards(c):
    assert c.size_of_card(100) == 51200
    assert c.size_of_card(0xFFFFFFFF) == 0xFFFFFFFF // 512 * 512


def test_checksums_are_those_of_zlib(c):
    """Of every length and at every address, as an input of the caller may lie."""
    text = ctypes.create_string_buffer(data(300), 300)
    for start in range(9):
        for size in (*range(12), 100, 255, 256, 291):
            found = c.crc_of(ctypes.byref(text, start), size)
            assert found == zlib.crc32(text.raw[start : start + size])
