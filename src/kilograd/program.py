"""What `compile` returns: the planned program, its figures, its C project, and sessions that run
it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path

from kilograd.codegen import project
from kilograd.codegen.project import Sources
from kilograd.devices import Device
from kilograd.errors import CompilerBug, InfeasibleError, InputError
from kilograd.execution.build import build_firmware, build_host_library, write_files
from kilograd.execution.host import HostBackend
from kilograd.execution.image import Image
from kilograd.execution.interface import Interface
from kilograd.execution.session import Session
from kilograd.ir import Builder, Graph, Value
from kilograd.options import SGD, Budget, Loss
from kilograd.planning.explain import describe_peak, describe_state
from kilograd.planning.schedule import Schedule
from kilograd.summary import summary
from kilograd.transforms.differentiate import TrainingInputs, logits_of_softmax
from kilograd.transforms.ports import Ports, id_count

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Memory:
    """Bytes of the linked program on its device.

    `sram_bytes` is all of the SRAM: `arena_bytes` (tensors of the running call), `state_bytes`
    (what is learned), `data_bytes` (other static data) and `stack_bytes` (worst case over the call
    graph of the linked image). `lower_bound_bytes` is the largest sum of tensors alive at once,
    which no arena can undercut. On the device `host` data, stack and flash are not measured and 0.
    """

    arena_bytes: int
    state_bytes: int
    data_bytes: int
    stack_bytes: int
    flash_bytes: int
    lower_bound_bytes: int

    @property
    def sram_bytes(self) -> int:
        """All of the SRAM that the program uses."""
        return self.arena_bytes + self.state_bytes + self.data_bytes + self.stack_bytes


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates: of one prediction, and of one training step."""

    predict: int
    train_step: int


