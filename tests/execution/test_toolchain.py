"""Toolchains: what they build, what they refuse, what the cache saves."""

import ctypes
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import capstone
import pytest
from execution_probe import PROGRAMS

from kilograd import devices
from kilograd.errors import CompilerBug, InfeasibleError, InputError
from kilograd.execution.build_cache import build_key
from kilograd.execution.image import Image
from kilograd.execution.linking import linker_script
from kilograd.execution.toolchain import toolchain


def write(folder: Path, text: str, name: str = "program.c") -> Path:
    path = folder / name
    path.write_text("#include <stdint.h>\n" + text, encoding="utf-8")
    return path


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, starting any compiler fails the test."""

    def forbid(*_arguments: object, **_options: object) -> None:
        raise AssertionError("the compiler ran")

    return lambda: monkeypatch.setattr(subprocess, "run", forbid)


def test_unknown_toolchain() -> None:
    with pytest.raises(InputError, match="no toolchain 'tcc'; choose from zig, gnu, cc"):
        toolchain("tcc")


@pytest.mark.parametrize(("name", "hint"), [("gnu", "apt install gcc-arm"), ("cc", "build-essen")])
def test_missing_toolchain(monkeypatch: pytest.MonkeyPatch, name: str, hint: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(InputError, match=f"'{name}' is not installed: .*{hint}"):
        toolchain(name)


@pytest.mark.parametrize("name", ["zig", "cc"])
def test_shared_library(tmp_path: Path, name: str) -> None:
    if name == "cc" and shutil.which("cc") is None:
        pytest.skip("no system compiler")
    source = write(
        tmp_path, "int32_t add(int32_t, int32_t);int32_t add(int32_t a, int32_t b) {return a + b;}"
    )
    library = ctypes.CDLL(str(toolchain(name).shared_library([source], [], tmp_path / "add.so")))
    assert library.add(20, 22) == 42


def test_a_compiler_error_is_our_bug(tmp_path: Path) -> None:
    source = write(tmp_path, "int32_t f(void);int32_t f(void) { return nothing; }")
    with pytest.raises(CompilerBug, match=r"(?s)rejects the generated code.*'nothing'"):
        toolchain().shared_library([source], [], tmp_path / "f.so")
    assert not (tmp_path / "f.so").exists()


def test_warnings_are_errors(tmp_path: Path) -> None:
    source = write(tmp_path, "int8_t f(int32_t);int8_t f(int32_t x) { return x; }")
    with pytest.raises(CompilerBug, match="conversion"):
        toolchain().firmware([source], [], devices.load("rp2040"), tmp_path / "f.elf")


def test_flash_overflow(tmp_path: Path) -> None:
    source = write(tmp_path, "extern const uint8_t t[]; const uint8_t t[2000000] = {1};")
    with pytest.raises(
        InfeasibleError, match=r"does not fit stm32f746: .* bytes of flash"
    ) as caught:
        toolchain().firmware(
            [source], [], devices.load("stm32f746"), tmp_path / "f.elf", exports=["t"]
        )
    assert "than the 1048576 it has" in str(caught.value)


def test_sram_overflow(tmp_path: Path) -> None:
    source = write(tmp_path, "extern uint8_t t[]; uint8_t t[262152];")
    with pytest.raises(InfeasibleError, match=r"need 262152 bytes of SRAM, 8 more than the 262144"):
        toolchain().firmware(
            [source], [], devices.load("nrf52840"), tmp_path / "f.elf", exports=["t"]
        )


def test_stack_is_part_of_the_sram(tmp_path: Path) -> None:
    source = write(tmp_path, "extern uint8_t t[]; uint8_t t[262144 - 4096];")
    nrf = devices.load("nrf52840")
    fits = toolchain().firmware(
        [source], [], nrf, tmp_path / "f.elf", exports=["t"], stack_bytes=4096
    )
    assert Image(fits).static_bytes == 262144 - 4096
    with pytest.raises(InfeasibleError, match="a stack of 4097 bytes do not fit the 262144 bytes"):
        toolchain().firmware([source], [], nrf, tmp_path / "g.elf", exports=["t"], stack_bytes=4097)


def test_toolchains_say_what_they_do_not_build(tmp_path: Path) -> None:
    source = write(tmp_path, "typedef int32_t Word;")
    with pytest.raises(InputError, match="no SRAM and flash of a fixed size"):
        toolchain().firmware([source], [], devices.load("host"), tmp_path / "f")
    if shutil.which("cc"):
        with pytest.raises(InputError, match="'cc' builds for the host only"):
            toolchain("cc").firmware([source], [], devices.load("rp2040"), tmp_path / "f")
    if shutil.which("arm-none-eabi-gcc"):
        with pytest.raises(InputError, match="'gnu' builds for devices only"):
            toolchain("gnu").shared_library([source], [], tmp_path / "f")


SHIFT = """
int main(int argc, char **argv);
int main(int argc, char **argv) { (void)argv; return (1 << (30 + argc)) == 0; }
"""
OUT_OF_BOUNDS = """
int main(int argc, char **argv);
int main(int argc, char **argv) {
  volatile uint8_t here[8] = {0};
  (void)argv;
  volatile uint8_t *volatile at = here;
  return at[argc * 8];
}
"""


def exit_code(program: Path, *arguments: str) -> int:
    return subprocess.run([program, *arguments], capture_output=True, check=False).returncode


def test_undefined_behaviour_stops_a_sanitised_program(tmp_path: Path) -> None:
    source = write(tmp_path, SHIFT)
    clean = toolchain().executable([source], [], tmp_path / "clean")
    assert exit_code(clean, "x") in (0, 1)
    checked = toolchain().executable([source], [], tmp_path / "checked", sanitize=True)
    assert exit_code(checked) not in (0, 1)


def test_a_sanitised_library_ends_the_process(tmp_path: Path) -> None:
    source = write(tmp_path, "int f(int);int f(int n) { return 1 << n; }")
    library = toolchain().shared_library([source], [], tmp_path / "f.so", sanitize=True)
    call = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).f(int(sys.argv[2])))"

    def run(argument: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", call, str(library), argument]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("4").stdout.strip() == "16"
    assert run("40").returncode != 0
    assert "shift exponent 40" in run("40").stderr


def test_the_system_compiler_also_checks_addresses(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no system compiler")
    source = write(tmp_path, OUT_OF_BOUNDS)
    try:
        checked = toolchain("cc").executable([source], [], tmp_path / "checked", sanitize=True)
    except CompilerBug:
        pytest.skip("the system compiler has no address sanitizer")
    result = subprocess.run([checked], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "AddressSanitizer" in result.stderr


def test_the_second_build_comes_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_compiler: Callable[[], None]
) -> None:
    monkeypatch.setenv("KILOGRAD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = write(tmp_path / "one", '#include "n.h"\nint f(void);int f(void) { return N; }')
    write(tmp_path / "one", "#define N 1\n", "n.h")
    one = toolchain().shared_library([first], [], tmp_path / "one.so")
    # The same project in another place, built to another place.
    second = write(tmp_path / "two", '#include "n.h"\nint f(void);int f(void) { return N; }')
    write(tmp_path / "two", "#define N 1\n", "n.h")
    no_compiler()
    two = toolchain().shared_library([second], [], tmp_path / "two.so")
    assert two.read_bytes() == one.read_bytes()
    write(tmp_path / "two", "#define N 2\n", "n.h")
    with pytest.raises(AssertionError, match="the compiler ran"):
        toolchain().shared_library([second], [], tmp_path / "three.so")


def test_the_key_covers_all_that_goes_in(tmp_path: Path) -> None:
    headers = tmp_path / "include"
    (headers / "deep").mkdir(parents=True)
    source = write(tmp_path, "int x;")
    header = write(headers / "deep", "int y;", "y.h")
    keys = {build_key(["a", "bc"], [source], [headers])}
    keys.add(build_key(["ab", "c"], [source], [headers]))
    keys.add(build_key(["a", "bc"], [source, source], [headers]))
    header.rename(headers / "y.h")
    keys.add(build_key(["a", "bc"], [source], [headers]))
    write(headers, "int z;", "y.h")
    keys.add(build_key(["a", "bc"], [source], [headers]))
    write(tmp_path, "int w;")
    keys.add(build_key(["a", "bc"], [source], [headers]))
    assert len(keys) == 6


def test_two_builds_of_the_same_thing_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILOGRAD_CACHE", str(tmp_path / "cache"))
    source = write(tmp_path, "int f(void);int f(void) { return 7; }")
    results: list[Path] = []

    def build(index: int) -> None:
        results.append(toolchain().shared_library([source], [], tmp_path / f"f{index % 2}.so"))

    threads = [threading.Thread(target=build, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert ctypes.CDLL(str(tmp_path / "f0.so")).f() == 7
    leftovers = [path for path in (tmp_path / "cache").rglob("*") if path.name.startswith("build-")]
    assert not leftovers


@pytest.mark.parametrize("name", ["stm32f746", "nrf52840"])
def test_fused_multiply_add_is_one_instruction(
    name: str, probe_image: Callable[[str], Image]
) -> None:
    image = probe_image(name)
    assert "vfma.f32" in mnemonics(image, "float_bits")
    assert "fmaf" not in image.symbols


def mnemonics(image: Image, function: str) -> set[str]:
    symbol = image.symbol(function)
    segment = next(
        segment
        for segment in image.segments
        if 0 <= symbol.address - segment.address < len(segment.data)
    )
    offset = symbol.address - segment.address
    disassembler = capstone.Cs(
        capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS
    )
    disassembler.skipdata = True
    code = segment.data[offset : offset + symbol.size_bytes]
    return {entry[2] for entry in disassembler.disasm_lite(code, symbol.address)}


@pytest.mark.parametrize("optimize", ["-O0", "-O1", "-O2", "-Os"])
def test_no_sanitizer_in_firmware(tmp_path: Path, optimize: str) -> None:
    elf = toolchain().firmware(
        [PROGRAMS / "probe.c"],
        [PROGRAMS],
        devices.load("stm32f746"),
        tmp_path / "f.elf",
        optimize=optimize,
        exports=["weigh"],
    )
    image = Image(elf)
    assert not [name for name in image.symbols if "ubsan" in name]
    # A signed sum would be followed by a trap on overflow.
    assert not mnemonics(image, "weigh") & {"trap", "udf"}


def test_linker_script_text() -> None:
    script = linker_script(devices.load("rp2040"), ["a", "b"], 512)
    assert "EXTERN(a b)" in script
    assert "FLASH (rx) : ORIGIN = 0x10000100, LENGTH = 2096896" in script
    assert "SRAM (rw) : ORIGIN = 0x20000000, LENGTH = 270336" in script
    assert "_ebss + 512 <= _estack" in script
    assert "EXTERN" not in linker_script(devices.load("rp2040"))


def test_the_gnu_toolchain_gives_the_same_bits(tmp_path: Path) -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    from kilograd.execution.emulator import Emulator

    for name in ("stm32f746", "nrf52840", "rp2040"):
        device = devices.load(name)
        builds = [
            toolchain(kind).firmware(
                [PROGRAMS / "probe.c"],
                [PROGRAMS],
                device,
                tmp_path / f"{kind}.elf",
                exports=["float_bits"],
            )
            for kind in ("zig", "gnu")
        ]
        zig, gnu = (Emulator(Image(elf), device).call("float_bits", 3000).value for elf in builds)
        assert zig == gnu
