"""Summary, manifest and report tell the same figures, and these are those of the program."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
from tests.report.programs import full_mlp, sample, sparse_lenet

import kilograd as kg
from kilograd import zoo

pytestmark = pytest.mark.xdist_group("report")
PROGRAMS = [sparse_lenet, full_mlp]


@pytest.fixture(params=PROGRAMS, ids=lambda make: make.__name__)
def program(request: pytest.FixtureRequest) -> kg.Program:
    return request.param()


def test_the_parts_add_up(program):
    told, memory = program.figures, program.memory
    assert sum(use.size_bytes for use in told.sram) == memory.sram_bytes
    assert sum(use.size_bytes for use in told.flash) == memory.flash_bytes
    assert sum(use.size_bytes for use in told.arena) == memory.arena_bytes
    assert all(use.size_bytes > 0 for use in (*told.sram, *told.flash, *told.arena))
    assert sum(step.macs for step in told.steps) == program.macs.train_step
    assert sum(sum(layer.macs.values()) for layer in told.layers) == program.macs.train_step
    nodes = sorted(i for layer in told.layers for own in layer.nodes.values() for i in own)
    assert nodes == list(range(len(program.train.graph.nodes)))
    assert max(step.live_bytes for step in told.steps) == told.peak_bytes
    assert told.steps[told.peak_step].live_bytes == told.peak_bytes


def test_parameters_are_those_of_the_model(program):
    told = program.figures
    state = {t.origin.name: v for v, t in program.train.graph.state.items() if t.origin}
    assert {p.name for p in told.parameters if p.trained} == set(state)
    assert sum(p.trained for p in told.parameters) == told.trained_parameters
    weights = sum(p.weight_bytes + p.optimizer_bytes for p in told.parameters)
    assert weights == program.memory.state_bytes
    for parameter in told.parameters:
        assert parameter.weight_bytes + parameter.frozen_bytes == 4 * parameter.elements
        assert bool(parameter.trained) == bool(parameter.path) == bool(parameter.gradient_bytes)
        if parameter.trained:
            assert parameter.path[0] == "loss" and parameter.path[-1] == parameter.layer


def test_flash_of_weights_is_what_the_linker_placed(program):
    told = program.figures
    placed = {use.name: use.size_bytes for use in told.flash}
    assert placed["initial values"] == sum(p.initial_bytes for p in told.parameters)
    assert placed.get("frozen weights", 0) == sum(p.frozen_bytes for p in told.parameters)


def test_summary_and_manifest_tell_the_figures(program):
    told, text, manifest = program.figures, program.summary(), json.loads(program.manifest())
    for number in (
        told.memory.sram_bytes,
        told.memory.arena_bytes,
        told.memory.flash_bytes,
        told.macs.predict,
        told.macs.train_step,
        told.peak_bytes,
        told.trained_parameters,
    ):
        assert f" {number:,} " in text
    assert manifest["memory"]["sram_bytes"] == told.memory.sram_bytes
    assert manifest["memory"]["flash_bytes"] == told.memory.flash_bytes
    assert manifest["macs"] == {
        "predict": told.macs.predict,
        "train_step": told.macs.train_step,
    }
    assert manifest["command"] == told.command
    assert manifest["graph_sha256"] == told.identity.graph_sha256


def test_budget_and_device_limit_the_rooms():
    program = sparse_lenet()
    sram, flash = program.figures.rooms
    assert (sram.limit, sram.available_bytes) == ("device", 327_680) and sram.fits
    tight = replace(program, budget=kg.Budget(sram=program.memory.sram_bytes - 1))
    sram, flash = tight.figures.rooms
    assert sram.limit == "budget" and not sram.fits and flash.fits and not tight.figures.fits


def test_the_command_in_python_makes_the_same_program():
    program = full_mlp()
    model, _ = zoo.create("mlp")
    again = eval(program.figures.command, {"kilograd": kg, "numpy": np, "model": model})
    assert again.figures == program.figures


def test_the_command_tells_classes_and_precision():
    model, example = zoo.create("mlp")
    x = np.random.default_rng(0).standard_normal((8, *example.shape[1:])).astype(np.float32)
    program = kg.compile(
        model, example, classes=[2, None, 0], precision="int8", calibration=x, headroom=1.5,
        gradients="int8",
    )  # fmt: skip
    names = {"kilograd": kg, "numpy": np, "model": model, "calibration": x}
    assert eval(program.figures.command, names).manifest() == program.manifest()


def test_the_command_tells_a_device_of_ones_own():
    model, example = zoo.create("mlp")
    device = full_mlp().device.model_copy(update={"name": "mine", "sram_bytes": 131_072})
    program = kg.compile(model, example, device=device, budget=kg.Budget(flash="512KB"))
    again = eval(program.figures.command, {"kilograd": kg, "numpy": np, "model": model})
    assert again.device == device and again.budget == program.budget
    assert again.manifest() == program.manifest()


@pytest.mark.parametrize(
    "options",
    [
        {
            "update": [kg.update.last(2), {"*.bias": kg.update.none()}],
            "optimizer": kg.SGD(lr=0.25, momentum=0.5, accumulate=2, atomic=False),
            "budget": kg.Budget(sram="200KB", flash=600_000),
        },
        {
            "precision": "int8",
            "calibration": np.random.default_rng(0).random((4, 1, 25, 25), np.float32),
            "head": "int8",
            "ranges": "mse",
            "headroom": 1.5,
            "gradients": "int8",
            "classes": [1, None, 0],
            "optimizer": kg.SGD(rounding="residual", seed=7, qas=False),
        },
        {"classes": 4},
        {
            "budget": kg.Budget(sram="90KB", step_time="20s"),
            "storage": "qspi",
            "planning": kg.Planning(recompute=False, objective="time", gap=0.25, time_limit=9.5),
        },
    ],
    ids=["float32", "int8", "classes", "planned"],
)
def test_the_command_line_makes_the_same_program(options, tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    from typer.testing import CliRunner

    from kilograd.cli import app
    from kilograd.demo_data import model_path

    program = kg.compile(model_path(), device="stm32f746", name="face", **options)
    words = shlex.split(program.figures.command)
    assert words[:2] == ["kilograd", "compile"]
    monkeypatch.chdir(tmp_path)
    if "calibration" in options:
        np.savez("calibration.npz", x=options["calibration"])
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "face" / "manifest.json").read_text() == program.manifest()
    assert (tmp_path / "face" / "face_tables.h").read_text() == program.sources.files[
        "face_tables.h"
    ]


def test_hashes_tell_graphs_and_weights_apart():
    one = sparse_lenet().figures.identity
    model, example = zoo.create("lenet", seed=1)
    two = kg.compile(model, example, update=kg.update.last(1)).figures.identity
    assert one.graph_sha256 == two.graph_sha256
    assert one.weights_sha256 != two.weights_sha256
    forward = sparse_lenet().forward
    arrays = b"".join(tensor.array.tobytes() for tensor in forward.constants.values())
    assert one.weights_sha256 == hashlib.sha256(arrays).hexdigest()


@pytest.mark.parametrize(
    ("make", "name", "functions"),
    [
        (
            sparse_lenet,
            "lenet",
            {
                "conv2d": "kg_conv2d_f32",
                "relu_grad": "kg_map_relu_grad_f32",
                "sgd_check": "kg_sgd_plain_finite_f32",
            },
        ),
        (
            full_mlp,
            "mlp",
            {"sgd_step": "kg_sgd_f32", "linear_grad_weight": "kg_linear_grad_weight_f32"},
        ),
    ],
)
def test_instructions_of_nodes_are_those_of_the_step(make, name, functions):
    pytest.importorskip("unicorn")
    program = make()
    x, y = sample(name)
    counts = program.instructions_by_node(x, y)
    assert len(counts) == len(program.train.graph.nodes) and min(counts) > 0
    board = program.on_emulator()
    board.train_step(x, y)
    assert sum(counts) == pytest.approx(board.instructions, rel=0.02)
    profile, steps = board.profile(), program.figures.steps
    for operator, function in functions.items():
        of_nodes = sum(counts[step.index] for step in steps if step.operator == operator)
        assert of_nodes == pytest.approx(profile[function], rel=0.02), operator


def test_the_c_has_no_markers():
    assert not any(re.search("kg_mark", text) for text in sparse_lenet().sources.files.values())
