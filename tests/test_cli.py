"""Every command through the real command line, and a wrong use of each.

Most run `main` in this process, which is what the installed command calls; what concerns the
process itself runs in one of its own.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import kilograd as kg
from kilograd import cli, demo_data

MODULE = """\
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.zeros(1, 4)

def bare():
    return make()[0]

instance = bare()
number = 3

def wrong():
    return "a string"

def broken():
    raise RuntimeError("out of luck")

def sorting():
    class Sorter(nn.Module):
        def forward(self, x):
            return torch.sort(x)[0]
    return Sorter(), torch.zeros(1, 4)
"""


@dataclass
class Done:
    code: int
    out: str
    err: str

    def json(self) -> object:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Run:
    """Run a command line in the folder of the test; returns exit code and output."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["kilograd", *map(str, arguments)])
        for name in ("nets", "broken_nets"):
            sys.modules.pop(name, None)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        code = stop.value.code
        return Done(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models and samples as a user has them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 4)).astype(np.float32)
    y = np.argmax(x[:, :3], axis=1)
    np.savez(tmp_path / "train.npz", x=x, y=y)
    np.savez(tmp_path / "test.npz", x=x[:10], y=y[:10])
    lines = [",".join([*map(str, row), "abc"[label]]) for row, label in zip(x, y, strict=True)]
    (tmp_path / "train.csv").write_text("\n".join(["p,q,r,s,label", *lines]) + "\n")
    (tmp_path / "nets.py").write_text(MODULE)
    (tmp_path / "broken_nets.py").write_text("import does_not_exist\n")
    return tmp_path


def process(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kilograd.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120", **environment},
    )


# Lists -------------------------------------------------------------------------------------------


def test_devices(run: Run):
    assert "stm32f746" in run("devices").out
    assert {"host", "rp2040"} <= {device["name"] for device in run("devices", "--json").json()}


def test_operators(run: Run):
    assert "conv2d" in run("operators").out
    assert "depthwise_conv2d" in run("operators", "--json").json()


# compile -----------------------------------------------------------------------------------------