@dataclass(frozen=True, eq=False, repr=False)
class Program:
    """A compiled network. Build it with `kilograd.compile`."""

    name: str
    device: Device
    loss: Loss
    optimizer: SGD
    ports: Ports
    forward: Graph
    gradients: Mapping[Value, Value]
    predict: Schedule
    train: Schedule
    budget: Budget = field(default_factory=Budget)
    notes: tuple[str, ...] = ()
    """Sentences that the user should see, such as parameters that cannot be trained."""

    def __repr__(self) -> str:
        """`Program(lenet for stm32f746)`."""
        return f"Program({self.name} for {self.device.name})"

    @property
    def arena_bytes(self) -> int:
        """The arena that both functions share."""
        return max(self.predict.arena_bytes, self.train.arena_bytes, 4)

    @cached_property
    def sources(self) -> Sources:
        """The C project as text."""
        return project.emit(self.name, self.predict, self.train, self.arena_bytes)

    @cached_property
    def image(self) -> Image:
        """The program linked for its device; raises InputError for the device `host`."""
        return self._firmware("zig")

    @cached_property
    def memory(self) -> Memory:
        """Bytes, measured on the linked image where the device is a microcontroller."""
        bound = max(self.predict.lifetimes.peak_bytes, self.train.lifetimes.peak_bytes)
        arena, state = self.arena_bytes, self.sources.state_bytes
        if self.device.is_host:
            return Memory(arena, state, 0, 0, 0, bound)
        image = self.image
        stack = max(
            self._stack_bytes(image, f"kg_session_{entry}")
            for entry in ("init", "predict", "train_step", "save", "load")
        )
        return Memory(
            arena, state, image.static_bytes - arena - state, stack, image.flash_bytes, bound
        )

    @staticmethod
    def _stack_bytes(image: Image, entry: str) -> int:
        bound = image.stack_bound(entry)
        if bound.bytes is None:
            raise CompilerBug(f"the stack of {entry} has no bound: {bound.reason}")
        return bound.bytes

    @cached_property
    def macs(self) -> Macs:
        """Multiply-accumulates of the two functions."""
        return Macs(_macs(self.predict.graph), _macs(self.train.graph))

    def check_fit(self) -> None:
        """Raise InfeasibleError when the program needs more than the device or the budget has."""
        sram, flash = self.budget.sram_bytes, self.budget.flash_bytes
        if not self.device.is_host:
            memory = self.device.memory_map()
            sram = memory.sram_bytes if sram is None else min(sram, memory.sram_bytes)
            flash = memory.flash_bytes if flash is None else min(flash, memory.flash_bytes)
        static = self.arena_bytes + self.sources.state_bytes
        if sram is not None and static > sram:
            raise InfeasibleError(self._too_large("SRAM", static, sram, "before stack"))
        if sram is not None and self.memory.sram_bytes > sram:
            raise InfeasibleError(self._too_large("SRAM", self.memory.sram_bytes, sram, "in all"))
        if flash is not None and self.memory.flash_bytes > flash:
            raise InfeasibleError(
                self._too_large("flash", self.memory.flash_bytes, flash, "in all")
            )

    def _too_large(self, memory: str, needed: int, available: int, scope: str) -> str:
        text = (
            f"the program needs {needed:,} bytes of {memory} {scope}, {needed - available:,} "
            "more than "
            f"the {available:,} of {self.device.name}"
        )
        if memory == "SRAM":
            text += (
                f" (arena {self.arena_bytes:,}, learned state {self.sources.state_bytes:,}).\n"
                f"The peak of the arena is made by:\n{describe_peak(self.train)}\n"
                f"The learned state is made by:\n{describe_state(self.train.graph)}\n"
                "What helps: train fewer layers (update=kg.update.last(k) or biases(k)), a "
                "fraction of the channels (kg.update.channels), kg.SGD(atomic=False), a smaller "
                "input, or a larger device."
            )
        else:
            text += ".\nWhat helps: a narrower network, or a device with more flash."
        return text

    def summary(self) -> str:
        """Bytes, work and what is trained, as a text table."""
        return summary(self)

    def save(self, directory: str | Path, *, force: bool = False) -> Path:
        """Write the C project, all of it or nothing.

        An existing directory has to be empty; `force` replaces one that an earlier `save` wrote,
        and no other. Raises InputError where the directory cannot be written.
        """
        target = Path(directory).resolve()
        _check_target(Path(directory), target, force)
        files = {**self.sources.files, _MANIFEST: self.manifest()}
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".kilograd-") as scratch:
                staged = Path(scratch) / "project"
                write_files(files, staged)
                if target.exists():
                    target.rename(Path(scratch) / "replaced")
                staged.rename(target)
        except OSError as error:
            raise InputError(f"cannot write the C project to {directory}: {error}") from error
        return Path(directory)

    def manifest(self) -> str:
        """What was compiled, as JSON: the figures of `summary`, the ports, the trained tensors."""
        memory = self.memory
        content = {
            "kilograd": metadata.version("kilograd"),
            "network": self.name,
            "device": self.device.name,
            "loss": self.loss.value,
            "checkpoint_id": self.sources.checkpoint_id,
            "memory": {
                "sram_bytes": memory.sram_bytes,
                "arena_bytes": memory.arena_bytes,
                "arena_lower_bound_bytes": memory.lower_bound_bytes,
                "state_bytes": memory.state_bytes,
                "data_bytes": memory.data_bytes,
                "stack_bytes": memory.stack_bytes,
                "flash_bytes": memory.flash_bytes,
            },
            "macs": {"predict": self.macs.predict, "train_step": self.macs.train_step},
            "input": {"user_shape": self.ports.inputs[0].shape, "program": str(self._input.type)},
            "output": {
                "user_shape": self.ports.outputs[0].shape,
                "program": str(self._output.type),
            },
            "trained": [
                {"name": tensor.origin.name, "type": str(value.type)}
                for value, tensor in self.train.graph.state.items()
                if tensor.origin is not None
            ],
        }
        return json.dumps(content, indent=2, sort_keys=True) + "\n"

    @property
    def _input(self) -> Value:
        return self.predict.graph.inputs[0]

    @property
    def _output(self) -> Value:
        return self.predict.graph.outputs[0]

    @cached_property
    def interface(self) -> Interface:
        """What sessions know of this program."""
        graph = self.train.graph
        target = TrainingInputs.of(graph).target
        predict, output = self.predict.graph, self.ports.outputs[0]
        return Interface(
            name=self.name,
            input=self.ports.inputs[0],
            output=output,
            input_type=self._input.type,
            output_type=self._output.type,
            target_type=target.type if target else None,
            loss=self.loss,
            optimizer=self.optimizer,
            state=graph.state,
            frozen={**predict.constants, **graph.constants},
            input_ids=id_count(predict),
            has_softmax=logits_of_softmax(Builder(predict), predict, output) is not None,
        )

    def on_host(
        self,
        *,
        toolchain: str = "zig",
        sanitize: bool = False,
        poison: bool = False,
        optimize: str = "-O3",
    ) -> Session:
        """A session that runs the C on this computer.

        `sanitize` stops at undefined behaviour; `poison` overwrites every tensor as soon as it is
        dead; `optimize` is the C compiler's flag, less of which builds sooner. They change speed,
        never results.
        """
        sources = self.sources
        if poison:
            sources = project.emit(
                self.name, self.predict, self.train, self.arena_bytes, poison=True
            )
        with tempfile.TemporaryDirectory(prefix="kilograd-host-") as scratch:
            library = build_host_library(
                {**sources.files, "harness.c": project.harness(sources)},
                (f"{self.name}.c", "harness.c"),
                Path(scratch) / f"{self.name}.so",
                toolchain=toolchain,
                sanitize=sanitize,
                optimize=optimize,
            )
            return Session(self.interface, HostBackend(self.interface, library, self.arena_bytes))

    def on_emulator(self, *, toolchain: str = "zig") -> Session:
        """A session that runs the C on the emulated device, with exactly its SRAM and flash."""
        # Unicorn is an extra: only emulated sessions need it.
        from kilograd.execution.emulated import EmulatedBackend

        image = self.image if toolchain == "zig" else self._firmware(toolchain)
        backend = EmulatedBackend(self.interface, image, self.device, self.arena_bytes)
        return Session(self.interface, backend)

    def _firmware(self, toolchain: str) -> Image:
        return build_firmware(
            {**self.sources.files, "harness.c": project.harness(self.sources)},
            (f"{self.name}.c", "harness.c"),
            self.device,
            toolchain=toolchain,
        )


def _check_target(directory: Path, target: Path, force: bool) -> None:
    """Refuse a directory that cannot be replaced without losing what is not ours."""
    if target.exists() and not target.is_dir():
        raise InputError(f"{directory} is a file; name a directory to write the C project to")
    if Path.cwd().is_relative_to(target):
        raise InputError(
            f"the C project replaces a directory as a whole, which {directory} cannot be, as "
            "it holds the current one; name a new directory inside, such as firmware"
        )
    if not target.exists() or not any(target.iterdir()):
        return
    if not force:
        raise InputError(
            f"{directory} is not empty; choose another directory, or force it (--force)"
        )
    if not _is_project(target):
        raise InputError(
            f"{directory} holds files that kilograd did not write (it has no {_MANIFEST} of a "
            "kilograd project), so it is not replaced; choose another directory"
        )


def _is_project(directory: Path) -> bool:
    try:
        content = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "kilograd" in content


def _macs(graph: Graph) -> int:
    return sum(node.op.cost(*(value.type for value in node.inputs)).macs for node in graph.nodes)
