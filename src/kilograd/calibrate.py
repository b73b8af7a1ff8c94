"""Measures what the operators of training steps take in instructions on a processor, and fits its
kernel table.

Networks are compiled for the processor with memory enough for all of them, one step of each is
emulated, and the instructions of each node are counted. Instructions do not depend on how much
memory there is. Some networks are kept out of the fit, to tell how far to trust it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kilograd import devices, update, zoo
from kilograd.compiler import compile as compile_network
from kilograd.devices import Device
from kilograd.devices.kernels import KernelTable
from kilograd.errors import InputError
from kilograd.options import SGD
from kilograd.planning.costs import node_instructions
from kilograd.planning.kernel_fit import Sample, fit, samples
from kilograd.program import Program

_BOARD_BYTES = 64 << 20
_CALIBRATION_SAMPLES = 8
_FLOAT = {"precision": "float32"}
_INT8 = {"precision": "int8"}
_INTEGER = {"precision": "int8", "gradients": "int8"}
_ALL = (_FLOAT, _INT8, _INTEGER)


@dataclass(frozen=True)
class Network:
    """A network of the zoo as it is measured: its options, its arguments of `compile` beside the
    `forms` of numbers.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    forms: tuple[Mapping[str, str], ...] = _ALL

    def __str__(self) -> str:
        """`bert(width=40, sequence=16)`."""
        options = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return f"{self.name}({options})"


_LAYERS = {"width": 16, "heads": 2, "vocabulary": 50, "sequence": 9}
_STATEFUL = {"optimizer": SGD(lr=0.01, momentum=0.9, weight_decay=1e-4, accumulate=2)}

FITTED = (
    Network("mlp"),
    Network("mlp", {"num_inputs": 200, "hidden": (50,)}, _STATEFUL),
    Network("lenet"),
    Network("lenet", {"activation": "tanh", "pooling": "average"}, _STATEFUL),
    Network("dscnn", {"width": 24}),
    Network("mobilenetv1_025", {"resolution": 32}),
    Network("mcunet_5fps", {"resolution": 32, "num_classes": 10}),
    Network("mcunet_5fps", {"resolution": 32, "num_classes": 5}, {"update": update.last(3)}),
    Network("se_net", {"width": 8}),
    Network("vgg16", {"width": 4}, {"optimizer": SGD(lr=0.01, atomic=False)}),
    Network("unet", {"width": 6, "resolution": 16}, {"loss": "bce_with_logits"}),
    Network("autoencoder", {"width": 48}, {"loss": "mse"}, forms=(_FLOAT, _INT8)),
    Network("bert", _LAYERS),
    Network("bert", {**_LAYERS, "width": 40, "sequence": 16, "layers": 1}, _STATEFUL),
    Network("functions"),
    Network("functions", {"channels": 20, "resolution": 12}),
    Network("shapes"),
    Network("shapes", {"channels": 12, "resolution": 10}),
)
"""What tables are fitted on: together they have every operator, at several shapes."""

HELD_OUT = (
    Network("resnet8", {"width": 8}),
    Network("mbv2_w035", {"resolution": 32}),
    Network("tcn"),
    Network("face_detector"),
)
"""What tables are judged by, never in a fit."""


@dataclass(frozen=True)
class Check:
    """A step of a network that the table does not know: `counted` and `predicted` instructions of
    its nodes.
    """

    network: str
    precision: str
    gradients: str
    counted: tuple[int, ...]
    predicted: tuple[int, ...]

    @property
    def step_error(self) -> float:
        """Predicted instructions of the whole step over counted ones, less one."""
        return sum(self.predicted) / sum(self.counted) - 1

    @property
    def node_error(self) -> float:
        """The sum over nodes of |predicted - counted|, as a share of the step."""
        pairs = zip(self.predicted, self.counted, strict=True)
        return sum(abs(a - b) for a, b in pairs) / sum(self.counted)


@dataclass(frozen=True)
class Calibration:
    """A kernel table, and how well it predicts networks that it was not fitted on."""

    table: KernelTable
    checks: tuple[Check, ...]