def test_compile_writes_a_project(run: Run, folder: Path):
    output = folder / "firmware"
    done = run(
        "compile", demo_data.model_path(), "-o", output, "--device", "cortex-m7-256k",
        "--update", "last:1", "--name", "faces", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    printed = done.json()
    assert printed == json.loads((output / "manifest.json").read_text())
    assert printed["memory"]["sram_bytes"] <= 262_144
    assert {"faces.c", "faces.h", "Makefile", "CMakeLists.txt", "main.c"} <= set(os.listdir(output))
    assert done.err == "", "nothing but the result, off a terminal"


@pytest.mark.parametrize("model", ["nets:make", "nets:instance", "mlp"])
def test_compile_takes_any_model(model: str, run: Run):
    shape = ["--input-shape", "1,4"] if model == "nets:instance" else []
    done = run("compile", model, *shape, "-o", "out", "--layout", "arduino")
    assert done.code == 0, done.err
    assert "wrote out" in done.out and Path("out/library.properties").is_file()


def test_compile_writes_an_archive(run: Run):
    done = run("compile", "nets:make", "-o", "nets.zip", "--layout", "zephyr")
    assert done.code == 0, done.err
    assert Path("nets.zip").read_bytes()[:2] == b"PK"


# The run file ------------------------------------------------------------------------------------


def test_init_writes_a_run_that_all_commands_read(run: Run):
    done = run("init", "nets:make", "--device", "stm32f746")
    assert done.code == 0, done.err
    text = Path("kilograd.toml").read_text()
    assert "#   0.weight" in text and 'model = "nets:make"' in text
    Path("kilograd.toml").write_text(
        text.replace("# train =", "train =").replace("# test =", "test =")
    )
    assert run("compile", "--json").json()["device"] == "stm32f746"
    assert Path("firmware/manifest.json").is_file()
    assert run("train", "--json", "--epochs", "2").json()["samples"] == {"train": 30, "test": 10}
    assert run("evaluate", "--json").json()["samples"] == 10
    assert run("explain", "peak", "--json").json()["network"] == "sequential"


def test_flags_override_the_run_file(run: Run):
    Path("runs").mkdir()
    Path("runs/my.toml").write_text(
        'model = "../nets.pt2"\noutput = "out"\nname = "own"\nupdate = "last:1"\n'
        'device = "rp2040"\n[optimizer]\nlr = 0.5\nmomentum = 0.25\n[budget]\nsram = "64KB"\n'
    )
    done = run("compile", "nets:make", "-c", "runs/my.toml", "--device", "stm32f746", "--json")
    assert done.code == 0, done.err
    manifest = done.json()
    assert (manifest["network"], manifest["device"]) == ("own", "stm32f746")
    assert [tensor["name"] for tensor in manifest["trained"]] == ["2.weight", "2.bias"]
    assert Path("runs/out/own.c").is_file(), "paths of the file are relative to it"
    assert "0.5f" in Path("runs/out/examples/learn_from_serial.c").read_text()
    done = run(
        "compile", "-c", "runs/my.toml", "nets:make", "--update", "all", "--sram", "100", "-o", "x"
    )
    assert done.code == 3 and "100" in done.err and not Path("x").exists()


def test_quantisation_is_passed_on_only_when_given(run: Run, monkeypatch: pytest.MonkeyPatch):
    seen: list[dict[str, object]] = []
    compile = kg.compile

    def recording(model: object, example: object, **keywords: object) -> kg.Program:
        seen.append(dict(keywords))
        for key in ("precision", "calibration", "head", "ranges"):
            keywords.pop(key, None)
        return compile(model, example, **keywords)

    monkeypatch.setattr(kg, "compile", recording)
    assert run("compile", "nets:make", "-o", "plain").code == 0
    assert not {"precision", "calibration", "head", "ranges"} & set(seen[0])
    Path("q.toml").write_text(
        'model = "nets:make"\noutput = "out"\nprecision = "int8"\ncalibration = "train.csv"\n'
        'head = "int8"\nranges = "all"\n'
    )
    done = run("compile", "-c", "q.toml")
    assert done.code == 0, done.err
    assert (seen[1]["precision"], seen[1]["head"], seen[1]["ranges"]) == ("int8", "int8", "all")
    assert seen[1]["calibration"].shape == (30, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = ", "not TOML"),
        ("modle = 'x'", "modle.*there are model"),
        ("device = 3", "device"),
        ("[optimizer]\nlearning = 1", "learning is unknown; there are lr"),
        ("[optimizer]\nlr = 'fast'", "lr='fast'"),
        ("[budget]\nram = '1KB'", "ram is unknown; there are sram"),
        ("[budget]\nsram = 'lots'", "lots"),
        ("[data]\ntrian = 'x'", "data.trian.*there are train"),
        ("[training]\non = 'moon'", "training.on"),
    ],
)
def test_a_wrong_run_file(text: str, message: str, run: Run):
    Path("wrong.toml").write_text(text)
    done = run("compile", "nets:make", "-c", "wrong.toml", "-o", "out")
    assert done.code == 2 and not Path("out").exists()
    assert re.search(message, done.err), done.err


# train and evaluate ------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["train.npz", "train.csv"])
def test_train_writes_what_was_learned(data: str, run: Run, folder: Path):
    done = run("train", "nets:make", "--data", data, "--epochs", "20", "--lr", "0.1", "--seed", "5")
    assert done.code == 0, done.err
    assert done.err == "" and "before learning" in done.out and "after learning" in done.out
    curve = json.loads((folder / "curve.json").read_text())
    assert len(curve["losses"]) == 600 and len(curve["validation_losses"]) == 20
    assert curve["after"]["accuracy"] >= 0.9 > curve["before"]["accuracy"]
    learned = load_file(folder / "learned.safetensors")
    assert {n: a.shape for n, a in learned.items()} == {
        "0.weight": (8, 4), "0.bias": (8,), "2.weight": (3, 8), "2.bias": (3,),
    }  # fmt: skip
    # The same session by hand.
    import torch

    namespace: dict[str, object] = {}
    exec(MODULE, namespace)
    model, example = namespace["make"]()  # type: ignore[operator]
    session = kg.compile(model, example, optimizer=kg.SGD(lr=0.1)).on_host()
    samples = np.load(folder / "train.npz")
    history = session.fit(samples["x"], samples["y"], epochs=20, seed=5, progress=False)
    assert history.losses == curve["losses"]
    assert all(np.array_equal(learned[n], a) for n, a in session.state_dict().items())
    assert torch.is_tensor(example)
    # Judged again, from the file.
    found = run(
        "evaluate", "nets:make", "--data", data, "--state", "learned.safetensors", "--json"
    ).json()
    assert found["accuracy"] == curve["after"]["accuracy"]
    assert found["loss"] == pytest.approx(curve["after"]["loss"], rel=1e-6)


