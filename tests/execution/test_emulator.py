"""The emulator: values, counts, stack and faults on every device."""

import ctypes
import importlib
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import unicorn
from execution_probe import PROGRAMS, Board

from kilograd import devices
from kilograd.devices import Device
from kilograd.errors import DeviceFault, InputError
from kilograd.execution.emulator import Emulator
from kilograd.execution.image import Image
from kilograd.execution.toolchain import toolchain


def test_start_up_initialises_memory_and_fpu(board: Board) -> None:
    emulator = board.emulator
    assert emulator.fpu_enabled == (board.device.fpu != "none")
    assert emulator.call("sum_tables").value == 4
    assert emulator.read(emulator.symbol("marker"), 4) == struct.pack("<I", 0x12345678)
    emulator.write(emulator.symbol("zeros"), bytes([9]) * 100)
    assert emulator.call("sum_tables").value == (4 + 25 * 0x09090909) % 2**32
    instructions = emulator.reset()
    assert emulator.call("sum_tables").value == 4
    assert instructions == emulator.reset() > 124 // 4


def test_sram_is_not_zero_at_power_up(board: Board) -> None:
    free = board.image.symbol("_ebss").address
    assert board.emulator.read(free, 4) != bytes(4)


def test_arguments_and_results(board: Board) -> None:
    result = board.emulator.call("weigh", 1, 2, 3, 4, 5, -60)
    assert result.signed_value == 1 + 4 + 9 + 16 + 25 - 360
    assert result.value == result.signed_value + 2**32
    assert board.emulator.call("halve", -3).float_value == -1.5


def test_the_same_bits_everywhere(board: Board, probe_library: ctypes.CDLL) -> None:
    probe_library.float_bits.restype = ctypes.c_uint32
    expected = probe_library.float_bits(20_000)
    assert board.emulator.call("float_bits", 20_000).value == expected


@pytest.mark.parametrize("rounds", [1, 2, 1000, 123_456])
def test_instructions_of_a_counted_loop(board: Board, rounds: int) -> None:
    result = board.emulator.call("count_up", rounds)
    assert result.value == rounds
    assert result.instructions == 3 * rounds + 4


@pytest.mark.parametrize("name", ["float_bits", "call_chain", "sum_tables", "large_frame"])
def test_counts_agree_with_single_steps(board: Board, name: str) -> None:
    emulator = board.emulator
    counted = emulator.call(name, 50).instructions
    steps = 0
    in_it_block = 0

    def on_instruction(uc: unicorn.Uc, address: int, size: int, _: object) -> None:
        nonlocal steps, in_it_block
        steps += 1
        if size == 2:
            opcode = int.from_bytes(uc.mem_read(address, 2), "little")
            if opcode & 0xFF00 == 0xBF00 and opcode & 0xF:
                in_it_block += it_length(opcode)

    emulator._uc.hook_add(unicorn.UC_HOOK_CODE, on_instruction)
    emulator._uc.ctl_flush_tb()
    assert emulator.call(name, 50).instructions == counted
    # The hook is not told of instructions whose condition fails in an IT block; they count.
    assert steps <= counted <= steps + in_it_block
    if board.device.cpu == "cortex-m0plus":
        assert in_it_block == 0


def it_length(opcode: int) -> int:
    mask = opcode & 0xF
    return 4 - ((mask & -mask).bit_length() - 1)


def test_profile_adds_up(board: Board) -> None:
    counted = board.emulator.call("call_chain", 5).instructions
    profile = board.emulator.profile("call_chain", 5)
    assert sum(profile.values()) == counted
    assert next(iter(profile)) == "innermost"
    assert {"call_chain", "middle", "innermost"} <= set(profile)
    assert list(profile.values()) == sorted(profile.values(), reverse=True)


def test_stack_is_measured(board: Board) -> None:
    emulator = board.emulator
    assert emulator.call("count_up", 5).stack_bytes == 0
    assert emulator.call("large_frame", 5).stack_bytes >= 4000
    assert emulator.call("count_up", 5).stack_bytes == 0
    shallow, deep = (emulator.call("recurse", depth).stack_bytes for depth in (10, 110))
    assert deep - shallow >= 100 * 64


def sram_end(device: Device) -> int:
    memory = device.memory_map()
    return memory.sram_base + memory.sram_bytes


