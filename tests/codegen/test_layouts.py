"""The layouts: the same C in each, manifests by their published rules, all of it or nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import pytest
import yaml

import kilograd as kg
from kilograd import devices
from kilograd.codegen.layouts import LAYOUTS
from kilograd.execution.emulator import Emulator
from kilograd.execution.image import Image
from kilograd.execution.toolchain import toolchain
from tests.codegen.networks import PROGRAMS, autoencoder, classifier

ZIG = (sys.executable, "-m", "ziglang")
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
REQUIRED = ("-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing")
WHERE = {
    "plain": "",
    "arduino": "src/",
    "platformio": "src/",
    "esp-idf": "src/",
    "zephyr": "src/",
    "cmsis-pack": "source/",
}
PROLOGUE = re.compile(r"\A/\* The flags .*?#endif\n\n", re.DOTALL)
TARGETS = {
    "host": (),
    "cortex-m0plus": ("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0plus"),
    "cortex-m4": ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"),
    "cortex-m7": ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m7+fp_armv8d16sp"),
    "cortex-m33": ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m33+fp_armv8d16sp"),
}
SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", PROGRAMS)
def test_the_same_c_in_each(kind: str, layout: str):
    program = PROGRAMS[kind]()
    files = program.files(layout)
    for path, text in program.sources.files.items():
        assert PROLOGUE.sub("", files[WHERE[layout] + path]) == text, path
    assert json.loads(files["manifest.json"]) == json.loads(program.manifest())
    assert len(files) == len({path.lower() for path in files})
    for path, text in files.items():
        assert text.endswith("\n") and not text.endswith("\n\n"), path
        assert "{{" not in text and "{%" not in text, path


@pytest.mark.parametrize("kind", PROGRAMS)
@pytest.mark.parametrize("target", TARGETS)
def test_the_c_of_each_layout_compiles(kind: str, target: str, tmp_path: Path):
    program = PROGRAMS[kind]()
    seen: set[str] = set()
    for layout, where in WHERE.items():
        text = program.files(layout)[f"{where}{program.name}.c"]
        if text in seen:  # the C is the same, and so are its headers
            continue
        seen.add(text)
        root = program.save(tmp_path / layout, layout=layout) / where
        command = [
            *ZIG, "cc", "-c", "-std=c99", *WARNINGS, *REQUIRED, *TARGETS[target], "-O2",
            "-ffreestanding", "-fno-sanitize=undefined", f"-I{root}",
            str(root / f"{program.name}.c"), "-o", str(tmp_path / "network.o"),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{layout}: {done.stderr}"
    assert len(seen) == 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_header_is_cpp_too(layout: str, tmp_path: Path):
    root = classifier().save(tmp_path / "package", layout=layout) / WHERE[layout]
    source = tmp_path / "main.cpp"
    source.write_text(
        '#include "faces.h"\nstatic faces_t net;\n'
        "int main() { faces_init(&net); return faces_predict(&net, faces_input(&net)); }\n"
    )
    command = [*ZIG, "c++", "-c", "-std=c++11", *WARNINGS, f"-I{root}", str(source)]
    subprocess.run([*command, "-o", str(tmp_path / "main.o")], check=True)


def test_the_same_bytes_in_another_process(tmp_path: Path):
    script = (
        "import sys\nfrom tests.codegen.networks import classifier\n"
        "for layout in sys.argv[2:]:\n"
        "    classifier().save(f'{sys.argv[1]}/{layout}.zip', layout=layout)\n"
    )
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / seed), *LAYOUTS],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
        )
    for layout in LAYOUTS:
        first, second = (tmp_path / seed / f"{layout}.zip" for seed in "12")
        assert first.read_bytes() == second.read_bytes(), layout


# Manifests ---------------------------------------------------------------------------------------


def test_arduino_library(tmp_path: Path):
    """The rules of https://docs.arduino.cc/arduino-cli/library-specification."""
    path = classifier().save(tmp_path / "faces.zip", layout="arduino")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        properties = archive.read("faces/library.properties").decode()
        keywords = archive.read("faces/keywords.txt").decode()
    # One folder, called as the specification allows.
    assert {name.split("/")[0] for name in names} == {"faces"}
    assert re.fullmatch(r"[A-Za-z0-9][\w.-]{0,62}", "faces", re.ASCII)
    fields = dict(line.split("=", 1) for line in properties.splitlines())
    required = "name version author maintainer sentence paragraph category url architectures"
    assert set(required.split()) <= set(fields) and all(fields.values())
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]*", fields["name"])
    assert not fields["name"].lower().startswith("arduino")
    assert SEMVER.fullmatch(fields["version"])
    assert fields["category"] == "Data Processing"
    assert fields["includes"] == "faces.h" and "faces/src/faces.h" in names
    # Only headers for users lie at the top of src; sources of the library nowhere else.
    top = [n for n in names if re.fullmatch(r"faces/src/[^/]+\.h", n)]
    assert sorted(top) == ["faces/src/faces.h", "faces/src/faces_tables.h"]
    assert [n for n in names if n.endswith((".c", ".cpp"))] == ["faces/src/faces.c"]
    sketches = [name for name in names if name.endswith(".ino")]
    assert len(sketches) == 3
    for sketch in sketches:
        _, examples, folder, file = sketch.split("/")
        assert (examples, f"{folder}.ino") == ("examples", file)
    for line in keywords.splitlines():
        if line and not line.startswith("#"):
            word, kind = line.split("\t")
            assert kind in ("KEYWORD1", "KEYWORD2", "LITERAL1") and word.lower().startswith("faces")