def test_the_emulator_learns_the_same(run: Run, folder: Path):
    common = ("--data", "train.npz", "--epochs", "2", "--device", "rp2040", "--json")
    for place in ("host", "emulator"):
        done = run("train", "nets:make", *common, "--on", place, "--state", f"{place}.safetensors",
                   "--curve", f"{place}.json")  # fmt: skip
        assert done.code == 0, done.err
    host, board = (json.loads((folder / f"{p}.json").read_text()) for p in ("host", "emulator"))
    assert host["losses"] == board["losses"] and host["after"] == board["after"]
    assert board["instructions_per_step"] > 1000 and host["instructions_per_step"] is None
    a, b = (load_file(folder / f"{p}.safetensors") for p in ("host", "emulator"))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    found = run("evaluate", "nets:make", *common[:2], "--device", "rp2040", "--on", "emulator")
    assert found.code == 0 and "instructions" in found.out


def test_train_replaces_nothing_unasked(run: Run):
    arguments = (
        "train",
        "nets:make",
        "--data",
        "train.npz",
        "--state",
        "mine",
        "--curve",
        "c.json",
    )
    Path("mine").write_text("precious")
    done = run(*arguments)
    assert done.code == 2 and "mine exists" in done.err
    assert Path("mine").read_text() == "precious" and not Path("c.json").exists()
    assert run(*arguments, "--force").code == 0
    assert Path("mine").read_bytes()[:1] != b"p"


def test_explain_peak(run: Run):
    done = run("explain", "peak", "mlp", "--device", "stm32f746", "--of", "predict")
    assert done.code == 0 and "are alive at the peak" in done.out
    found = run("explain", "peak", "mlp", "--json").json()
    assert sum(tensor["bytes"] for tensor in found["tensors"]) == found["peak_bytes"]


@pytest.mark.parametrize(
    ("subject", "name", "told"),
    [
        ("value", "loss", "loss"),
        ("weight", "hidden.*", "hidden.0.weight"),
        ("layer", "*", "hidden"),
    ],
)
def test_explain_parts(subject: str, name: str, told: str, run: Run):
    done = run("explain", subject, "mlp", "--of", name, "--device", "stm32f746")
    assert done.code == 0 and told in done.out, done.err
    assert told in json.dumps(run("explain", subject, "mlp", "--of", name, "--json").json())
    assert run("explain", subject, "mlp", "--of", "nonsense").code == 2


def test_report_writes_a_page(run: Run, folder: Path):
    pytest.importorskip("altair")
    done = run("report", demo_data.model_path(), "-o", "page.html", "--device", "stm32f746",
               "--update", "last:1", "--count")  # fmt: skip
    assert done.code == 0, done.err
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "Fits the device" in page and "instructions of a training step" in page
    again = run("report", demo_data.model_path(), "-o", ".")
    assert again.code == 2 and "cannot write the report" in again.err


def test_demo_tells_its_story(run: Run, folder: Path):
    done = run("demo", "--output", folder / "demo")
    assert done.code == 0, done.err
    assert "before learning" in done.out and "after learning" in done.out
    assert "instructions" in done.out and "SRAM" in done.out
    assert (folder / "demo/face_detector.c").is_file()
    page = (folder / "demo-report.html").read_text(encoding="utf-8")
    assert str(folder / "demo-report.html") in done.out.replace("\n", "")
    assert "Fits the device" in page and "instructions of a training step" in page