def test_one_byte_beyond_the_sram(board: Board) -> None:
    end = sram_end(board.device)
    board.emulator.call("store_byte", end - 1, 1)
    with pytest.raises(DeviceFault) as caught:
        board.emulator.call("store_byte", end, 1)
    message = str(caught.value)
    assert f"write of 1 bytes at {end:#010x} in store_byte+0x0" in message
    assert board.device.name in message and "beyond the end of SRAM" in message
    assert board.emulator.call("count_up", 4).value == 4


def test_faults_are_explained(board: Board) -> None:
    memory = board.device.memory_map()
    call = board.emulator.call
    with pytest.raises(DeviceFault, match=r"write of 4 bytes.*before the start of SRAM"):
        call("store", memory.sram_base - 4, 1)
    with pytest.raises(DeviceFault, match=r"write of 4 bytes.*a constant is being changed"):
        call("store", memory.flash_base + 0x800, 1)
    with pytest.raises(DeviceFault, match=r"read of 4 bytes at 0x40000000.*no memory there"):
        call("load", 0x40000000)
    with pytest.raises(DeviceFault, match=r"read of 4 bytes at 0xe000e010.*no memory there"):
        call("load", 0xE000E010)
    with pytest.raises(DeviceFault, match=r"instruction fetch.*a jump to what is not code"):
        call("jump", memory.sram_base + 1)
    with pytest.raises(DeviceFault, match=r"in trap\+0x0"):
        call("trap")
    if memory.flash_base:
        with pytest.raises(DeviceFault, match="a null pointer"):
            call("load", 0)


def test_only_cortex_m0_faults_on_unaligned_access(board: Board) -> None:
    address = board.emulator.symbol("zeros") + 2
    if board.device.cpu == "cortex-m0plus":
        with pytest.raises(DeviceFault, match=r"unaligned access in load\+0x0"):
            board.emulator.call("load", address)
    else:
        assert board.emulator.call("load", address).value == 0


def test_erased_flash_reads_ff(board: Board) -> None:
    memory = board.device.memory_map()
    last = memory.flash_base + memory.flash_bytes - 4
    assert board.emulator.call("load", last).value == 0xFFFFFFFF


def test_stack_overflow(board: Board) -> None:
    with pytest.raises(DeviceFault, match="stack overflow"):
        board.emulator.call("recurse", 10_000_000)
    board.emulator.reset()
    assert board.emulator.call("recurse", 3).value > 0


def test_a_stack_that_just_fits_and_one_that_does_not(tmp_path: Path) -> None:
    source = tmp_path / "fit.c"
    source.write_text(
        "#include <stdint.h>\n"
        "uint32_t f(uint32_t); uint32_t g(uint32_t); uint8_t fill[SIZE];\n"
        "__attribute__((noinline)) uint32_t g(uint32_t n) {\n"
        "  volatile uint32_t x[8]; for (uint32_t i = 0; i < 8u; ++i) { x[i] = n; }\n"
        "  return x[n % 8u]; }\n"
        "uint32_t f(uint32_t n) { fill[n] = 1; return g(n) + g(n + 1u); }\n",
        encoding="utf-8",
    )
    device = devices.load("stm32f746")

    def build(size: int, stack_bytes: int) -> Image:
        return Image(
            toolchain().firmware(
                [source],
                [],
                device,
                tmp_path / "fit.elf",
                exports=["f"],
                stack_bytes=stack_bytes,
                extra_flags=[f"-DSIZE={size}"],
            )
        )

    bound_bytes = build(8, 0).stack_bound("f").bytes
    assert bound_bytes is not None
    fitting_bytes = device.memory_map().sram_bytes - bound_bytes
    image = build(fitting_bytes, bound_bytes)
    assert image.static_bytes + bound_bytes == device.memory_map().sram_bytes
    result = Emulator(image, device).call("f", 3)
    assert result.value == 7 and result.stack_bytes == bound_bytes
    # The stack is in SRAM all the same, so only the check after the call can tell.
    with pytest.raises(DeviceFault, match=r"stack overflow: f used all .* static data may be"):
        Emulator(build(fitting_bytes + 8, 0), device).call("f", 3)


