"""Runs the C on an emulated device that has exactly the device's memory."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from kilograd.devices import Device
from kilograd.errors import DeviceFault, InputError, StorageError
from kilograd.execution.build import STORAGE_FUNCTIONS
from kilograd.execution.emulator import CallResult, Emulator
from kilograd.execution.image import Image
from kilograd.execution.interface import Interface
from kilograd.execution.session import Measurements
from kilograd.execution.storage import SessionStorage, Traffic

_IO_LAYOUT = "<fIf"


class EmulatedBackend:
    """The network in the SRAM of an emulated device."""

    def __init__(
        self,
        interface: Interface,
        image: Image,
        device: Device,
        arena_bytes: int,
        storage: SessionStorage | None = None,
    ) -> None:
        """Power the device up, with a storage where the program has one."""
        self.storage = storage
        self._interface = interface
        self._device = device
        self._emulator = Emulator(image, device)
        self._io = self._emulator.symbol("kg_session_io")
        self._state = self._emulator.symbol("kg_session_net") + arena_bytes
        self._input = self._call("input").value
        self._output = self._call("output").value
        self._target = None if interface.target_type is None else self._call("target").value
        if storage is not None:
            handlers: tuple[Callable[..., int], ...] = (self._read, self._write, self._erase)
            for name, handler in zip(STORAGE_FUNCTIONS, handlers, strict=True):
                self._emulator.serve(name, handler)
        self._last = Measurements()
        self._last_sample: tuple[bytes, bytes | None] | None = None

    def initialise(self) -> None:
        """Call `net_init`."""
        result = self._measure("init")
        if self.storage is not None and result.value:
            raise StorageError("the storage does not fit the program: too small, or other blocks")

    def predict(self, sample: bytes) -> tuple[int, bytes]:
        """Put the sample where the network wants it and call `net_predict`."""
        self._emulator.write(self._input, sample)
        status = self._measure("predict").signed_value
        return status, self._emulator.read(self._output, self._interface.output_type.bytes)

    def train_step(
        self, sample: bytes, target: bytes | None, learning_rate: float, step: int
    ) -> tuple[int, float]:
        """Put sample and target into the arena and call `net_train_step`."""
        self._put(sample, target)
        self._last_sample = sample, target
        self._emulator.write(self._io, struct.pack(_IO_LAYOUT, learning_rate, step, 0.0))
        status = self._measure("train_step").signed_value
        data = self._emulator.read(self._io, struct.calcsize(_IO_LAYOUT))
        return status, struct.unpack(_IO_LAYOUT, data)[2]

    def read_state(self) -> bytes:
        """Read the state structure out of the SRAM."""
        return self._emulator.read(self._state, self._interface.state_bytes)

    def write_state(self, state: bytes) -> None:
        """Write the state structure into the SRAM."""
        self._emulator.write(self._state, state)

    def save(self) -> bytes:
        """Call `net_save` with a buffer in the SRAM that the program leaves free."""
        size = self._interface.checkpoint_bytes
        buffer = self._buffer(size)
        written = self._measure("save", buffer, size, reserved_bytes=size + 8).value
        return self._emulator.read(buffer, written)

    def load(self, checkpoint: bytes) -> int:
        """Call `net_load` with a buffer in the SRAM that the program leaves free."""
        buffer = self._buffer(len(checkpoint))
        self._emulator.write(buffer, checkpoint)
        return self._measure(
            "load", buffer, len(checkpoint), reserved_bytes=len(checkpoint) + 8
        ).signed_value

    def measurements(self) -> Measurements:
        """Instructions, stack and transfers of the last call."""
        return self._last

    def profile(self) -> Mapping[str, int]:
        """Instructions of the last training step, run once more, by function; the state is kept."""
        if self._last_sample is None:
            raise InputError("there is no training step to profile yet; call train_step first")
        state = self.read_state()
        self._put(*self._last_sample)
        counts = self._emulator.profile("kg_session_train_step")
        self.write_state(state)
        return counts

    def _put(self, sample: bytes, target: bytes | None) -> None:
        self._emulator.write(self._input, sample)
        if target is not None and self._target is not None:
            self._emulator.write(self._target, target)

    def _buffer(self, size_bytes: int) -> int:
        """Where a checkpoint fits between static data and stack."""
        memory, image = self._device.memory_map(), self._emulator.image
        start = memory.sram_base + -(-image.static_bytes // 8) * 8
        stack_bytes = 1024
        free = memory.sram_base + memory.sram_bytes - stack_bytes - start
        if size_bytes > free:
            raise InputError(
                f"a checkpoint of {size_bytes} bytes does not fit the {max(free, 0)} bytes of "
                "SRAM that the "
                f"program leaves free on {self._device.name}; firmware would write it to "
                "flash in pieces. "
                "Use state_dict() to take the weights out of the emulator."
            )
        return start

    def _call(self, name: str, *arguments: int, reserved_bytes: int = 0) -> CallResult:
        return self._emulator.call(f"kg_session_{name}", *arguments, reserved_bytes=reserved_bytes)

    def _measure(self, name: str, *arguments: int, reserved_bytes: int = 0) -> CallResult:
        if self.storage is not None:
            self.storage.traffic = Traffic()
        result = self._call(name, *arguments, reserved_bytes=reserved_bytes)
        traffic = self.storage.traffic if self.storage is not None else Traffic()
        self._last = Measurements(result.instructions, result.stack_bytes, traffic)
        return result

    # Drivers of the storage, called by the program ---------------------------------------------

    def _read(self, _context: int, offset: int, to: int, size_bytes: int) -> int:
        assert self.storage is not None
        self._check_sram(to, size_bytes)
        data = self.storage.read(offset, size_bytes)
        self._emulator.write(to, data)
        return len(data)

    def _write(self, _context: int, offset: int, source: int, size_bytes: int) -> int:
        assert self.storage is not None
        return self.storage.write(offset, self._emulator.read(source, size_bytes))

    def _erase(self, _context: int, offset: int, size_bytes: int, *_: int) -> int:
        assert self.storage is not None
        return int(self.storage.erase(offset, size_bytes))

    def _check_sram(self, address: int, size_bytes: int) -> None:
        """A page goes to SRAM, and its memory is aligned as DMA wants it."""
        memory = self._device.memory_map()
        end = memory.sram_base + memory.sram_bytes
        if address < memory.sram_base or address + size_bytes > end or address % 4:
            raise DeviceFault(
                f"a page of {size_bytes} bytes is read to {address:#010x}; SRAM is "
                f"{memory.sram_base:#010x} to {end - 1:#010x}, in words of 4 bytes"
            )