def test_demo_needs_no_charts(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "altair", None)
    done = run("demo", "--output", folder / "demo", "--device", "cortex-m7-256k")
    assert done.code == 0, done.err
    assert "after learning" in done.out and "pip install 'kilograd[report]'" in done.out
    assert not (folder / "demo-report.html").exists()


@pytest.mark.slow
def test_demo_for_machines(run: Run, folder: Path):
    done = run("demo", "--output", folder / "demo", "--json")
    assert done.code == 0, done.err
    manifest = json.loads((folder / "demo/manifest.json").read_text())
    files = {"output": str(folder / "demo"), "report": str(folder / "demo-report.html")}
    assert done.json() == {**files, **manifest}
    assert "before learning" in done.err


# Wrong use ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("compile", "none.onnx", "-o", "out"), 2, "none.onnx"),
        (("compile", "-o", "out"), 2, "kilograd init"),
        (("compile", "nets:make"), 2, "--output"),
        (("compile", "mpl", "-o", "out"), 2, "mlp"),
        (("compile", "nest:make", "-o", "out"), 2, "no Python module 'nest'"),
        (("compile", "nets:mkae", "-o", "out"), 2, "no 'mkae'"),
        (("compile", "nets:number", "-o", "out"), 2, "no function or model"),
        (("compile", "nets:wrong", "-o", "out"), 2, "gave a str"),
        (("compile", "nets:broken", "-o", "out"), 2, "out of luck"),
        (("compile", "broken_nets:make", "-o", "out"), 2, "does_not_exist"),
        (("compile", "nets:bare", "-o", "out"), 2, "--input-shape"),
        (("compile", "nets:bare", "-o", "out", "--input-shape", "4"), 2, "batch dimension of 1"),
        (("compile", "nets:bare", "-o", "out", "--input-shape", "1xA"), 2, "whole numbers"),
        (("compile", "nets:sorting", "-o", "out"), 4, "sort"),
        (("compile", "nets:make", "-o", "out", "--device", "stm32f7"), 2, "stm32f746"),
        (("compile", "nets:make", "-o", "out", "--update", "last:many"), 2, "--update"),
        (("compile", "nets:make", "-o", "out", "--loss", "hinge"), 2, "cross_entropy"),
        (("compile", "nets:make", "-o", "out", "--momentum", "2"), 2, "momentum"),
        (("compile", "nets:make", "-o", "out", "--layout", "keil"), 2, "cmsis-pack"),
        (("compile", "nets:make", "-o", "full"), 2, "not empty"),
        (("compile", "nets:make", "-o", "out", "-c", "no.toml"), 2, "no.toml"),
        (("compile", "mlp", "-o", "out", "--device", "rp2040", "--flash", "1KB"), 3, "flash"),
        (("train", "nets:make"), 2, "--data"),
        (("train", "nets:make", "--data", "no.npz"), 2, "no.npz"),
        (("train", "mlp", "--data", "train.npz"), 2, r"[30, 4]"),
        (("train", "nets:make", "--data", "train.npz", "--epochs", "-1"), 2, "negative"),
        (("train", "nets:make", "--data", "train.npz", "--on", "mars"), 2, "emulator"),
        (("train", "nets:make", "--data", "train.npz", "--on", "emulator"), 2, "host"),
        (("train", "nets:make", "--data", "train.npz", "--state", "no/x"), 2, "no directory"),
        (("train", "nets:make", "--data", "train.npz", "--lr", "1e30"), 2, "learning rate"),
        (("evaluate", "nets:make"), 2, "--data"),
        (("evaluate", "nets:make", "--data", "test.npz", "--state", "no"), 2, "no learned state"),
        (("evaluate", "nets:make", "--data", "test.npz", "--state", "nets.py"), 2, "safetensors"),
        (("explain",), 2, "peak"),
        (("explain", "peak", "mlp", "--of", "everything"), 2, "predict"),
        (("explain", "valley", "mlp"), 2, "valley"),
        (("init", "none.onnx"), 2, "none.onnx"),
        (("init", "mlp", "--device", "abacus"), 2, "abacus"),
        (("init", "mlp", "-o", "nets.py"), 2, "exists"),
        (("init",), 2, "model"),
        (("demo", "--device", "host"), 2, "host"),
        (("demo", "--device", "abacus"), 2, "abacus"),
        (("devices", "--jason"), 2, "--jason"),
        (("operators", "extra"), 2, "extra"),
        (("fly",), 2, "fly"),
        (("plan", "mlp", "--points", "4"), 2, "--frontier"),
        (("plan", "mlp", "--frontier", "--points", "1"), 2, "at least 2"),
        (("plan", "mlp", "--frontier", "--sram", "8KB"), 2, "varies the SRAM"),
        (("plan", "mlp", "--frontier", "--no-page", "--no-recompute"), 2, "allow one"),
        (("plan", "mlp", "-o", "plan.html"), 2, "has to end in .json"),
        (("plan", "mlp", "--frontier", "-o", "plan.txt"), 2, ".json or .html"),
        (("plan", "mlp", "--step-time", "soon"), 2, "500ms"),
        (("plan", "mlp", "--step-energy", "5ms"), 2, "300uJ"),
        (("plan", "mlp", "--storage", "tape"), 2, "no storage 'tape'"),
        (("plan", "mlp", "--plan-time-limit", "0"), 2, "no time to plan"),
        (("plan", "mlp", "--device", "rp2040", "--step-time", "1us"), 3, "a training step takes"),
        (("plan", "mlp", "--device", "rp2040", "--step-energy", "1nJ"), 3, "1 nJ of the budget"),
    ],
)
def test_wrong_use_is_one_message(
    arguments: tuple[str, ...], code: int, message: str, run: Run, folder: Path
):
    (folder / "full").mkdir()
    (folder / "full/precious.txt").write_text("keep me")
    before = sorted(folder.rglob("*"))
    done = run(*arguments)
    assert done.code == code, done.err
    assert message in done.err + (done.out if arguments == ("explain",) else "")
    assert "Traceback" not in done.out + done.err
    after = [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts]
    assert after == before and (folder / "full/precious.txt").read_text() == "keep me"


