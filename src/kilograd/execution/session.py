"""Sessions: predict, learn, evaluate, save and restore, on whatever runs the compiled C.

Arrays are in the layout of the user's model, with or without the batch dimension for one sample.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kilograd.errors import CompilerBug, InputError, NonFiniteError, StorageError
from kilograd.execution.interface import Interface
from kilograd.execution.state import pack, split_bank, unpack, with_bank, write_bank
from kilograd.execution.storage import SessionStorage, Traffic
from kilograd.ir import Origin, to_user
from kilograd.ir.origin import Quantized, Reorder
from kilograd.ops.loss import BinaryCrossEntropyWithLogits, CrossEntropy, MeanSquaredError
from kilograd.ops.q_convert import Quantize
from kilograd.options import Loss, finite_float32

_MOST_CLASSES = 256
"""Of more classes no confusion is counted: they are tokens, not kinds."""

OK, NONFINITE, PARTIAL, LABEL, CHECKPOINT, INPUT, STORAGE = range(7)

Array = np.ndarray


class Backend(Protocol):
    """What runs the C: memory of one network, and its functions. Sizes and layouts are the
    program's.
    """

    storage: SessionStorage | None

    def predict(self, sample: bytes) -> tuple[int, bytes]:
        """Status and output of one prediction."""

    def train_step(
        self, sample: bytes, target: bytes | None, learning_rate: float, step: int
    ) -> tuple[int, float]:
        """Status and loss of one training step."""

    def initialise(self) -> None:
        """Back to the compiled network."""

    def read_state(self) -> bytes:
        """The state structure."""

    def write_state(self, state: bytes) -> None:
        """Replace the state structure."""

    def save(self) -> bytes:
        """A checkpoint."""

    def load(self, checkpoint: bytes) -> int:
        """Status of restoring a checkpoint."""

    def measurements(self) -> Measurements:
        """What the last call cost."""

    def profile(self) -> Mapping[str, int]:
        """Instructions of the last kind of call by function; raises InputError where they are not
        counted.
        """


@dataclass(frozen=True)
class Measurements:
    """Counts of the last call: executed instructions and bytes of stack, None where nobody counts
    them, and what it moved to and from secondary storage.
    """

    instructions: int | None = None
    stack_bytes: int | None = None
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(frozen=True)
class History:
    """What `fit` saw: the loss of every step, the validation loss and accuracy after every epoch,
    and the `confusion` of the last validation, as of `Evaluation`, empty where there is none.
    """

    losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    validation_accuracies: list[float] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluation:
    """The mean loss over samples, and the share of right classes where there are classes.

    `confusion` counts, for each class (row), what its samples were taken for (column); None where
    there are no classes, or more than 256.
    """

    loss: float
    accuracy: float | None
    confusion: list[list[int]] | None = None


class Session:
    """A network in memory that predicts and learns, one sample at a time, exactly as on the
    device.
    """

    def __init__(self, interface: Interface, backend: Backend) -> None:
        """Start from the compiled network."""
        self._interface = interface
        self._backend = backend
        self.step = 0
        """Index of the next training sample."""
        backend.initialise()

    # Running -------------------------------------------------------------------------------------

    def predict(self, x: ArrayLike) -> Array:
        """The network's output, float32 [N, ...] in the user's layout, for one sample or a batch.

        `x` is [N, ...], or one sample without the batch dimension, in the layout of the user's
        model. Raises InputError for another shape, or for what is no array of numbers.
        """
        port = self._interface.output
        rows = []
        for sample in self._samples(x):
            status, data = self._backend.predict(sample)
            self._raise_for(status)
            array = np.frombuffer(data, self._interface.output_type.dtype.numpy)
            rows.append(port.to_user(array.reshape(self._interface.output_type.shape)))
        empty = np.empty((0, *port.shape[1:]), self._interface.output_type.dtype.numpy)
        return np.concatenate(rows) if rows else empty

    def train_step(
        self, x: ArrayLike, y: ArrayLike | None = None, lr: float | None = None
    ) -> float:
        """Learn from one sample; returns its loss before the update.

        `y` is a class index, or an array of the output's shape; leave it out for an autoencoder.
        Raises NonFiniteError, with the weights of before the step, when NaN or infinity arises, and
        InputError for a label or a token id out of range.
        """
        samples = self._samples(x)
        if len(samples) != 1:
            raise InputError(f"train_step learns from one sample, got {len(samples)}; use fit")
        return self._step(samples[0], self._targets(y, 1)[0], self._rate(lr))

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        *,
        epochs: int = 1,
        lr: float | None = None,
        validation: tuple[ArrayLike, ArrayLike | None] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        progress: bool = True,
    ) -> History:
        """Train on every sample `epochs` times, in an order drawn anew each epoch from `seed`.

        `x` is [N, ...] in the layout of the user's model, `y` [N] class indices or [N, ...] targets
        of the output's shape. `validation` is a pair (x, y) that is evaluated after each epoch.
        Returns the curves. Raises NonFiniteError when NaN or infinity arises, with the weights of
        before that step, and InputError for samples, targets or arguments that do not fit.
        """
        samples = self._samples(x)
        targets, rate = self._targets(y, len(samples)), self._rate(lr)
        if not isinstance(epochs, numbers.Integral) or epochs < 0:
            raise InputError(f"epochs={epochs!r} must be a whole number, not negative")
        rng, history = np.random.default_rng(seed), History()
        with _progress(progress, epochs * len(samples)) as advance:
            for epoch in range(epochs):
                order = rng.permutation(len(samples)) if shuffle else range(len(samples))
                for index in order:
                    history.losses.append(self._step(samples[index], targets[index], rate))
                    advance(f"epoch {epoch + 1}/{epochs}  loss {np.mean(history.losses[-50:]):.4f}")
                if validation is not None:
                    found = self.evaluate(*validation)
                    history.validation_losses.append(found.loss)
                    if found.accuracy is not None:
                        history.validation_accuracies.append(found.accuracy)
                    history.confusion[:] = found.confusion or []
        return history

    # Judging -------------------------------------------------------------------------------------

    def accuracy(self, x: ArrayLike, y: ArrayLike) -> float:
        """The share of samples whose largest output is at the class index given, in [0, 1].

        `x` is [N, ...], `y` the class indices [N]. Raises InputError for a class that is not there.
        """
        return self._accuracy(self._outputs(x), y)

    def loss(self, x: ArrayLike, y: ArrayLike | None = None) -> float:
        """The mean loss over samples, without learning."""
        return self._loss(self._outputs(x), x, y)

    def evaluate(
        self, x: ArrayLike, y: ArrayLike | None = None, *, progress: bool = False
    ) -> Evaluation:
        """Loss and accuracy by one pass over the samples; with a bar where there is a terminal."""
        array = _numbers(x, "x")
        if array.shape == tuple(self._interface.input.shape[1:]):
            array = array[None]
        batches = np.array_split(array, max(1, len(array) // 16)) if len(array) else [array]
        outputs = []
        with _progress(progress, len(batches)) as advance:
            for batch in batches:
                outputs.append(self._outputs(batch))
                advance("evaluating")
        output = np.concatenate(outputs)
        classes = self._interface.loss is Loss.CROSS_ENTROPY and y is not None
        accuracy = self._accuracy(output, y) if classes and y is not None else None
        confusion = self._confusion(output, y) if classes and y is not None else None
        return Evaluation(self._loss(output, array, y), accuracy, confusion)

    def _accuracy(self, output: Array, y: ArrayLike) -> float:
        winners = np.argmax(output, axis=1)
        return float(np.mean(winners == self._labels(y, len(winners))))

    def _confusion(self, output: Array, y: ArrayLike) -> list[list[int]] | None:
        classes = output.shape[1]
        if classes > _MOST_CLASSES:
            return None
        counts = np.zeros((classes, classes), np.int64)
        labels = self._labels(y, len(output))
        np.add.at(counts, (labels.ravel(), np.argmax(output, axis=1).ravel()), 1)
        rows: list[list[int]] = counts.tolist()
        return rows

    def _loss(self, outputs: Array, x: ArrayLike, y: ArrayLike | None) -> float:
        output = outputs.astype(np.float64)
        kind = self._interface.loss
        if kind is Loss.CROSS_ENTROPY:
            logits = np.moveaxis(output, 1, -1)
            if self._interface.has_softmax:
                logits = np.log(np.maximum(logits, 1e-45))
            return float(CrossEntropy().reference(np, logits, self._labels(y, len(output)))[0])
        wanted = x if kind is Loss.AUTOENCODER else y
        target = self._float_targets(wanted, len(output)).astype(np.float64)
        if kind is Loss.BCE_WITH_LOGITS:
            return float(BinaryCrossEntropyWithLogits().reference(np, output, target)[0])
        return float(MeanSquaredError().reference(np, output, target)[0])

    # State ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """The trained parameters under the user's names and layouts, batch norm unfolded.

        Goes back into the model with `model.load_state_dict({k: torch.from_numpy(v) ...},
        strict=False)`.
        """
        trained = [
            (tensor.origin, array)
            for (_, tensor), array in zip(
                self._interface.state.items(), self.raw_state().values(), strict=True
            )
            if tensor.origin is not None
        ]
        names = {origin.name for origin, _ in trained}
        frozen = [
            (tensor.origin, tensor.array)
            for tensor in self._interface.frozen.values()
            if tensor.origin is not None and tensor.origin.name in names
        ]
        return {name: array.copy() for name, array in to_user([*trained, *frozen]).items()}

    def load_state_dict(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Set trained parameters by the user's names; others are left alone.

        Raises InputError for a name that is not trained, a value that a frozen part contradicts, or
        one beyond the range of an int8 weight.
        """
        current = self.raw_state()
        origins = {t.origin.name for t in self._interface.state.values() if t.origin is not None}
        unknown = sorted(set(parameters) - origins)
        if unknown:
            raise InputError(
                f"not trained in this program: {', '.join(unknown)}; trained are "
                f"{', '.join(sorted(origins))}"
            )
        shapes = {name: array.shape for name, array in self.state_dict().items()}
        for value, tensor in self._interface.state.items():
            origin: Origin | None = tensor.origin
            if origin is None or origin.name not in parameters:
                continue
            array = _numbers(parameters[origin.name], origin.name).astype(np.float32)
            if array.shape != shapes[origin.name] or not np.isfinite(array).all():
                raise InputError(
                    f"{origin.name} has shape {list(shapes[origin.name])} and finite elements, got "
                    f"{list(array.shape)} with {int((~np.isfinite(array)).sum())} that are not"
                )
            self._check_frozen(origin.name, array)
            _check_range(origin, array)
            current[value.name] = origin.to_program(array)
        raw = self._backend.read_state()
        self._backend.write_state(pack(self._interface, current, raw, self._backend.storage))

    def _check_frozen(self, name: str, array: Array) -> None:
        """Refuse a parameter that differs from its frozen part, which is in flash."""
        for tensor in self._interface.frozen.values():
            origin = tensor.origin
            if origin is None or origin.name != name or origin.part is None:
                continue
            if not np.allclose(origin.to_program(array), tensor.array, rtol=1e-4, atol=1e-6):
                raise InputError(
                    f"{name}: only {_trained_channels(origin)} are trained in this "
                    f"program; the others, to {origin.part.whole - 1}, are frozen and differ from "
                    "the value given"
                )

    def raw_state(self) -> dict[str, Array]:
        """Every tensor of the state as the program stores it, optimiser state included, by program
        name.
        """
        return unpack(self._interface, self._backend.read_state(), self._backend.storage)

    def reset(self) -> None:
        """Back to the compiled network and step 0."""
        self._backend.initialise()
        self.step = 0

    def save(self, path: str | Path) -> None:
        """Write a checkpoint as the device's `net_save` makes it. Behind it come, for a program
        with weights in secondary storage, these weights, so that the file stands by itself.

        Raises InputError where the file cannot be written.
        """
        data = with_bank(self._interface, self._backend.save(), self._backend.storage)
        try:
            Path(path).write_bytes(data)
        except OSError as error:
            raise InputError(f"cannot write the checkpoint {path}: {error}") from error

    def load(self, path: str | Path) -> None:
        """Restore a checkpoint; a corrupt or foreign one raises InputError and changes nothing.

        One that the device's `net_save` made goes with the storage that it was made with.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no checkpoint {path}")
        refused = InputError(
            f"{path} is corrupt, or the checkpoint of another network than "
            f"{self._interface.name}; nothing was changed"
        )
        try:
            checkpoint, bank = split_bank(self._interface, path.read_bytes())
        except StorageError as error:
            raise refused from error
        if self._backend.load(checkpoint) != OK:
            raise refused
        if bank and self._backend.storage is not None:
            raw = self._backend.read_state()
            write_bank(self._interface, raw, bank, self._backend.storage)

    # Measuring -----------------------------------------------------------------------------------

    @property
    def instructions(self) -> int | None:
        """Instructions executed by the last call; None on the host."""
        return self._backend.measurements().instructions

    @property
    def stack_bytes(self) -> int | None:
        """Stack used by the last call, measured by painting; None on the host."""
        return self._backend.measurements().stack_bytes

    @property
    def traffic(self) -> Traffic:
        """What the last call moved to and from secondary storage."""
        return self._backend.measurements().traffic

    @property
    def storage(self) -> SessionStorage | None:
        """The secondary storage of the network; None for a program that has none."""
        return self._backend.storage

    def profile(self) -> Mapping[str, int]:
        """Instructions of a training step by C function, largest first; only on the emulator."""
        return self._backend.profile()

    # Inside --------------------------------------------------------------------------------------

    def _step(self, sample: bytes, target: bytes | None, rate: float) -> float:
        atomic = self._interface.optimizer.atomic and self._interface.storage is None
        keep = None if atomic else self._backend.read_state()
        status, loss = self._backend.train_step(sample, target, rate, self.step)
        if status == PARTIAL and keep is not None:
            self._backend.write_state(keep)
        self._raise_for(status, loss)
        self.step += 1
        return loss

    def _rate(self, lr: float | None) -> float:
        rate = self._interface.optimizer.lr if lr is None else lr
        return finite_float32("lr", rate)

    def _samples(self, x: ArrayLike) -> list[bytes]:
        port, array = self._interface.input, _numbers(x, "x")
        single = tuple(port.shape[1:])
        if array.shape == single:
            array = array[None]
        if array.shape[1:] != single or array.ndim != len(port.shape):
            raise InputError(
                f"the model takes samples of shape {list(single)}, with or without a leading batch "
                f"dimension; got an array of shape {list(array.shape)}"
            )
        if self._interface.input_ids is not None:
            _check_ids(array, self._interface.input_ids)
        array = self._stored(array)
        return [np.ascontiguousarray(port.to_program(sample[None])).tobytes() for sample in array]

    def _stored(self, array: Array) -> Array:
        """Real numbers as the program takes them."""
        type_ = self._interface.input_type
        if type_.quantization is None:
            return array.astype(type_.dtype.numpy)
        wrong = np.argwhere(np.isnan(array))
        if len(wrong):
            raise InputError(
                f"sample {wrong[0][0]} of {len(array)} holds NaN, which int8 has not; nothing was "
                "changed"
            )
        convert = Quantize(type_.quantization.scales[0], type_.quantization.zero_point)
        return np.asarray(convert.reference(np, array.astype(np.float32))[0])

    def _outputs(self, x: ArrayLike) -> Array:
        output = self.predict(x)
        if not len(output):
            raise InputError("there are no samples to judge by")
        return output

    def _targets(self, y: ArrayLike | None, count: int) -> list[bytes | None]:
        type_ = self._interface.target_type
        if type_ is None:
            return [None] * count
        if self._interface.loss is Loss.CROSS_ENTROPY:
            return [row.tobytes() for row in self._labels(y, count)]
        port = self._interface.output
        return [
            np.ascontiguousarray(port.to_program(row[None])).tobytes()
            for row in self._float_targets(y, count)
        ]

    def _labels(self, y: ArrayLike | None, count: int) -> Array:
        """Class indices i32 [count, ...] in the user's layout."""
        shape = self._interface.output.shape
        per_sample = (1, *shape[2:])
        labels = _numbers(self._given(y), "y")
        if not np.array_equal(labels, np.round(labels)):
            raise InputError("cross_entropy takes class indices, which are whole numbers")
        if labels.size != count * np.prod(per_sample):
            raise InputError(
                f"{labels.size} labels for {count} samples of {np.prod(per_sample)} each"
            )
        classes = shape[1]
        wrong = labels[(labels < 0) | (labels >= classes)].reshape(-1)
        if wrong.size:
            raise InputError(
                f"label {wrong[0]} is out of range: the network has classes 0 to {classes - 1}"
            )
        return labels.reshape(count, *shape[2:]).astype(np.int32)

    def _float_targets(self, y: ArrayLike | None, count: int) -> Array:
        """Targets f32 [count, ...] in the user's layout."""
        shape = self._interface.output.shape[1:]
        array = _numbers(self._given(y), "y")
        if array.size != count * np.prod(shape):
            raise InputError(
                f"the targets have shape {list(array.shape)}, {count} x {list(shape)} is needed"
            )
        return array.reshape(count, *shape).astype(np.float32)

    def _given(self, y: ArrayLike | None) -> ArrayLike:
        if y is None:
            raise InputError(f"the loss {self._interface.loss.value} needs targets")
        return y

    def _raise_for(self, status: int, loss: float = 0.0) -> None:
        if status == OK:
            return
        if status == STORAGE or (status == PARTIAL and self._interface.storage is not None):
            nan = " (or NaN or infinity arose)" if status == PARTIAL else ""
            raise StorageError(
                f"the storage failed in step {self.step}{nan}: a transfer went wrong, or what was "
                "read is not what had been written; the weights are those of before the call, "
                "which can be repeated"
            )
        if status in (NONFINITE, PARTIAL):
            raise NonFiniteError(
                f"NaN or infinity arose in training step {self.step} (loss {loss:g}); the "
                "weights are those "
                "of before the step. Look for NaN in the sample, or lower the learning rate."
            )
        if status == LABEL:
            raise InputError("a label is out of range; nothing was changed")
        if status == INPUT:
            raise InputError("a token id is out of range; nothing was changed")
        raise CompilerBug(f"the program answered with status {status}")