@pytest.mark.parametrize("kind", PROGRAMS)
def test_platformio_library(kind: str):
    program = PROGRAMS[kind]()
    files = program.files("platformio")
    manifest = json.loads(files["library.json"])
    assert re.fullmatch(r"[A-Za-z0-9-]{1,100}", manifest["name"])
    assert SEMVER.fullmatch(manifest["version"]) and len(manifest["description"]) < 1000
    assert manifest["headers"] == f"{program.name}.h"
    assert manifest["build"]["flags"] == list(REQUIRED)
    for example in manifest["examples"]:
        for file in example["files"]:
            assert f"{example['base']}/{file}" in files
    assert len(manifest["examples"]) == 3
    assert all(re.fullmatch(r"[\w /.-]+", example["name"]) for example in manifest["examples"])


@pytest.mark.parametrize("name", ["_3d__faces_", "while", "Arduino", "x", "a" * 80])
def test_names_that_packages_do_not_take(name: str, tmp_path: Path):
    program = autoencoder(name)
    properties = program.files("arduino")["library.properties"]
    [called] = re.findall(r"^name=(.*)$", properties, re.MULTILINE)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]*", called)
    with zipfile.ZipFile(program.save(tmp_path / "my lib.zip", layout="arduino")) as archive:
        [root] = {entry.split("/")[0] for entry in archive.namelist()}
    assert re.fullmatch(r"[A-Za-z0-9][\w.-]{0,62}", root, re.ASCII)
    called = json.loads(program.files("platformio")["library.json"])["name"]
    assert re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", called) and len(called) <= 100
    description = ET.fromstring(program.files("cmsis-pack")[f"kilograd.{program.name}.pdsc"])
    [component] = description.iter("component")
    assert 3 <= len(component.attrib["Csub"]) <= 32
    kconfig = program.files("zephyr")["zephyr/Kconfig"]
    assert re.match(r"config [A-Z][A-Z0-9_]*\n", kconfig)


def test_esp_idf_component():
    files = classifier().files("esp-idf")
    manifest = yaml.safe_load(files["idf_component.yml"])
    assert SEMVER.fullmatch(manifest["version"]) and manifest["dependencies"] == {"idf": ">=5.2"}
    cmake = files["CMakeLists.txt"]
    assert 'idf_component_register(SRCS "src/faces.c" INCLUDE_DIRS "src")' in cmake
    assert all(flag in cmake for flag in REQUIRED)
    for example in ("learn_from_serial", "keep_in_flash", "learn_by_button"):
        project = files[f"examples/{example}/CMakeLists.txt"]
        # The order that the build system prescribes.
        parts = ["cmake_minimum_required(", "/tools/cmake/project.cmake)", "project("]
        assert [project.index(part) for part in parts] == sorted(map(project.index, parts))
        component = files[f"examples/{example}/main/CMakeLists.txt"]
        assert component.startswith('idf_component_register(SRCS "main.c"')