def test_plan_shows_what_moves(run: Run, folder: Path):
    options = ("--update", "last:2", "--device", "nrf52840", "--plan-time-limit", "5")
    done = run("plan", "lenet", *options, "--sram", "84KB", "-o", "plan.json")
    assert done.code == 0, done.err
    assert "B of SRAM as it stands" in done.out and "B as planned" in done.out
    told = json.loads((folder / "plan.json").read_text())
    assert told["sram_bytes"] <= 84 * 1024 < told["plain_sram_bytes"]
    step = told["plan"]["functions"]["train step"]
    assert step["planned"]["joules"] > step["plain"]["joules"]
    assert step["tensors"] and all(tensor["alternatives"] for tensor in step["tensors"])
    for tensor in step["tensors"]:
        assert f"%{tensor['name']} " in done.out


def test_plan_of_what_fits(run: Run):
    done = run("plan", "nets:make", "--device", "rp2040")
    assert done.code == 0 and "nothing is planned" in done.out
    assert run("plan", "nets:make", "--device", "rp2040", "--json").json()["plan"] is None


def test_plan_frontier(run: Run, folder: Path):
    options = ("lenet", "--update", "last:2", "--device", "nrf52840", "--plan-time-limit", "4")
    done = run("plan", *options, "--frontier", "--points", "3", "-o", "front.html", "--json")
    assert done.code == 0, done.err
    points = done.json()["points"]
    assert [p["planned"] for p in points][-1] is False and len(points) >= 2
    energies = [p["joules"] for p in points]
    assert energies == sorted(energies, reverse=True)
    page = (folder / "front.html").read_text()
    assert all(f"{p['sram_bytes']:,}" in page for p in points)


