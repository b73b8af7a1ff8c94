"""Run a firmware image on an emulated Cortex-M that has the device's memories and nothing else.

    address        mapped as
    flash          read, execute; erased bytes read 0xFF
    SRAM           read, write
    0xE000ED88     CPACR, the register that switches the FPU on (Cortex-M4 and M7)
    anything else  a fault, told by name

Instructions are counted exactly; they are not cycles (see `Device.cycles_per_instruction`).
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kilograd.devices import Device
from kilograd.errors import DeviceFault, InputError
from kilograd.execution.build import STORAGE_FUNCTIONS
from kilograd.execution.image import Image
from kilograd.execution.instruction_counter import Block, InstructionCounter

try:
    import unicorn as untyped_unicorn
    from unicorn import arm_const
    from unicorn.unicorn_py3.unicorn import uclib
except ImportError as error:
    raise InputError(
        'the emulator needs Unicorn 2.1.1 or later: pip install "kilograd[emulator]"'
    ) from error

unicorn: Any = untyped_unicorn

DEFAULT_INSTRUCTION_LIMIT = 100_000_000_000
"""Minutes of emulation, and more than any training step takes."""

# Unicorn's mode flag MCLASS would silently turn every model into a Cortex-M33.
_CPU_MODELS = {
    "cortex-m7": arm_const.UC_CPU_ARM_CORTEX_M7,
    "cortex-m4": arm_const.UC_CPU_ARM_CORTEX_M4,
    "cortex-m0plus": arm_const.UC_CPU_ARM_CORTEX_M0,
}
_ARGUMENT_REGISTERS = (
    arm_const.UC_ARM_REG_R0,
    arm_const.UC_ARM_REG_R1,
    arm_const.UC_ARM_REG_R2,
    arm_const.UC_ARM_REG_R3,
)
_PAGE_BYTES = 1024
_ERASED_FLASH = 0xFF
_POWER_UP_SRAM = 0x5A
_PAINT = 0xA5

_SYSTEM_CONTROL_BASE = 0xE000E000
_SYSTEM_CONTROL_BYTES = 0x1000
_CPACR_OFFSET = 0xD88

_IDLE = "kg_idle"

_ACCESS_NAMES = {
    unicorn.UC_MEM_READ: "read",
    unicorn.UC_MEM_WRITE: "write",
    unicorn.UC_MEM_READ_UNMAPPED: "read",
    unicorn.UC_MEM_WRITE_UNMAPPED: "write",
    unicorn.UC_MEM_FETCH_UNMAPPED: "instruction fetch",
    unicorn.UC_MEM_READ_PROT: "read",
    unicorn.UC_MEM_WRITE_PROT: "write",
    unicorn.UC_MEM_FETCH_PROT: "instruction fetch",
}
# Numbers of QEMU's Arm exceptions, which Unicorn passes to interrupt hooks.
_EXCEPTION_NAMES = {
    1: "undefined instruction",
    2: "supervisor call",
    3: "instruction fetch abort",
    4: "unaligned access",
    7: "breakpoint",
}


@dataclass(frozen=True)
class CallResult:
    """What a call on the device returned and cost.

    Attributes:
        value: register r0 as an unsigned 32-bit integer.
        float_value: the result of a function that returns `float`.
        instructions: executed between entry and return, both included.
        stack_bytes: from the stack's top to the lowest byte that was written.
    """

    value: int
    float_value: float
    instructions: int
    stack_bytes: int

    @property
    def signed_value(self) -> int:
        """Register r0 as a signed 32-bit integer."""
        return self.value - (1 << 32) if self.value >> 31 else self.value


@dataclass(frozen=True)
class _Fault:
    """What the emulated processor tripped over, as the hooks saw it."""

    kind: str
    address: int | None = None
    size_bytes: int = 0


class Emulator:
    """A device that runs one image; its memory persists from call to call."""

    def __init__(self, image: Image, device: Device) -> None:
        """Map the memories, program the flash and run the start-up code.

        Raises:
            InputError: the device is the host, or the image is not linked for it or lacks
                kilograd's start-up code.
            DeviceFault: the start-up code faults.
        """
        self.image = image
        self.device = device
        self._memory = device.memory_map()
        self._idle = image.symbol(_IDLE).address
        self._check_placement()
        self._uc: Any = unicorn.Uc(
            unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB, _CPU_MODELS[device.cpu]
        )
        self._fault: _Fault | None = None
        self._cpacr = 0
        self._guards: list[tuple[int, int]] = []
        self._map_memories()
        self._uc.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._on_invalid_access)
        self._uc.hook_add(unicorn.UC_HOOK_INTR, self._on_exception)
        self._counter = InstructionCounter(image, ctypes.cast(uclib.uc_emu_stop, ctypes.c_void_p))
        self._hook_blocks()
        self.reset()

    def reset(self) -> int:
        """Power-cycle: SRAM loses its content, the start-up code and `main` run.

        Returns:
            The number of instructions executed.
        """
        memory = self._memory
        self._sram.fill(_POWER_UP_SRAM)
        self._cpacr = 0
        stack_top, entry = struct.unpack("<II", self.read(memory.flash_base, 8))
        self._uc.reg_write(arm_const.UC_ARM_REG_SP, stack_top)
        self._run(entry, DEFAULT_INSTRUCTION_LIMIT, "start-up")
        return self._counter.executed

    def call(
        self,
        symbol: str,
        *arguments: int,
        instruction_limit: int = DEFAULT_INSTRUCTION_LIMIT,
        reserved_bytes: int = 0,
    ) -> CallResult:
        """Call a function of the image with integers and addresses, as the AAPCS passes them.

        Args:
            symbol: a function, which must be among the image's exports if nothing calls it.
            arguments: 32-bit integers, signed or unsigned; floats and 64-bit integers are not
                supported: pass their address.
            instruction_limit: more instructions than this are a fault.
            reserved_bytes: bytes behind the static data that hold data of the caller.

        Raises:
            InputError: there is no such function.
            DeviceFault: it accesses memory that the device does not have, overflows the stack,
                executes what is not an instruction or does not return in time.
        """
        function = self.image.symbol(symbol)
        if not function.is_function:
            raise InputError(f"'{symbol}' is not a function of {self.image.path.name}")
        stack_top = self.image.stack_top
        free = self._sram[self._free_base() + reserved_bytes - self._memory.sram_base :]
        free.fill(_PAINT)

        words = [value & 0xFFFFFFFF for value in arguments]
        on_stack = words[len(_ARGUMENT_REGISTERS) :]
        stack_pointer = stack_top - (4 * len(on_stack) + 7) // 8 * 8
        for register, value in zip(_ARGUMENT_REGISTERS, words, strict=False):
            self._uc.reg_write(register, value)
        self.write(stack_pointer, struct.pack(f"<{len(on_stack)}I", *on_stack))
        self._uc.reg_write(arm_const.UC_ARM_REG_SP, stack_pointer)
        self._uc.reg_write(arm_const.UC_ARM_REG_LR, self._idle | 1)
        self._run(function.address | 1, instruction_limit, symbol)

        touched = np.flatnonzero(free != _PAINT)
        untouched_bytes = int(touched[0]) if len(touched) else len(free)
        if not untouched_bytes and not self._fits_stack(symbol, len(free)):
            raise DeviceFault(
                f"stack overflow: {symbol} used all {len(free)} bytes between the static data and "
                f"the top of the SRAM of {self.device.name}, so static data may be overwritten; "
                "leave more of the SRAM to the stack"
            )
        return CallResult(
            value=self._uc.reg_read(arm_const.UC_ARM_REG_R0),
            float_value=self._float_result(),
            instructions=self._counter.executed,
            stack_bytes=len(free) - untouched_bytes,
        )

    def profile(
        self,
        symbol: str,
        *arguments: int,
        instruction_limit: int = DEFAULT_INSTRUCTION_LIMIT,
    ) -> dict[str, int]:
        """Call a function; return the instructions spent in each function, most first.

        The total equals `CallResult.instructions`. Raises as `call` does.
        """
        self.call(symbol, *arguments, instruction_limit=instruction_limit)
        return self._counter.per_function()

    def blocks(self) -> list[Block]:
        """The basic blocks of the last call and how often each ran."""
        return self._counter.blocks()

    @property
    def executed(self) -> int:
        """Instructions since the running call began, or of the last one."""
        return self._counter.executed

    def read(self, address: int, size_bytes: int) -> bytes:
        """Read memory, as a debugger would.

        Raises:
            InputError: the device has no memory there.
        """
        self._check_range(address, size_bytes)
        return bytes(self._uc.mem_read(address, size_bytes))

    def write(self, address: int, data: bytes) -> None:
        """Write memory, flash included, as a debugger would.

        Raises:
            InputError: the device has no memory there.
        """
        self._check_range(address, len(data))
        self._uc.mem_write(address, data)

    def symbol(self, name: str) -> int:
        """Address of a variable or function.

        Raises:
            InputError: the image has no such symbol.
        """
        return self.image.symbol(name).address

    def serve(self, symbol: str, handler: Callable[..., int]) -> None:
        """Let Python do the work of a function of the image, such as a storage driver.

        Declare it `weak`, or keep it in a source file of its own: a compiler that sees the body of
        the stand-in leaves out arguments that it does not use. The body never runs and its
        instructions are not counted. `handler` gets the registers r0 to r3 as unsigned integers and
        returns the value of r0; it may `read` and `write` this emulator's memory. What it raises
        comes out of `call`.
        """
        address = self.image.symbol(symbol).address

        def on_entry(uc: Any, _address: int, _size: int, _user_data: object) -> None:
            self._counter.uncount_block(address)
            result = handler(*(uc.reg_read(register) for register in _ARGUMENT_REGISTERS))
            uc.reg_write(arm_const.UC_ARM_REG_R0, result & 0xFFFFFFFF)
            uc.reg_write(arm_const.UC_ARM_REG_PC, uc.reg_read(arm_const.UC_ARM_REG_LR))

        self._uc.hook_add(unicorn.UC_HOOK_CODE, on_entry, begin=address, end=address)
        # Code that is translated already would not see the hook.
        self._uc.ctl_flush_tb()

    @property
    def fpu_enabled(self) -> bool:
        """Whether the program has given itself access to the FPU."""
        return self._cpacr >> 20 & 0xF == 0xF

    def _check_placement(self) -> None:
        memory = self._memory
        flash_end = memory.flash_base + memory.flash_bytes
        for segment in self.image.segments:
            if segment.address < memory.flash_base or (
                segment.address + len(segment.data) > flash_end
            ):
                raise InputError(
                    f"{self.image.path.name} has {len(segment.data)} bytes at "
                    f"{segment.address:#010x}, outside the flash of {self.device.name} "
                    f"({memory.flash_base:#010x} to {flash_end:#010x}); link it for this device"
                )
        if self.image.stack_top != memory.sram_base + memory.sram_bytes:
            raise InputError(
                f"{self.image.path.name} has its stack at {self.image.stack_top:#010x}, but the "
                f"SRAM of {self.device.name} ends at {memory.sram_base + memory.sram_bytes:#010x}; "
                "link it for this device"
            )

    def _map_memories(self) -> None:
        memory = self._memory
        readable = unicorn.UC_PROT_READ
        self._flash = self._map(
            memory.flash_base, memory.flash_bytes, readable | unicorn.UC_PROT_EXEC
        )
        self._sram = self._map(
            memory.sram_base, memory.sram_bytes, readable | unicorn.UC_PROT_WRITE
        )
        self._flash.fill(_ERASED_FLASH)
        for segment in self.image.segments:
            self._uc.mem_write(segment.address, segment.data)
        if self.device.fpu != "none":
            self._uc.mmio_map(
                _SYSTEM_CONTROL_BASE,
                _SYSTEM_CONTROL_BYTES,
                self._on_system_read,
                None,
                self._on_system_write,
                None,
            )

    def _map(self, base: int, size_bytes: int, permissions: int) -> npt.NDArray[np.uint8]:
        """Map whole pages, and guard what the last one holds beyond the end of the memory.

        Returns a view of the memory itself, which Unicorn shares: painting and scanning hundreds of
        kilobytes for every call would cost a millisecond through its own functions.

        A guard makes every access slow, so a memory that ends with a page goes without. What the
        first page holds before the memory needs none: only flash starts within a page, where a boot
        loader precedes the program, and that can be read on the device as well.
        """
        first = base // _PAGE_BYTES * _PAGE_BYTES
        end = base + size_bytes
        last = -(-end // _PAGE_BYTES) * _PAGE_BYTES
        pages = mmap.mmap(-1, last - first)
        content = np.frombuffer(pages, np.uint8)
        self._uc.mem_map_ptr(first, last - first, permissions, content.ctypes.data)
        if end < last:
            self._guards.append((end, last))
            kinds = unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE
            self._uc.hook_add(kinds, self._on_guard_access, begin=end - 3, end=last - 1)
        return content[base - first : end - first]

    def _fits_stack(self, symbol: str, available_bytes: int) -> bool:
        """Whether a call that touched every byte of the stack is known to need no more."""
        bound_bytes = self.image.stack_bound(symbol, indirect=STORAGE_FUNCTIONS).bytes
        return bound_bytes is not None and bound_bytes <= available_bytes

    def _hook_blocks(self) -> None:
        handle = ctypes.c_size_t()
        status = uclib.uc_hook_add(
            self._uc._uch,
            ctypes.byref(handle),
            ctypes.c_int(unicorn.UC_HOOK_BLOCK),
            self._counter.callback,
            self._counter.user_data,
            ctypes.c_uint64(1),
            ctypes.c_uint64(0),
        )
        if status != unicorn.UC_ERR_OK:
            raise unicorn.UcError(status)

    def _run(self, entry: int, instruction_limit: int, what: str) -> None:
        """Run until the program gets to `kg_idle`, which is where calls return to."""
        self._fault = None
        self._counter.clear(instruction_limit)
        error: Exception | None = None
        try:
            self._uc.emu_start(entry | 1, self._idle)
        except unicorn.UcError as caught:
            error = caught
        if self._counter.limit_reached:
            raise DeviceFault(
                f"{what} has not returned after {self._counter.executed} instructions, the limit "
                f"being {instruction_limit}; it is in {self._location()}"
            )
        if self._fault is not None or error is not None:
            raise DeviceFault(self._explain(what, self._fault or _Fault(str(error))))

    def _on_invalid_access(
        self, uc: Any, access: int, address: int, size: int, _value: int, _user_data: object
    ) -> bool:
        if self._fault is None:
            self._fault = _Fault(_ACCESS_NAMES.get(access, "access"), address, size)
        return False

    def _on_guard_access(
        self, uc: Any, access: int, address: int, size: int, _value: int, _user_data: object
    ) -> None:
        if any(address < high and address + size > low for low, high in self._guards):
            self._fault = self._fault or _Fault(_ACCESS_NAMES[access], address, size)
            uc.emu_stop()

    def _on_exception(self, uc: Any, number: int, _user_data: object) -> None:
        name = _EXCEPTION_NAMES.get(number, f"processor exception {number}")
        self._fault = self._fault or _Fault(name)
        uc.emu_stop()

    def _on_system_read(self, uc: Any, offset: int, size: int, _user_data: object) -> int:
        if offset != _CPACR_OFFSET or size != 4:
            self._fault = self._fault or _Fault("read", _SYSTEM_CONTROL_BASE + offset, size)
            uc.emu_stop()
        return self._cpacr

    def _on_system_write(
        self, uc: Any, offset: int, size: int, value: int, _user_data: object
    ) -> None:
        if offset != _CPACR_OFFSET or size != 4:
            self._fault = self._fault or _Fault("write", _SYSTEM_CONTROL_BASE + offset, size)
            uc.emu_stop()
        self._cpacr = value

    def _explain(self, what: str, fault: _Fault) -> str:
        where = f"in {self._location()}, while {what} ran on {self.device.name}"
        if fault.address is None:
            return f"{fault.kind} {where}"
        return (
            f"{fault.kind} of {fault.size_bytes} bytes at {fault.address:#010x} {where}: "
            f"{self._likely_cause(fault.kind, fault.address)}"
        )

    def _likely_cause(self, kind: str, address: int) -> str:
        memory = self._memory
        sram_end = memory.sram_base + memory.sram_bytes
        flash_end = memory.flash_base + memory.flash_bytes
        stack_pointer = self._uc.reg_read(arm_const.UC_ARM_REG_SP)
        sram = f"{memory.sram_base:#010x} to {sram_end - 1:#010x}"
        if kind == "instruction fetch":
            return "a jump to what is not code, so a function pointer or a return address is broken"
        if stack_pointer < memory.sram_base + self.image.static_bytes:
            return (
                f"stack overflow, the stack pointer being {stack_pointer:#010x} while static data "
                f"end at {self._free_base():#010x}"
            )
        if memory.flash_base <= address < flash_end:
            return "flash cannot be written like memory, so a constant is being changed"
        if address < 0x1000:
            return "a null pointer"
        if sram_end <= address < sram_end + memory.sram_bytes:
            return f"an index beyond the end of SRAM ({sram})"
        if memory.sram_base - memory.sram_bytes < address < memory.sram_base:
            return f"an index before the start of SRAM ({sram})"
        return f"the device has no memory there (SRAM: {sram})"

    def _location(self) -> str:
        program_counter = self._uc.reg_read(arm_const.UC_ARM_REG_PC)
        where = self.image.function_at(program_counter)
        if where is None:
            caller = self.image.function_at(self._uc.reg_read(arm_const.UC_ARM_REG_LR))
            after = f", after {caller[0]}+{caller[1]:#x}" if caller else ""
            return f"{program_counter:#010x}{after}"
        return f"{where[0]}+{where[1]:#x}"

    def _free_base(self) -> int:
        return self.image.symbols["_ebss"].address

    def _float_result(self) -> float:
        soft = self.device.fpu == "none"
        register = arm_const.UC_ARM_REG_R0 if soft else arm_const.UC_ARM_REG_S0
        return float(struct.unpack("<f", struct.pack("<I", self._uc.reg_read(register)))[0])

    def _check_range(self, address: int, size_bytes: int) -> None:
        memory = self._memory
        for base, limit in (
            (memory.sram_base, memory.sram_bytes),
            (memory.flash_base, memory.flash_bytes),
        ):
            if base <= address and address + size_bytes <= base + limit:
                return
        raise InputError(
            f"{self.device.name} has no {size_bytes} bytes of memory at {address:#010x}"
        )
