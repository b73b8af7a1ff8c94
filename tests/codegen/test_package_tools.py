"""The packages by the validators of their frameworks, and the C by Arm's and RISC-V's GCC.

Run by `make test-packages`; each test is skipped where its tool is not installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.codegen.networks import PROGRAMS, classifier
from tests.codegen.test_layouts import REQUIRED, WARNINGS, WHERE

pytestmark = pytest.mark.packages
TOOLS = Path(__file__).parents[2] / ".venv-packages/bin"
GCC = {
    "cortex-m0plus": ("arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-mthumb"),
    "cortex-m4": ("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard",
                  "-mfpu=fpv4-sp-d16"),
    "cortex-m7": ("arm-none-eabi-gcc", "-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard",
                  "-mfpu=fpv5-sp-d16"),
    "cortex-m33": ("arm-none-eabi-gcc", "-mcpu=cortex-m33", "-mthumb", "-mfloat-abi=hard",
                   "-mfpu=fpv5-sp-d16"),
    "rv32imac": ("riscv64-unknown-elf-gcc", "-march=rv32imac", "-mabi=ilp32"),
    "rv32imafc": ("riscv64-unknown-elf-gcc", "-march=rv32imafc", "-mabi=ilp32f"),
}  # fmt: skip


def gcc(target: str) -> tuple[str, ...]:
    if shutil.which(GCC[target][0]) is None:
        pytest.skip(f"{GCC[target][0]} is not installed")
    return GCC[target]


def python(code: str, *arguments: object) -> str:
    """Run code with the validators; returns what it printed."""
    if not (TOOLS / "python").exists():
        pytest.skip("make test-packages installs the validators")
    done = subprocess.run(
        [TOOLS / "python", "-c", code, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("target", GCC)
@pytest.mark.parametrize("kind", PROGRAMS)
def test_gcc_compiles_each_layout(kind: str, target: str, tmp_path: Path):
    compiler, program = gcc(target), PROGRAMS[kind]()
    for layout in ("plain", "arduino"):  # test_layouts: the others have the same C
        root = program.save(tmp_path / layout, layout=layout) / WHERE[layout]
        source, output = str(root / f"{program.name}.c"), str(tmp_path / "network.o")
        command = [*compiler, "-c", "-std=c99", "-O2", "-ffreestanding", *WARNINGS, *REQUIRED]
        done = subprocess.run(
            [*command, f"-I{root}", source, "-o", output], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("layout", ["arduino", "cmsis-pack"])
def test_the_flags_in_the_file_are_as_good_as_those_of_a_command(layout: str, tmp_path: Path):
    """GCC fuses multiplications and additions unless told otherwise: the object is the same."""
    compiler, program = gcc("cortex-m4"), classifier()
    objects = []
    for name, flags in (("plain", REQUIRED), (layout, ())):
        root = program.save(tmp_path / name, layout=name) / WHERE[name]
        output = tmp_path / f"{name}.o"
        command = [*compiler, "-c", "-std=gnu11", "-O3", "-ffreestanding", *flags, f"-I{root}"]
        subprocess.run([*command, str(root / "faces.c"), "-o", str(output)], check=True)
        text = tmp_path / f"{name}.bin"
        copy = ["arm-none-eabi-objcopy", "-O", "binary", "-j", ".text", str(output), str(text)]
        subprocess.run(copy, check=True)
        objects.append(text.read_bytes())
    assert objects[0] and objects[0] == objects[1]


@pytest.mark.parametrize("kind", PROGRAMS)
def test_platformio_packs_the_library(kind: str, tmp_path: Path):
    if not (TOOLS / "pio").exists():
        pytest.skip("make test-packages installs PlatformIO")
    root = PROGRAMS[kind]().save(tmp_path / "package", layout="platformio")
    pack = [TOOLS / "pio", "pkg", "pack", str(root), "-o", str(tmp_path / "package.tar.gz")]
    done = subprocess.run(pack, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for example in sorted((root / "examples").iterdir()):
        done = subprocess.run(
            [TOOLS / "pio", "project", "config", "-d", str(example), "--lint", "--json-output"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and "'errors': []" in done.stdout, done.stdout


def test_espressif_takes_the_manifest(tmp_path: Path):
    root = classifier().save(tmp_path / "package", layout="esp-idf")
    code = (
        "import sys\nfrom idf_component_tools.manager import ManifestManager\n"
        "manifest = ManifestManager(sys.argv[1], 'faces').load()\n"
        "print(manifest.version, [str(d.name) for d in manifest.raw_requirements])"
    )
    assert python(code, root) == "1.0.0 ['idf']"


def test_zephyr_takes_the_kconfig(tmp_path: Path):
    root = classifier().save(tmp_path / "package", layout="zephyr")
    (tmp_path / "Kconfig").write_text(
        'config CPU_HAS_FPU\n\tdef_bool y\nconfig FPU\n\tbool "FPU"\n'
        f'source "{root / "zephyr/Kconfig"}"\n'
    )
    code = (
        "import sys, kconfiglib\nconfig = kconfiglib.Kconfig(sys.argv[1], warn_to_stderr=False)\n"
        "symbol = config.syms['KILOGRAD_FACES']\nbefore = symbol.str_value\nsymbol.set_value(2)\n"
        "print(before, symbol.str_value, config.syms['FPU'].str_value, config.warnings)"
    )
    assert python(code, tmp_path / "Kconfig") == "n y y []"


def test_the_pack_manager_takes_the_description(tmp_path: Path):
    root = classifier().save(tmp_path / "package", layout="cmsis-pack")
    code = (
        "import sys\nfrom cmsis_pack_manager import Cache, ffi, lib\n"
        "cache = Cache(True, True, json_path=sys.argv[2], data_path=sys.argv[2])\n"
        "packs = cache.add_pack_from_path(sys.argv[1])\n"
        "print(ffi.string(lib.dumps_components(packs)).decode())"
    )
    (tmp_path / "cache").mkdir()
    printed = python(code, root / "kilograd.faces.pdsc", tmp_path / "cache")
    [component] = json.loads(printed[printed.index("[") :])
    assert (component["class"], component["sub_group"]) == ("Machine Learning", "Network faces")
    assert len(component["files"]) == len(list(root.glob("source/**/*.[ch]"))) + 5
    assert sum(file["attr"] == "Template" for file in component["files"]) == 3
