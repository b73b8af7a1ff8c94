"""What `compile` returns: the planned program, its figures, its C project, and sessions that run
it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from numpy.typing import ArrayLike

from kilograd.codegen import layouts, project
from kilograd.codegen.project import Sources
from kilograd.devices import Device, Storage
from kilograd.devices.costs import Cost
from kilograd.errors import CompilerBug, InfeasibleError, InputError
from kilograd.execution.build import STORAGE_FUNCTIONS, build_firmware, build_host_library
from kilograd.execution.host import HostBackend
from kilograd.execution.image import Image
from kilograd.execution.interface import Interface
from kilograd.execution.session import History, Session
from kilograd.execution.storage import MemoryStorage, SessionStorage, install
from kilograd.explaining import Explanation, explain, plan_of
from kilograd.figures import Figures, figures, plan_facts
from kilograd.ir import Builder, Graph, Value
from kilograd.options import SGD, Budget, Loss, Planning
from kilograd.planning.costs import Estimate, total
from kilograd.planning.explain import describe_peak, describe_state
from kilograd.planning.explain_plan import PlanExplanation
from kilograd.planning.front import FrontPoint
from kilograd.planning.paging import Planned, step_estimates
from kilograd.planning.schedule import Schedule
from kilograd.planning.step_limits import step_limits
from kilograd.planning.storage import StoragePlan
from kilograd.saving import MANIFEST, save_project
from kilograd.summary import summary
from kilograd.transforms.differentiate import (
    TrainingGraphs,
    TrainingInputs,
    logits_of_softmax,
)
from kilograd.transforms.head import Classes
from kilograd.transforms.ports import Ports, id_count
from kilograd.transforms.quantize import Report
from kilograd.update import All, Spec


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
    """For a trained tensor of `train.graph.state` its gradient, where that is a value of the step;
    an operator that computes gradient and step in one has none."""
    predict: Schedule
    train: Schedule
    budget: Budget = field(default_factory=Budget)
    classes: Classes | None = None
    """The classes that were asked for in place of the model's."""
    quantized: Report | None = None
    """What quantisation left in float32 and why, and how int8 compares; None in float32."""
    notes: tuple[str, ...] = ()
    """Sentences that the user should see, such as parameters that cannot be trained."""
    update: Spec = field(default_factory=All)
    """What was asked to be trained."""
    model: str = "model"
    """What was compiled: the path of a file, or the name of a class."""
    storage: StoragePlan | None = None
    """What lies in secondary storage; None for a program that has no need of one."""
    storage_device: Storage | None = None
    """The secondary storage that the program was planned for."""
    plans: tuple[Planned, ...] = ()
    """The plans of prediction and training step, where the program was planned to fit."""
    planning: Planning = field(default_factory=Planning)
    """How it may be made to fit."""

    def __repr__(self) -> str:
        """`Program(lenet for stm32f746)`."""
        return f"Program({self.name} for {self.device.name})"

    def scheduled(self, predict: Schedule, train: Schedule) -> Program:
        """The program with other forms of its two functions."""
        gradients = TrainingGraphs.present(self.gradients, train.graph)
        return replace(self, predict=predict, train=train, gradients=gradients)

    @property
    def arena_bytes(self) -> int:
        """The arena that both functions share."""
        return max(self.predict.arena_bytes, self.train.arena_bytes, 4)

    @cached_property
    def state_bytes(self) -> int:
        """What is learned, and what the optimiser keeps, in bytes of SRAM."""
        return project.state_bytes(self.predict, self.train, self.storage)

    @cached_property
    def sources(self) -> Sources:
        """The C project as text."""
        return self._emit()

    def _emit(self, *, poison: bool = False, marker: str = "") -> Sources:
        return project.emit(
            self.name,
            self.predict,
            self.train,
            self.arena_bytes,
            storage=self.storage,
            poison=poison,
            marker=marker,
        )

    @cached_property
    def image(self) -> Image:
        """The program linked for its device; raises InputError for the device `host`."""
        return self._firmware("zig")

    @cached_property
    def memory(self) -> Memory:
        """Bytes, measured on the linked image where the device is a microcontroller."""
        bound = max(self.predict.lifetimes.peak_bytes, self.train.lifetimes.peak_bytes)
        arena, state = self.arena_bytes, self.state_bytes
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
        bound = image.stack_bound(entry, indirect=STORAGE_FUNCTIONS)
        if bound.bytes is None:
            raise CompilerBug(f"the stack of {entry} has no bound: {bound.reason}")
        return bound.bytes

    @cached_property
    def macs(self) -> Macs:
        """Multiply-accumulates of the two functions."""
        return Macs(_macs(self.predict.graph), _macs(self.train.graph))

    @cached_property
    def plan(self) -> PlanExplanation:
        """What the plan does with every tensor that it moves; empty for a program that fits as it
        stands.
        """
        return plan_of(self)

    @cached_property
    def figures(self) -> Figures:
        """What `summary`, `manifest` and `report` tell, as data."""
        return figures(self)

    def limits(self) -> tuple[int | None, int | None]:
        """SRAM and flash that the program may use: the device's, or less by the budget."""
        sram, flash = self.budget.sram_bytes, self.budget.flash_bytes
        if not self.device.is_host:
            memory = self.device.memory_map()
            sram = memory.sram_bytes if sram is None else min(sram, memory.sram_bytes)
            flash = memory.flash_bytes if flash is None else min(flash, memory.flash_bytes)
        return sram, flash

    def check_fit(self) -> None:
        """Raise InfeasibleError when the program needs more than the device or the budget has."""
        sram, flash = self.limits()
        static = self.arena_bytes + self.state_bytes
        if sram is not None and static > sram:
            raise InfeasibleError(self._too_large("SRAM", static, sram, "before stack"))
        if sram is not None and self.memory.sram_bytes > sram:
            raise InfeasibleError(self._too_large("SRAM", self.memory.sram_bytes, sram, "in all"))
        if flash is not None and self.memory.flash_bytes > flash:
            raise InfeasibleError(
                self._too_large("flash", self.memory.flash_bytes, flash, "in all")
            )

    def check_step(self) -> None:
        """Raise InfeasibleError when a step takes more time or energy than the budget has,
        InputError where the device has no estimate of what the budget limits.
        """
        for limit in step_limits(self.budget):
            amount = limit.known(self.step_estimate, self.device)
            if amount > limit.most:
                taken, most = limit.told_apart(amount)
                raise InfeasibleError(
                    f"a training step takes {taken} by estimate, more than the "
                    f"{most} of the budget ({limit.option}) on "
                    f"{self.device.name}. What helps: train fewer layers or channels, a smaller "
                    f"input, or {limit.remedy}."
                )

    @cached_property
    def step_cost(self) -> Cost | None:
        """Time and energy of a training step by the estimates of device and storage; None where
        the device has no estimate of both.
        """
        return self.step_estimate.cost

    @cached_property
    def step_estimate(self) -> Estimate:
        """Instructions, time and energy of a training step, as far as they can be estimated."""
        return total(step_estimates(self.train.graph, self.device, self.storage_device))

    def _too_large(self, memory: str, needed: int, available: int, scope: str) -> str:
        text = (
            f"the program needs {needed:,} bytes of {memory} {scope}, {needed - available:,} "
            "more than "
            f"the {available:,} of {self.device.name}"
        )
        if memory == "SRAM":
            text += (
                f" (arena {self.arena_bytes:,}, learned state {self.state_bytes:,}).\n"
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

    def explain(self, subject: str, name: str = "") -> Explanation:
        """Why the training step is as it is: print it, or read its fields.

        Args:
            subject: "peak" (what is alive where most bytes are), "value" (a tensor of the program),
                "weight" (a parameter, or several by a pattern), "layer" (one, or several), "plan"
                (what is paged and what runs again, why, and at what price).
            name: the value, or a pattern with shell wildcards; not for the peak and the plan.

        Raises InputError for an unknown subject or name, with the nearest that there are.
        """
        return explain(self, subject, name)

    def report(
        self,
        path: str | Path,
        *,
        runs: Sequence[History] | Mapping[str, History] = (),
        sample: tuple[ArrayLike, ArrayLike | None] | None = None,
        fronts: Mapping[str, Sequence[FrontPoint]] | None = None,
    ) -> Path:
        """Write one HTML file with the figures, the memory map, layers and curves of runs.

        Args:
            path: where it goes; an existing file is replaced.
            runs: what `Session.fit` returned, by name or in a list.
            sample: x and y of one training step, as of `Session.train_step`, that is run on the
                emulated device to count the instructions of every operator; without it, work is
                told in multiply-accumulates.
            fronts: choices that this program is one of, by what chose among them.

        Raises InputError where the libraries of `kilograd[report]` are missing, or the file cannot
        be written.
        """
        # Charts are an extra: only reports need them.
        from kilograd.report import write

        return write(self, path, runs=runs, sample=sample, fronts=fronts)

    def save(self, directory: str | Path, *, layout: str = "plain", force: bool = False) -> Path:
        """Write the C project in a layout of `codegen.layouts`, all of it or nothing.

        A path that ends in `.zip` (or, for `cmsis-pack`, `.pack`) becomes an archive, anything else
        a directory. What exists has to be an empty directory; `force` replaces a directory or an
        archive that an earlier `save` wrote, and nothing else. Raises InputError where `layout` is
        unknown or the path cannot be written.
        """
        return save_project(self.files(layout), Path(directory), layout, self._package, force)

    def files(self, layout: str = "plain") -> dict[str, str | bytes]:
        """Every file that `save` writes by relative path, `manifest.json` among them: text, and the
        bytes of `<name>_storage.bin` where the program pages.
        """
        layouts.check(layout)
        image = {f"{self.name}_storage.bin": self.storage.image} if self.storage else {}
        return {**layouts.arrange(layout, self._package), **image, MANIFEST: self.manifest()}

    @cached_property
    def _package(self) -> layouts.Package:
        target = TrainingInputs.of(self.train.graph).target
        return layouts.Package(
            name=self.name,
            sources=self.sources.files,
            input=self._input.type,
            output=self._output.type,
            target=target.type if target else None,
            input_port=self.ports.inputs[0],
            output_port=self.ports.outputs[0],
            loss=self.loss,
            learning_rate=self.optimizer.lr,
            cpu=self.device.cpu,
            stack_bytes=self.memory.stack_bytes,
            pages=self.storage is not None,
        )

    def manifest(self) -> str:
        """What was compiled, as JSON: the figures of `summary`, the ports, the trained tensors."""
        told, memory = self.figures, self.figures.memory
        content = {
            "kilograd": told.kilograd,
            "network": told.network,
            "model": told.model,
            "device": told.device,
            "loss": told.loss,
            "precision": told.precision,
            "quantization": told.quantization,
            "update": told.update,
            "command": told.command,
            "checkpoint_id": told.identity.checkpoint_id,
            "graph_sha256": told.identity.graph_sha256,
            "weights_sha256": told.identity.weights_sha256,
            "memory": {
                "sram_bytes": memory.sram_bytes,
                "arena_bytes": memory.arena_bytes,
                "arena_lower_bound_bytes": memory.lower_bound_bytes,
                "state_bytes": memory.state_bytes,
                "data_bytes": memory.data_bytes,
                "stack_bytes": memory.stack_bytes,
                "flash_bytes": memory.flash_bytes,
            },
            "macs": {"predict": told.macs.predict, "train_step": told.macs.train_step},
            "estimates": {
                "predict": asdict(told.predict),
                "train_step": asdict(told.train_step),
                "quality": told.estimates,
            },
            "input": {"user_shape": self.ports.inputs[0].shape, "program": str(self._input.type)},
            "output": {
                "user_shape": self.ports.outputs[0].shape,
                "program": str(self._output.type),
            },
            "plan": plan_facts(self),
            "trained": [
                {"name": tensor.origin.name, "type": str(value.type)}
                for value, tensor in self.train.graph.state.items()
                if tensor.origin is not None
            ],
        }
        if self.storage is not None:
            content["storage"] = {
                "bytes": self.storage.size_bytes,
                "image_bytes": self.storage.image_bytes,
                "block_bytes": self.storage.block_bytes,
                "erase_bytes": self.storage.erase_bytes,
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
            storage=self.storage,
            has_softmax=logits_of_softmax(Builder(predict), predict, output) is not None,
        )

    def on_host(
        self,
        *,
        toolchain: str = "zig",
        sanitize: bool = False,
        poison: bool = False,
        optimize: str = "-O3",
        storage: SessionStorage | None = None,
    ) -> Session:
        """A session that runs the C on this computer.

        `sanitize` stops at undefined behaviour; `poison` overwrites every tensor as soon as it is
        dead; `optimize` is the C compiler's flag, less of which builds sooner. They change speed,
        never results. `storage` is the secondary storage of a program that pages, by default one in
        memory; the program's image is written to it where it is not there yet.
        """
        sources = self.sources
        if poison:
            sources = self._emit(poison=True)
        storage = self._installed(storage)
        with tempfile.TemporaryDirectory(prefix="kilograd-host-") as scratch:
            library = build_host_library(
                {**sources.files, "harness.c": project.harness(sources)},
                (f"{self.name}.c", "harness.c"),
                Path(scratch) / f"{self.name}.so",
                toolchain=toolchain,
                sanitize=sanitize,
                optimize=optimize,
            )
            backend = HostBackend(self.interface, library, self.arena_bytes, storage)
            return Session(self.interface, backend)

    def _installed(self, storage: SessionStorage | None) -> SessionStorage | None:
        """The storage of a session, with the program's image in it."""
        if self.storage is None:
            if storage is not None:
                raise InputError(f"{self.name} has nothing in secondary storage; leave it out")
            return None
        if storage is None:
            storage = MemoryStorage(self.storage_device or self.storage)
        install(storage, self.storage)
        return storage

    def on_emulator(
        self, *, toolchain: str = "zig", storage: SessionStorage | None = None
    ) -> Session:
        """A session that runs the C on the emulated device, with exactly its SRAM and flash.

        `storage` as of `on_host`.
        """
        # Unicorn is an extra: only emulated sessions need it.
        from kilograd.execution.emulated import EmulatedBackend

        image = self.image if toolchain == "zig" else self._firmware(toolchain)
        storage = self._installed(storage)
        backend = EmulatedBackend(self.interface, image, self.device, self.arena_bytes, storage)
        return Session(self.interface, backend)

    def instructions_by_node(
        self, x: ArrayLike, y: ArrayLike | None = None, lr: float | None = None
    ) -> tuple[int, ...]:
        """Instructions of each node of one training step on the emulated device, in order.

        Arguments as of `Session.train_step`. Counted in a build with a marker behind every node.
        """
        # Unicorn is an extra: only emulated sessions need it.
        from kilograd.execution.node_profile import MARKER, MARKER_SOURCE, MarkedBackend

        sources = self._emit(marker=MARKER)
        image = self._firmware("zig", sources, MARKER_SOURCE)
        storage = self._installed(None)
        backend = MarkedBackend(self.interface, image, self.device, self.arena_bytes, storage)
        Session(self.interface, backend).train_step(x, y, lr)
        return backend.node_instructions

    def _firmware(self, toolchain: str, sources: Sources | None = None, extra: str = "") -> Image:
        sources = sources or self.sources
        return build_firmware(
            {**sources.files, "harness.c": project.harness(sources) + extra},
            (f"{self.name}.c", "harness.c"),
            self.device,
            toolchain=toolchain,
        )


def _macs(graph: Graph) -> int:
    return sum(node.op.cost(*(value.type for value in node.inputs)).macs for node in graph.nodes)
