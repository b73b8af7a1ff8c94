"""Runs the C on this computer through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kilograd.errors import InputError, StorageError
from kilograd.execution.interface import Interface
from kilograd.execution.session import Measurements
from kilograd.execution.storage import HostDriver, SessionStorage, Traffic

_ALIGNMENT_BYTES = 64


class HostBackend:
    """The network in memory of this process; several backends may share one library."""

    def __init__(
        self,
        interface: Interface,
        library: Path,
        arena_bytes: int,
        storage: SessionStorage | None = None,
    ) -> None:
        """Load the library and reserve the network's memory."""
        self.storage = storage
        self._driver = HostDriver(storage) if storage is not None else None
        self._library = ctypes.CDLL(str(library))
        self._interface = interface
        self._arena_bytes = arena_bytes
        self._traffic = Traffic()
        size = ctypes.c_uint32.in_dll(self._library, "kg_session_bytes").value
        self._memory = ctypes.create_string_buffer(size + _ALIGNMENT_BYTES)
        address = ctypes.addressof(self._memory)
        self._net = ctypes.c_void_p(-(-address // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES)
        self._functions = {
            name: getattr(self._library, f"{interface.name}_{name}")
            for name in ("init", "input", "output", "predict", "train_step", "save", "load")
        }
        for name in ("input", "output"):
            self._functions[name].restype = ctypes.c_void_p
        self._functions["save"].restype = ctypes.c_size_t

    def initialise(self) -> None:
        """Call `net_init`."""
        if self._driver is None:
            self._functions["init"](self._net)
        elif self._functions["init"](self._net, self._driver.pointer):
            raise StorageError("the storage does not fit the program: too small, or other blocks")

    def predict(self, sample: bytes) -> tuple[int, bytes]:
        """Call `net_predict`."""
        status = self._run("predict", self._put(sample))
        output = self._functions["output"](self._net)
        return status, ctypes.string_at(output, self._interface.output_type.bytes)

    def train_step(
        self, sample: bytes, target: bytes | None, learning_rate: float, step: int
    ) -> tuple[int, float]:
        """Call `net_train_step`."""
        loss = ctypes.c_float()
        pointers = [self._put(sample)]
        if target is not None:
            kept = ctypes.create_string_buffer(target, len(target))
            pointers.append(ctypes.c_void_p(ctypes.addressof(kept)))
        status = self._run(
            "train_step",
            *pointers,
            ctypes.c_float(learning_rate),
            ctypes.c_uint32(step),
            ctypes.byref(loss),
        )
        return status, loss.value

    def read_state(self) -> bytes:
        """Copy the state structure."""
        return ctypes.string_at(self._state, self._interface.state_bytes)

    def write_state(self, state: bytes) -> None:
        """Overwrite the state structure."""
        ctypes.memmove(self._state, state, len(state))

    def save(self) -> bytes:
        """Call `net_save`."""
        buffer = ctypes.create_string_buffer(self._interface.checkpoint_bytes)
        size = self._functions["save"](self._net, buffer, ctypes.c_size_t(len(buffer)))
        return buffer.raw[:size]

    def load(self, checkpoint: bytes) -> int:
        """Call `net_load`."""
        status: int = self._functions["load"](
            self._net, checkpoint, ctypes.c_size_t(len(checkpoint))
        )
        return status

    def measurements(self) -> Measurements:
        """On the host nothing but transfers is counted."""
        return Measurements(traffic=self._traffic)

    def profile(self) -> Mapping[str, int]:
        """Instructions are not counted on the host."""
        raise InputError("the host counts no instructions; use program.on_emulator()")

    def _run(self, name: str, *arguments: Any) -> int:
        """Call a function that may use the storage; returns its status."""
        if self._driver is None:
            return int(self._functions[name](self._net, *arguments))
        self._driver.storage.traffic = Traffic()
        status = int(self._functions[name](self._net, *arguments))
        self._traffic = self._driver.storage.traffic
        self._driver.raise_pending()
        return status

    @property
    def _state(self) -> int:
        assert self._net.value is not None
        return self._net.value + self._arena_bytes

    def _put(self, sample: bytes) -> ctypes.c_void_p:
        place = self._functions["input"](self._net)
        ctypes.memmove(place, sample, len(sample))
        return ctypes.c_void_p(place)