def test_instruction_limit(board: Board) -> None:
    with pytest.raises(DeviceFault, match=r"spin has not returned .* limit being 5000.* in spin"):
        board.emulator.call("spin", instruction_limit=5000)
    exactly = board.emulator.call("count_up", 10).instructions
    board.emulator.call("count_up", 10, instruction_limit=exactly)
    with pytest.raises(DeviceFault, match="has not returned"):
        board.emulator.call("count_up", 10, instruction_limit=exactly - 1)


def test_served_functions(board: Board) -> None:
    emulator = board.emulator
    plain = emulator.call("use_storage", 7)
    assert plain.value == (7 + 8) * 1000
    calls = []

    def read_storage(block: int, to: int, size_bytes: int, _unused: int) -> int:
        calls.append((block, size_bytes))
        emulator.write(to, bytes(range(1, size_bytes + 1)))
        return 2

    emulator.serve("read_storage", read_storage)
    served = emulator.call("use_storage", 7)
    assert served.value == 2000 + 1 + 8
    assert calls == [(7, 8)]
    body = board.image.symbol("read_storage").size_bytes // 2
    assert plain.instructions - body <= served.instructions < plain.instructions


def test_what_a_served_function_raises_comes_out(board: Board) -> None:
    def fail(*_registers: int) -> int:
        raise RuntimeError("the card is gone")

    board.emulator.serve("read_storage", fail)
    with pytest.raises(RuntimeError, match="the card is gone"):
        board.emulator.call("use_storage", 1)


def test_debugger_access_is_checked(board: Board) -> None:
    end = sram_end(board.device)
    board.emulator.write(end - 4, b"abcd")
    assert board.emulator.read(end - 4, 4) == b"abcd"
    with pytest.raises(InputError, match="has no 4 bytes of memory"):
        board.emulator.read(end - 2, 4)
    with pytest.raises(InputError, match="has no 1 bytes of memory"):
        board.emulator.write(board.device.memory_map().sram_base - 1, b"x")


def test_bad_calls(board: Board) -> None:
    with pytest.raises(InputError, match="no symbol 'absent'"):
        board.emulator.call("absent")
    with pytest.raises(InputError, match="'marker' is not a function"):
        board.emulator.call("marker")


def test_an_image_for_another_device(probe_image: Callable[[str], Image]) -> None:
    image = probe_image("stm32f746")
    with pytest.raises(InputError, match="outside the flash of nrf52840"):
        Emulator(image, devices.load("nrf52840"))
    with pytest.raises(InputError, match=r"its stack at 0x20050000.* ends at 0x20040000"):
        Emulator(image, devices.load("cortex-m7-256k"))


def test_thumb2_code_does_not_run_on_cortex_m0(probe_image: Callable[[str], Image]) -> None:
    image = probe_image("stm32f746")
    strange = devices.load("stm32f746").model_copy(update={"cpu": "cortex-m0plus"})
    with pytest.raises(DeviceFault):
        Emulator(image, strange).call("float_bits", 100)


def test_memories_that_end_within_a_page(tmp_path: Path) -> None:
    device = devices.load("nrf52840").model_copy(
        update={"name": "odd", "sram_bytes": 10_000, "flash_bytes": 20_000}
    )
    elf = toolchain().firmware(
        [PROGRAMS / "probe.c"],
        [PROGRAMS],
        device,
        tmp_path / "odd.elf",
        exports=["store_byte", "load", "call_chain"],
    )
    emulator = Emulator(Image(elf), device)
    end = sram_end(device)
    emulator.call("store_byte", end - 1, 1)
    with pytest.raises(DeviceFault, match=f"write of 1 bytes at {end:#010x} in store_byte"):
        emulator.call("store_byte", end, 1)
    with pytest.raises(DeviceFault, match=r"read of 4 bytes.* in load"):
        emulator.call("load", end - 2)
    assert emulator.call("load", 20_000 - 4).value == 0xFFFFFFFF
    with pytest.raises(DeviceFault, match="read of 4 bytes"):
        emulator.call("load", 20_000)
    assert emulator.call("call_chain", 3).stack_bytes == Image(elf).stack_bound("call_chain").bytes


def test_without_unicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "unicorn", None)
    monkeypatch.delitem(sys.modules, "kilograd.execution.emulator")
    with pytest.raises(InputError, match=r'pip install "kilograd\[emulator\]"'):
        importlib.import_module("kilograd.execution.emulator")
