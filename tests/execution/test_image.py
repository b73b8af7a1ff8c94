"""Image analysis: sizes, symbols and the bound on the stack."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from execution_probe import BOARDS, PROBE_FUNCTIONS, PROGRAMS, Board

from kilograd import devices
from kilograd.errors import InputError
from kilograd.execution.image import Image
from kilograd.execution.toolchain import toolchain

UNBOUNDED = {"jump", "recurse", "call_pointer", "variable_frame"}
# On ARMv6-M the compiler aligns a frame by shifting, which the analysis does not follow.
MAY_BE_UNBOUNDED = {"aligned_frame"}
NEEDS_ARGUMENTS = {"store", "store_byte", "load", "jump", "trap", "spin"}


def test_sizes(board: Board) -> None:
    image = board.image
    # Initialised: ones[4], marker, callback. Zero: zeros[25].
    assert image.data_bytes == 24
    assert image.bss_bytes == 100
    assert image.static_bytes == 124
    memory = board.device.memory_map()
    assert image.stack_top == memory.sram_base + memory.sram_bytes
    sections = ELFFile(io.BytesIO(image.path.read_bytes())).iter_sections()
    allocated = [section for section in sections if section["sh_flags"] & 2]
    in_flash = sum(item["sh_size"] for item in allocated if item["sh_type"] != "SHT_NOBITS")
    assert in_flash <= image.flash_bytes < in_flash + 4 * len(allocated)


def test_symbols(board: Board) -> None:
    image = board.image
    assert image.symbol("zeros").size_bytes == 100
    assert not image.symbol("zeros").is_function
    weigh = image.symbol("weigh")
    assert weigh.is_function and weigh.address % 2 == 0
    assert image.function_at(weigh.address) == ("weigh", 0)
    assert image.function_at(weigh.address + 3) == ("weigh", 2)
    assert image.function_at(image.symbol("zeros").address) is None
    assert image.function_at(board.device.memory_map().flash_base) is None
    with pytest.raises(InputError, match=r"no symbol 'absent'.*among the exports"):
        image.symbol("absent")


def test_not_an_image(tmp_path: Path, probe_library: object) -> None:
    text = tmp_path / "text"
    text.write_text("no")
    with pytest.raises(InputError, match="is not an ELF image"):
        Image(text)
    with pytest.raises(InputError, match="cannot read the image"):
        Image(tmp_path / "absent")
    library = toolchain().shared_library([PROGRAMS / "probe.c"], [PROGRAMS], tmp_path / "p.so")
    with pytest.raises(InputError, match="not Arm"):
        Image(library)


@pytest.mark.parametrize("name", sorted(set(PROBE_FUNCTIONS) - NEEDS_ARGUMENTS))
def test_the_bound_covers_what_is_measured(board: Board, name: str) -> None:
    bound = board.image.stack_bound(name)
    if name in UNBOUNDED or (name in MAY_BE_UNBOUNDED and bound.bytes is None):
        assert bound.bytes is None and name in bound.reason
        return
    assert bound.bytes is not None, bound.reason
    arguments = (1, 2, 3, 4, 5, 6) if name == "weigh" else (3, 5)
    measured_bytes = board.emulator.call(name, *arguments).stack_bytes
    passed_on_stack_bytes = 8 if name == "weigh" else 0
    assert measured_bytes - passed_on_stack_bytes <= bound.bytes
    assert sum(in_use for _, in_use in bound.path) == bound.bytes
    assert bound.path[0][0] == name


@pytest.mark.parametrize("name", ["call_chain", "large_frame", "use_storage"])
def test_the_bound_is_tight_where_there_is_one_path(board: Board, name: str) -> None:
    bound_bytes = board.image.stack_bound(name).bytes
    assert bound_bytes is not None
    assert bound_bytes - board.emulator.call(name, 3).stack_bytes <= 8


def test_the_deepest_path_is_told(probe_image: Callable[[str], Image]) -> None:
    bound = probe_image("stm32f746").stack_bound("call_chain")
    assert [name for name, _ in bound.path] == ["call_chain", "middle", "innermost"]
    frames = dict(bound.path)
    assert frames["innermost"] >= 200 and frames["middle"] >= 120


def test_every_case_of_a_jump_table_counts(board: Board) -> None:
    image = board.image
    deepest = max(image.stack_bound(name).bytes or 0 for name in ("call_chain", "large_frame"))
    assert (image.stack_bound("dispatch").bytes or 0) >= deepest


def test_soft_float_is_part_of_the_bound(probe_image: Callable[[str], Image]) -> None:
    names = [name for name, _ in probe_image("rp2040").stack_bound("float_bits").path]
    assert len(names) > 1 and any(name.startswith("__aeabi_") for name in names)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("recurse", "recursion: recurse -> recurse"),
        ("call_pointer", "call_pointer calls through a function pointer"),
        ("variable_frame", "variable_frame sets the stack pointer to a value that is not known"),
    ],
)
def test_why_there_is_no_bound(board: Board, name: str, reason: str) -> None:
    bound = board.image.stack_bound(name)
    assert bound.bytes is None and bound.path == ()
    assert reason in bound.reason


def test_a_bound_needs_a_function(board: Board) -> None:
    with pytest.raises(InputError, match=r"'zeros' in .* is not a function"):
        board.image.stack_bound("zeros")


@pytest.mark.parametrize("name", BOARDS)
def test_frames_agree_with_the_compiler(tmp_path: Path, name: str) -> None:
    elf = toolchain().firmware(
        [PROGRAMS / "probe.c"],
        [PROGRAMS],
        devices.load(name),
        tmp_path / "f.elf",
        exports=PROBE_FUNCTIONS,
        extra_flags=["-fstack-size-section"],
    )
    image = Image(elf)
    compared = 0
    for address, frame_bytes in reported_frames(elf).items():
        where = image.function_at(address)
        assert where is not None
        bound = image.stack_bound(where[0])
        if bound.bytes is None or where[0] == "aligned_frame":
            continue
        # The compiler speaks of one function's frame; the bound's first entry is its depth at the
        # deepest call, which is at most that.
        assert bound.path[0][1] <= frame_bytes
        if len(bound.path) == 1:
            assert bound.bytes == frame_bytes
        compared += 1
    assert compared >= 10


def reported_frames(elf: Path) -> dict[int, int]:
    """Clang's own figures: pairs of an address and a ULEB128 frame size."""
    section = ELFFile(io.BytesIO(elf.read_bytes())).get_section_by_name(".stack_sizes")
    data = section.data()
    frames: dict[int, int] = {}
    position = 0
    while position < len(data):
        address = int.from_bytes(data[position : position + 4], "little") & ~1
        position += 4
        size = shift = 0
        while True:
            byte = data[position]
            position += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        frames[address] = size
    return frames


@pytest.mark.parametrize("name", BOARDS)
def test_bounds_of_gnu_images(tmp_path: Path, name: str) -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    from kilograd.execution.emulator import Emulator

    device = devices.load(name)
    elf = toolchain("gnu").firmware(
        [PROGRAMS / "probe.c"],
        [PROGRAMS],
        device,
        tmp_path / "f.elf",
        exports=[function for function in PROBE_FUNCTIONS if function != "count_up"],
    )
    image = Image(elf)
    emulator = Emulator(image, device)
    for function in ("call_chain", "large_frame", "dispatch", "float_bits", "use_storage"):
        bound = image.stack_bound(function)
        assert bound.bytes is not None, bound.reason
        assert emulator.call(function, 3, 5).stack_bytes <= bound.bytes