# The schema of `zephyr/module.yml`: keys and their types.
ZEPHYR = {"name": str, "build": dict, "samples": list, "tests": list, "boards": list}
ZEPHYR_BUILD = {"cmake": str, "kconfig": str, "depends": list, "settings": dict}


def test_zephyr_module():
    files = classifier().files("zephyr")
    module = yaml.safe_load(files["zephyr/module.yml"])
    assert all(isinstance(value, ZEPHYR[key]) for key, value in module.items())
    assert all(isinstance(value, ZEPHYR_BUILD[key]) for key, value in module["build"].items())
    assert f"{module['build']['cmake']}/CMakeLists.txt" in files
    assert module["build"]["kconfig"] in files
    assert all(any(f.startswith(f"{folder}/") for f in files) for folder in module["samples"])
    symbol = re.search(r"^config (\w+)$", files["zephyr/Kconfig"], re.MULTILINE)
    assert symbol and symbol[1] == "KILOGRAD_FACES"
    assert f"if(CONFIG_{symbol[1]})" in files["zephyr/CMakeLists.txt"]
    for example in ("learn_from_serial", "keep_in_flash", "learn_by_button"):
        sample = yaml.safe_load(files[f"samples/{example}/sample.yaml"])
        assert sample["sample"]["name"] and len(sample["tests"]) == 1
        options = files[f"samples/{example}/prj.conf"].splitlines()
        settings = [line for line in options if not line.startswith("#")]
        assert f"CONFIG_{symbol[1]}=y" in settings
        assert all(re.fullmatch(r"CONFIG_[A-Z0-9_]+=(y|n|\d+)", line) for line in settings)


PDSC_CATEGORIES = {"doc", "header", "include", "source", "other"}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_cmsis_pack(kind: str, tmp_path: Path):
    """The rules of `PACK.xsd` 1.7 on the elements that the pack uses."""
    program = PROGRAMS[kind]()
    name = f"kilograd.{program.name}.1.0.0.pack"
    path = program.save(tmp_path / name, layout="cmsis-pack")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        [description] = [n for n in names if n.endswith(".pdsc")]
        root = ET.fromstring(archive.read(description))
    assert description == f"kilograd.{program.name}.pdsc"
    assert root.tag == "package" and re.fullmatch(
        r"\d+\.\d+(\.\d+)?", root.get("schemaVersion", "")
    )
    assert {"name", "vendor", "description", "url", "releases"} <= {child.tag for child in root}
    assert all(len(root.findall(child.tag)) == 1 for child in root), "the schema says xs:all"
    for tag in ("name", "vendor"):
        assert re.fullmatch(r"[\w-]+", root.findtext(tag, ""), re.ASCII)
    assert [r.get("version") for r in root.iter("release")] == ["1.0.0"]
    [component] = root.iter("component")
    for key in ("Cclass", "Cgroup", "Csub"):
        assert 3 <= len(component.attrib[key]) <= 32
    for file in component.iter("file"):
        assert file.get("category") in PDSC_CATEGORIES and file.get("attr") in (None, "template")
        assert (file.get("select") is not None) == (file.get("attr") == "template")
        where = file.attrib["name"]
        assert where in names or any(n.startswith(where) for n in names if where.endswith("/"))
    listed = {file.attrib["name"] for file in component.iter("file")}
    assert {n for n in names if n.startswith(("source/", "templates/"))} <= listed