def calibrate(
    device: str | Path | Device,
    *,
    only: Sequence[str] = (),
    progress: Callable[[str], None] = lambda network: None,
) -> Calibration:
    """Measure the kernel table of a device's processor; takes minutes.

    Args:
        device: a name, the path of a device file, or a `Device`.
        only: the networks to measure, by name; all by default.
        progress: called with each network before it is measured.

    Raises:
        InputError: the device cannot be emulated, or a network is not among those measured.
    """
    board = roomy(devices.load(device))
    fitted, held_out = _chosen(only)
    counted: list[Sample] = []
    names = []
    for network in fitted:
        progress(str(network))
        names.append(str(network))
        for form in network.forms:
            program, counts = _counted(network, form, board)
            counted += samples(program.train.graph, counts)
    table = fit(board.cpu, names, counted)
    checks = []
    for network in held_out:
        progress(f"{network}, held out")
        checks += [_check(network, form, board, table) for form in network.forms]
    return Calibration(judged(table, checks), tuple(checks))


def judged(table: KernelTable, checks: Sequence[Check]) -> KernelTable:
    """The table with its errors on networks that are not in its fit."""
    if not checks:
        return table
    errors = {
        "step_error": max(abs(check.step_error) for check in checks),
        "node_error": max(check.node_error for check in checks),
    }
    rounded = {name: float(f"{error:.3g}") for name, error in errors.items()}
    return table.model_copy(update=rounded)


def check(device: str | Path | Device, network: Network, form: Mapping[str, str]) -> Check:
    """What the kernel table of a device predicts of a network, against what is counted.

    Raises InputError where the device cannot be emulated.
    """
    loaded = devices.load(device)
    table = loaded.kernel_table()
    if table is None:
        raise InputError(_not_emulated(loaded))
    return _check(network, form, roomy(loaded), table)


def roomy(device: Device) -> Device:
    """A device of the same processor with memory enough for every network.

    Raises InputError where the device cannot be emulated.
    """
    if device.is_host:
        raise InputError(_not_emulated(device))
    memory = {
        "name": f"{device.cpu}-board",
        "sram_base": 0x2000_0000,
        "sram_bytes": _BOARD_BYTES,
        "flash_base": 0x0800_0000,
        "flash_bytes": _BOARD_BYTES,
    }
    return device.model_copy(update=memory)


def compiled(network: Network, form: Mapping[str, str], board: Device) -> tuple[Program, Any]:
    """The program of a network, and a sample for it."""
    model, example = zoo.create(network.name, **network.options)
    arguments: dict[str, Any] = {**network.arguments, **form}
    if form["precision"] == "int8":
        arguments["calibration"] = _inputs(model)
    # The int8 tables of functions with a pole have entries that no value reaches.
    with np.errstate(divide="ignore", invalid="ignore"):
        return compile_network(model, example, device=board, **arguments), example


def _counted(
    network: Network, form: Mapping[str, str], board: Device
) -> tuple[Program, tuple[int, ...]]:
    """A program, and the instructions of each node of one of its steps."""
    program, example = compiled(network, form, board)
    target = program.interface.target_type
    y = None if target is None else np.zeros(target.size)
    return program, program.instructions_by_node(example, y)


def _check(network: Network, form: Mapping[str, str], board: Device, table: KernelTable) -> Check:
    program, counts = _counted(network, form, board)
    return Check(
        network=str(network),
        precision=form["precision"],
        gradients=form.get("gradients", "float32"),
        counted=counts,
        predicted=node_instructions(program.train.graph, board.cpu, table),
    )


def _not_emulated(device: Device) -> str:
    boards = [name for name in devices.names() if not devices.load(name).is_host]
    return (
        f"device '{device.name}' has cpu = \"{device.cpu}\", which the emulator does not run, so "
        f"its instructions cannot be counted; choose a microcontroller: {', '.join(boards)}"
    )


def _chosen(only: Sequence[str]) -> tuple[Sequence[Network], Sequence[Network]]:
    if not only:
        return FITTED, HELD_OUT
    known = sorted({network.name for network in (*FITTED, *HELD_OUT)})
    unknown = [name for name in only if name not in known]
    if unknown:
        raise InputError(
            f"'{unknown[0]}' is not among the networks that are measured: {', '.join(known)}"
        )
    fitted = [network for network in FITTED if network.name in only]
    if not fitted:
        names = sorted({network.name for network in FITTED})
        raise InputError(
            f"{', '.join(only)}: held out of the fit, so there would be nothing to fit; add one "
            f"of {', '.join(names)}"
        )
    return fitted, [network for network in HELD_OUT if network.name in only]


def _inputs(model: zoo.ZooModel) -> Any:
    """Inputs to quantise by, the same each time."""
    random = np.random.default_rng(0)
    shape = (_CALIBRATION_SAMPLES, *model.input_shape)
    if model.vocabulary is not None:
        return random.integers(0, model.vocabulary, shape)
    return random.standard_normal(shape).astype(np.float32)