def _numbers(x: Any, name: str) -> Array:
    """An array of real numbers; raises InputError for anything else."""
    try:
        array = np.asarray(x.detach() if hasattr(x, "detach") else x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} is no array of numbers: {error}") from None
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} holds {array.dtype}; real numbers are needed")
    return array


def _check_range(origin: Origin, array: Array) -> None:
    """Refuse a parameter that an integer tensor cannot hold; its scales are those of the compiled
    weights.
    """
    if not origin.steps or not isinstance(origin.steps[-1], Quantized):
        return
    last = origin.steps[-1]
    whole = replace(origin, steps=origin.steps[:-1], part=None).to_program(array)
    excess = float(np.max(np.abs(whole) / last.scales)) / last.limit
    if excess > 1 + 0.5 / last.limit:
        raise InputError(
            f"{origin.name}: a value is {excess:.3g} times the largest that its integers can hold; "
            "compile the model with these parameters, or with headroom for them"
        )


def _trained_channels(frozen: Origin) -> str:
    """The channels that are not in a frozen part, by the user's count."""
    assert frozen.part is not None
    for step in frozen.steps:
        if isinstance(step, Reorder) and step.axis == frozen.part.axis:
            return f"channels {', '.join(map(str, sorted(step.order[: frozen.part.start])))}"
    return f"channels 0 to {frozen.part.start - 1}"


def _check_ids(array: Array, count: int) -> None:
    """Refuse what is no id of a table with `count` rows."""
    if not np.array_equal(array, np.round(array)):
        raise InputError("x holds numbers with a fraction; token ids are whole numbers")
    wrong = array[(array < 0) | (array >= count)].reshape(-1)
    if wrong.size:
        raise InputError(
            f"token id {int(wrong[0])} is out of range: the network has ids 0 to {count - 1}"
        )


@contextmanager
def _progress(show: bool, total: int) -> Iterator[Any]:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    hidden = not (show and console.is_terminal)
    with Progress(*columns, console=console, disable=hidden, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda text: bar.update(task, advance=1, description=text)