# Saving ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "layout", "message"),
    [
        ("out", "makefile", "there are plain, arduino"),
        ("faces.pack", "arduino", "only the layout cmsis-pack"),
        ("faces.pack", "cmsis-pack", r"called kilograd\.faces\.1\.0\.0\.pack"),
        ("there.zip", "arduino", "exists"),
        ("folder.zip", "arduino", "is a directory"),
        ("file/faces.zip", "arduino", "cannot write"),
    ],
)
def test_what_is_not_written(path: str, layout: str, message: str, tmp_path: Path):
    (tmp_path / "folder.zip").mkdir()
    for file in ("there.zip", "file"):
        (tmp_path / file).write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kg.InputError, match=message):
        classifier().save(tmp_path / path, layout=layout)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.zip").read_text() == "precious"


def test_force_replaces_what_save_wrote_and_nothing_else(tmp_path: Path):
    program, target = classifier(), tmp_path / "faces.zip"
    program.save(target)
    program.save(target, layout="arduino", force=True)
    with zipfile.ZipFile(target) as archive:
        assert "faces/library.properties" in archive.namelist()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("photo.txt", "precious")
    with pytest.raises(kg.InputError, match="no archive that kilograd wrote"):
        program.save(target, force=True)
    folder = program.save(tmp_path / "folder", layout="zephyr")
    program.save(folder, layout="esp-idf", force=True)
    assert (folder / "idf_component.yml").is_file() and not (folder / "zephyr").exists()
    assert sorted(os.listdir(tmp_path)) == ["faces.zip", "folder"]


@pytest.mark.parametrize("name", ["project", "project.zip"])
def test_an_interruption_leaves_what_was_there(name, tmp_path, monkeypatch):
    target = classifier().save(tmp_path / name)
    files = sorted(tmp_path.rglob("*"))
    rename = Path.rename

    def interrupted(path: Path, to: Path) -> Path:
        if Path(to) == target:
            monkeypatch.setattr(Path, "rename", rename)
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        classifier().save(target, layout="arduino", force=True)
    assert sorted(tmp_path.rglob("*")) == files


# Two networks in one firmware --------------------------------------------------------------------

BOTH = """\
#include "faces.h"
#include "noises.h"

static faces_t faces;
static noises_t noises;
float losses[6];

int32_t learn(void) {
  faces_init(&faces);
  noises_init(&noises);
  for (uint32_t step = 0; step < 3; ++step) {
    for (int32_t i = 0; i < FACES_INPUT_SIZE; ++i) faces_input(&faces)[i] = (float)i * 0.125f;
    for (int32_t i = 0; i < NOISES_INPUT_SIZE; ++i) noises_input(&noises)[i] = (float)i * 0.25f;
    *faces_target(&faces) = 1;
    if (faces_train_step(&faces, faces_input(&faces), faces_target(&faces), 0.1f, step,
                         &losses[step])) return 1;
    if (noises_train_step(&noises, noises_input(&noises), 0.1f, step, &losses[3 + step])) return 2;
  }
  return 0;
}
"""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_networks_in_one_firmware_on_the_emulator(layout: str, tmp_path: Path):
    import numpy as np

    device = devices.load("cortex-m7-256k")
    programs = (classifier(), autoencoder())
    roots = [p.save(tmp_path / p.name, layout=layout) / WHERE[layout] for p in programs]
    (tmp_path / "both.c").write_text(BOTH)
    sources = [tmp_path / "both.c"]
    sources += [root / f"{p.name}.c" for p, root in zip(programs, roots, strict=True)]
    image = toolchain("zig").firmware(
        sources, roots, device, tmp_path / "both.elf",
        exports=("learn", "losses"), extra_flags=("-fno-strict-aliasing",),
    )  # fmt: skip
    emulator = Emulator(Image(image), device)
    assert emulator.call("learn").signed_value == 0
    seen = np.frombuffer(emulator.read(emulator.symbol("losses"), 24), "<f4")

    faces, noises = (p.on_host() for p in programs)
    pixels = (np.arange(32, dtype=np.float32) * 0.125).reshape(4, 4, 2).transpose(2, 0, 1)
    wave = np.arange(6, dtype=np.float32) * 0.25
    wanted = [faces.train_step(pixels, 1, lr=0.1) for _ in range(3)]
    wanted += [noises.train_step(wave, lr=0.1) for _ in range(3)]
    assert seen.tolist() == wanted