def test_planning_options_of_the_run_file(run: Run, folder: Path):
    (folder / "planned.toml").write_text(
        'model = "lenet"\ndevice = "nrf52840"\nupdate = "last:2"\nstorage = "qspi"\n'
        '[budget]\nsram = "84KB"\nstep_time = "3s"\nstep_energy = "1J"\n'
        '[planning]\nrecompute = true\npage = true\nobjective = "time"\ngap = 0.02\n'
        "time_limit = 5.0\n"
    )
    done = run("compile", "-c", "planned.toml", "-o", "out", "--json")
    assert done.code == 0, done.err
    plan = done.json()["plan"]["functions"]["train step"]
    assert plan["objective"] == "time"
    refused = run("compile", "-c", "planned.toml", "--no-page", "--no-recompute", "-o", "no")
    assert refused.code == 3 and not (folder / "no").exists()
    (folder / "wrong.toml").write_text('model = "mlp"\n[planning]\nhurry = true\n')
    wrong = run("plan", "-c", "wrong.toml")
    assert wrong.code == 2 and "hurry is unknown; there are recompute, page" in wrong.err


def test_errors_are_json_where_asked(run: Run):
    done = run("compile", "mlp", "-o", "out", "--device", "rp2040", "--sram", "1KB", "--json")
    found = done.json()
    assert done.code == 3 and found["exit_code"] == 3
    assert found["error"] == "InfeasibleError" and found["message"] in done.err


def test_a_fault_of_ours_says_so(run: Run, monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: object, **keywords: object) -> None:
        raise kg.CompilerBug("the graph is round")

    monkeypatch.setattr(kg, "compile", fail)
    done = run("compile", "mlp", "-o", "out")
    assert done.code == 1 and "please report it" in done.err and "round" in done.err


@pytest.mark.parametrize(
    "command",
    [(), ("compile",), ("train",), ("evaluate",), ("explain", "peak"), ("init",), ("demo",),
     ("explain", "value"), ("explain", "weight"), ("explain", "layer"), ("report",),
     ("devices",), ("operators",)],
)  # fmt: skip
def test_help_has_an_example(command: tuple[str, ...], run: Run):
    done = run(*command, "--help")
    assert done.code == 0
    assert ("Exit status" if not command else "Example: kilograd " + " ".join(command)) in done.out


# The process -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stage"),
    [
        (("train", "nets:make", "--data", "train.npz", "--epochs", "1000000"), "fit"),
        (
            ("compile", "resnet8", "-o", "out", "--device", "stm32f746", "--update", "last:1"),
            "order",
        ),
    ],
)
def test_ctrl_c_leaves_nothing(arguments: tuple[str, ...], stage: str, folder: Path):
    before = sorted(folder.iterdir())
    running = subprocess.Popen(
        [sys.executable, "-m", "kilograd.cli", *arguments],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
        env={**os.environ, "KILOGRAD_DEBUG": "1"},
        # Whoever runs the tests in the background of a shell ignores the signal, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith(f"kilograd {stage}"):
            break
    running.send_signal(signal.SIGINT)
    try:
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130, (out, err)
    assert "Traceback" not in err
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == before


def test_a_bar_on_a_terminal(folder: Path):
    parent, child = pty.openpty()
    arguments = ["train", "nets:make", "--data", "train.npz", "--epochs", "3", "--json"]
    running = subprocess.Popen(
        [sys.executable, "-m", "kilograd.cli", *arguments], cwd=folder,
        stdout=subprocess.PIPE, stderr=child, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(child)
    seen = b""
    while True:
        try:
            part = os.read(parent, 4096)
        except OSError:
            break
        if not part:
            break
        seen += part
    assert running.stdout is not None
    assert json.loads(running.stdout.read())["epochs"] == 3
    assert running.wait() == 0 and b"compiling: fit" in seen and b"epoch" in seen


def test_shell_completion(folder: Path):
    words = {"_KILOGRAD_COMPLETE": "complete_bash", "COMP_WORDS": "kilograd ev", "COMP_CWORD": "1"}
    assert process(cwd=folder, **words).stdout.split() == ["evaluate"]
    shown = process(
        "--show-completion", "bash", cwd=folder, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert "_KILOGRAD_COMPLETE" in shown.stdout


def test_the_command_is_a_process_too(folder: Path):
    done = process("compile", "nets:make", "-o", "out", "--json", cwd=folder)
    assert done.returncode == 0 and json.loads(done.stdout)["network"] == "sequential"
    assert process("compile", "nets:bare", "-o", "new", cwd=folder).returncode == 2
