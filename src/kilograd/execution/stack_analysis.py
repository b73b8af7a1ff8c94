"""The worst-case stack of Thumb code: a bound over every path and every call.

    bound(f) = max over the instructions of f of
                   depth                       at any instruction
                   depth + bound(g)            at a call or tail call of g

where depth is the number of bytes that f has pushed when the instruction runs. Depth is found by
following the control flow of f; registers that hold the stack pointer plus a constant, or a plain
constant, are tracked because large frames and frame pointers move the stack pointer through them.
Whatever is not understood makes the result unbounded, with a reason; it is never skipped.
"""

from __future__ import annotations

import bisect
import functools
from dataclasses import dataclass, field

import capstone
from capstone import arm

_SP, _LR, _PC = arm.ARM_REG_SP, arm.ARM_REG_LR, arm.ARM_REG_PC
_CALLER_SAVED = (arm.ARM_REG_R0, arm.ARM_REG_R1, arm.ARM_REG_R2, arm.ARM_REG_R3, arm.ARM_REG_R12)

# Joining states only lowers what is known of sixteen registers, so a walk that keeps coming back
# to an instruction is one that pushes in a loop.
_MAX_VISITS = 64

# `mov r8, r8`, `nop`, and zeros, which decode as `movs r0, r0`.
_PADDING = (b"\xc0\x46", b"\x00\xbf", b"\x00\x00")

# A tracked register: (True, d) is the stack pointer at entry minus d, (False, c) the constant c.
_Value = tuple[bool, int]


@dataclass(frozen=True)
class StackBound:
    """The stack that a call needs, below the stack pointer that it is entered with.

    Attributes:
        bytes: the bound; None where there is none.
        path: the deepest chain of calls, each function with the bytes that it has in use when it
            calls the next one (the last: at its deepest).
        reason: why there is no bound, naming the function; empty where there is one.
    """

    bytes: int | None
    path: tuple[tuple[str, int], ...]
    reason: str = ""


@dataclass(frozen=True)
class CodeMap:
    """The code of an image.

    Attributes:
        chunks: (address, bytes) of what is in flash.
        functions: start address -> (name, end address).
        mapping: (address, is code) where code and data alternate (the symbols $t and $d), sorted.
    """

    chunks: tuple[tuple[int, bytes], ...]
    functions: dict[int, tuple[str, int]]
    mapping: tuple[tuple[int, bool], ...]

    def read(self, address: int, size_bytes: int) -> bytes:
        """Bytes at an address; fewer, or none, beyond the end."""
        for start, data in self.chunks:
            if start <= address < start + len(data):
                return data[address - start : address - start + size_bytes]
        return b""

    def code_end(self, address: int) -> int:
        """Where the run of instructions that `address` lies in ends; `address` itself in data."""
        index = bisect.bisect_right(self.mapping, (address, True)) - 1
        if index < 0:
            return 1 << 32
        if not self.mapping[index][1]:
            return address
        following = (start for start, is_code in self.mapping[index + 1 :] if not is_code)
        return next(following, 1 << 32)

    def function_around(self, address: int) -> tuple[str, int, int] | None:
        """Name, start and end of the function that holds an address."""
        starts = self._starts
        index = bisect.bisect_right(starts, address) - 1
        if index < 0:
            return None
        name, end = self.functions[starts[index]]
        return (name, starts[index], end) if address < end else None

    @functools.cached_property
    def _starts(self) -> list[int]:
        return sorted(self.functions)

    def name(self, address: int) -> str:
        """The function at an address, with the offset if it is not its first instruction."""
        around = self.function_around(address)
        if around is None:
            return f"{address:#x}"
        name, start, _ = around
        return name if address == start else f"{name}+{address - start:#x}"


class _UnboundedError(Exception):
    """There is no bound; the message says why."""


@dataclass(frozen=True)
class _State:
    depth: int
    registers: dict[int, _Value]

    def join(self, other: _State) -> _State:
        """What holds on both of two paths that meet."""
        common = {
            register: value
            for register, value in self.registers.items()
            if other.registers.get(register) == value
        }
        return _State(max(self.depth, other.depth), common)


@dataclass
class _Frame:
    """What one function does to the stack: its own deepest point, and the calls it makes."""

    deepest: int = 0
    calls: dict[int, int] = field(default_factory=dict)  # callee -> depth at the call

    def call(self, callee: int, depth: int) -> None:
        self.calls[callee] = max(self.calls.get(callee, 0), depth)


def worst_case_stack(code: CodeMap, entry: int, indirect: tuple[int, ...] = ()) -> StackBound:
    """Bound the stack of the function at `entry`; unbounded is a result, not an error.

    `indirect` are the functions that a call through a pointer may reach; without any, such a call
    makes the stack unbounded.
    """
    analysis = _Analysis(code, indirect)
    try:
        total, path = analysis.bound(entry)
    except _UnboundedError as error:
        return StackBound(None, (), str(error))
    return StackBound(total, path)


class _Analysis:
    def __init__(self, code: CodeMap, indirect: tuple[int, ...]) -> None:
        self._code = code
        self._indirect = indirect
        self._disassembler = capstone.Cs(
            capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS
        )
        self._disassembler.detail = True
        self._bounds: dict[int, tuple[int, tuple[tuple[str, int], ...]]] = {}
        self._active: list[int] = []

    def bound(self, function: int) -> tuple[int, tuple[tuple[str, int], ...]]:
        """Bytes and deepest path of one function, its callees included."""
        if function in self._bounds:
            return self._bounds[function]
        if function in self._active:
            cycle = [*self._active[self._active.index(function) :], function]
            raise _UnboundedError(f"recursion: {' -> '.join(map(self._code.name, cycle))}")
        self._active.append(function)
        frame = _FunctionWalk(self._code, self._disassembler, function, self._indirect).run()
        name = self._code.name(function)
        best: tuple[int, tuple[tuple[str, int], ...]] = (frame.deepest, ((name, frame.deepest),))
        for callee, depth in sorted(frame.calls.items()):
            callee_bytes, callee_path = self.bound(callee)
            if depth + callee_bytes > best[0]:
                best = (depth + callee_bytes, ((name, depth), *callee_path))
        self._active.pop()
        self._bounds[function] = best
        return best


class _FunctionWalk:
    """Follow the control flow of one function from where it is entered."""

    def __init__(
        self, code: CodeMap, disassembler: capstone.Cs, entry: int, indirect: tuple[int, ...]
    ) -> None:
        self._code = code
        self._indirect = indirect
        self._entry = entry
        # Hand-written assembly calls labels inside its functions.
        around = code.function_around(entry)
        if around is None:
            raise _UnboundedError(f"a call goes to {entry:#x}, where there is no function")
        self._name, self._start, self._end = around
        self._instructions = self._disassemble(disassembler)
        self._states: dict[int, _State] = {}
        self._visits: dict[int, int] = {}
        self._pending: list[int] = []
        self._table_jumps: list[_State] = []
        self._frame = _Frame()

    def run(self) -> _Frame:
        """Return the frame of the function."""
        if self._name.startswith("__Thumbv6MABS"):
            raise _UnboundedError(f"{self._name} is a linker veneer that jumps through the stack")
        self._flow(self._entry, _State(0, {}))
        self._drain()
        # A jump table's targets are the code that nothing else reaches; all run at one depth.
        while self._table_jumps:
            state = self._table_jumps.pop()
            for address in self._instructions:
                if address not in self._states and not self._only_padding(address):
                    self._flow(address, state)
                    self._drain()
        return self._frame

    def _disassemble(self, disassembler: capstone.Cs) -> dict[int, capstone.CsInsn]:
        """Instructions of the function by address, literal pools and jump tables left out."""
        found: dict[int, capstone.CsInsn] = {}
        address = self._start
        while address < self._end:
            stop = min(self._code.code_end(address), self._end)
            if stop <= address:
                address += 2
                continue
            data = self._code.read(address, stop - address)
            for instruction in disassembler.disasm(data, address):
                found[instruction.address] = instruction
                address = instruction.address + instruction.size
            if address < stop:
                # Left undecoded; reaching it is an error, not reaching it is harmless.
                address += 2
        return found

    def _drain(self) -> None:
        while self._pending:
            address = self._pending.pop()
            instruction = self._instructions.get(address)
            if instruction is None:
                raise _UnboundedError(f"{self._name} runs into {address:#x}, which is not code")
            self._step(instruction, self._states[address])

    def _flow(self, address: int, state: _State) -> None:
        """Let control reach an instruction; look at it again if that says something new."""
        self._frame.deepest = max(self._frame.deepest, state.depth)
        known = self._states.get(address)
        merged = state if known is None else known.join(state)
        if merged == known:
            return
        self._visits[address] = self._visits.get(address, 0) + 1
        if self._visits[address] > _MAX_VISITS:
            raise _UnboundedError(f"{self._name} moves the stack pointer in a loop")
        self._states[address] = merged
        self._pending.append(address)

    def _step(self, instruction: capstone.CsInsn, state: _State) -> None:
        following = instruction.address + instruction.size
        conditional = instruction.cc not in (arm.ARM_CC_AL, arm.ARM_CC_INVALID)
        operands = instruction.operands
        opcode = instruction.id
        if opcode == arm.ARM_INS_BL and self._start < operands[0].imm < self._end:
            # ARMv6-M reaches far inside a long function with `bl`, which then does not return.
            self._flow(operands[0].imm, state)
        elif opcode in (arm.ARM_INS_BL, arm.ARM_INS_BLX):
            self._call(instruction, state)
            if not self._only_padding(following):
                self._flow(following, _without(state, _CALLER_SAVED))
        elif opcode in (arm.ARM_INS_CBZ, arm.ARM_INS_CBNZ):
            self._flow(operands[1].imm, state)
            self._flow(following, state)
        elif opcode == arm.ARM_INS_B:
            self._jump(operands[0].imm, state)
            if conditional:
                self._flow(following, state)
        elif opcode in (arm.ARM_INS_TBB, arm.ARM_INS_TBH):
            self._table_jumps.append(state)
        elif opcode == arm.ARM_INS_BX:
            if not self._is_return(instruction, operands[0].reg):
                self._call(instruction, state)
            if conditional:
                self._flow(following, state)
        elif opcode in (arm.ARM_INS_UDF, arm.ARM_INS_TRAP):
            pass
        elif _PC in instruction.regs_access()[1] or _writes(instruction, _PC):
            returns = _base_register(instruction) == _SP or (
                opcode == arm.ARM_INS_MOV and operands[1].reg == _LR
            )
            if opcode != arm.ARM_INS_POP and not returns:
                # `mov pc`, `add pc` and `ldr pc` dispatch through a jump table.
                self._table_jumps.append(state)
            if conditional:
                self._flow(following, state)
        else:
            self._flow(following, self._after(instruction, state, conditional))

    def _only_padding(self, address: int) -> bool:
        """Whether only alignment lies between an address and data, or the end of the function.

        A call in front of it never returns.
        """
        while (instruction := self._instructions.get(address)) is not None:
            if instruction.bytes not in _PADDING:
                return False
            address += instruction.size
        return True

    def _jump(self, target: int, state: _State) -> None:
        if self._start <= target < self._end:
            self._flow(target, state)
        else:
            self._frame.call(target, state.depth)

    def _call(self, instruction: capstone.CsInsn, state: _State) -> None:
        for target in self._targets(instruction, state):
            self._frame.call(target, state.depth)

    def _targets(self, instruction: capstone.CsInsn, state: _State) -> tuple[int, ...]:
        operand = instruction.operands[0]
        if operand.type == arm.ARM_OP_IMM:
            return (int(operand.imm) & ~1,)
        relative_to_sp, constant = state.registers.get(operand.reg, (True, 0))
        if not relative_to_sp and constant & ~1 in self._code.functions:
            return (constant & ~1,)
        if not self._indirect:
            raise _UnboundedError(
                f"{self._name} calls through a function pointer at {instruction.address:#x}"
            )
        return self._indirect

    def _is_return(self, instruction: capstone.CsInsn, register: int) -> bool:
        """`bx lr`, or the ARMv6-M way to return past saved registers: `pop {r3}; bx r3`."""
        if register == _LR:
            return True
        before = self._instructions.get(instruction.address - 2)
        return (
            before is not None
            and before.id == arm.ARM_INS_POP
            and any(operand.reg == register for operand in before.operands)
        )

    def _after(self, instruction: capstone.CsInsn, state: _State, conditional: bool) -> _State:
        """The state behind an instruction that control falls through."""
        result = self._stack_effect(instruction, state)
        if result is None:
            result = self._register_effect(instruction, state)
        return state.join(result) if conditional else result

    def _stack_effect(self, instruction: capstone.CsInsn, state: _State) -> _State | None:
        """The effect of an instruction that writes the stack pointer; None if it does not."""
        if not _writes(instruction, _SP):
            return None
        operands = instruction.operands
        opcode = instruction.id
        if opcode in (arm.ARM_INS_PUSH, arm.ARM_INS_VPUSH):
            return _State(state.depth + _bytes_of(operands), state.registers)
        if opcode in (arm.ARM_INS_POP, arm.ARM_INS_VPOP):
            return self._release(state, _bytes_of(operands), [item.reg for item in operands])
        if opcode in (arm.ARM_INS_STMDB, arm.ARM_INS_VSTMDB):
            return _State(state.depth + _bytes_of(operands[1:]), state.registers)
        if opcode in (arm.ARM_INS_LDM, arm.ARM_INS_VLDMIA):
            popped = operands[1:]
            return self._release(state, _bytes_of(popped), [item.reg for item in popped])
        if opcode in (arm.ARM_INS_STR, arm.ARM_INS_STRD, arm.ARM_INS_LDR, arm.ARM_INS_LDRD):
            return self._write_back(instruction, state)
        depth = self._sp_relative(instruction, state)
        if depth is None:
            raise _UnboundedError(
                f"{self._name} sets the stack pointer to a value that is not known before it runs "
                f"({instruction.mnemonic} {instruction.op_str} at {instruction.address:#x})"
            )
        return _State(max(depth, 0), state.registers)

    def _release(self, state: _State, released: int, written: list[int]) -> _State:
        return _without(_State(max(state.depth - released, 0), state.registers), written)

    def _write_back(self, instruction: capstone.CsInsn, state: _State) -> _State:
        """`str r, [sp, #-4]!` pushes and `ldr r, [sp], #4` pops."""
        memory = next(item for item in instruction.operands if item.type == arm.ARM_OP_MEM)
        offset = memory.mem.disp
        last = instruction.operands[-1]
        if last.type == arm.ARM_OP_IMM:
            offset = -last.imm if last.subtracted else last.imm
        loaded = instruction.id in (arm.ARM_INS_LDR, arm.ARM_INS_LDRD)
        written = [item.reg for item in instruction.operands if item.type == arm.ARM_OP_REG]
        state = _State(max(state.depth - offset, 0), state.registers)
        return _without(state, written) if loaded else state

    def _register_effect(self, instruction: capstone.CsInsn, state: _State) -> _State:
        """Keep track of registers that hold a constant or an address in the frame."""
        written = instruction.regs_access()[1]
        registers = {
            register: value
            for register, value in state.registers.items()
            if register not in written
        }
        operands = instruction.operands
        if operands and operands[0].type == arm.ARM_OP_REG and operands[0].reg in written:
            value = self._value(instruction, state)
            if value is not None:
                registers[operands[0].reg] = value
        return _State(state.depth, registers)

    def _sp_relative(self, instruction: capstone.CsInsn, state: _State) -> int | None:
        value = self._value(instruction, state)
        return value[1] if value is not None and value[0] else None

    def _value(self, instruction: capstone.CsInsn, state: _State) -> _Value | None:
        """The value that an instruction computes into its first operand, where it is known."""
        operands = instruction.operands
        opcode = instruction.id
        if opcode == arm.ARM_INS_LDR:
            return self._literal(instruction)
        values = [self._operand(item, state) for item in operands]
        if opcode in (arm.ARM_INS_MOV, arm.ARM_INS_MOVW, arm.ARM_INS_MOVS):
            return values[1] if len(values) == 2 else None
        if opcode == arm.ARM_INS_MOVT and values[0] is not None and not values[0][0]:
            return False, (values[0][1] & 0xFFFF) | (operands[1].imm << 16)
        if opcode == arm.ARM_INS_LSL and len(values) == 3:
            return _shift_left(values[1], values[2])
        if opcode in (arm.ARM_INS_BIC, arm.ARM_INS_BFC):
            return _align_down(opcode, operands, values)
        if opcode not in (*_ADDITIONS, *_SUBTRACTIONS) or len(values) < 2:
            return None
        left, right = (values[0], values[-1]) if len(values) == 2 else (values[-2], values[-1])
        if left is None or right is None or right[0]:
            # A stack pointer on the right of an addition only happens in `add rd, rn, sp`.
            swappable = opcode in _ADDITIONS and right is not None and left is not None
            if not swappable or left is None or left[0]:
                return None
            left, right = right, left
        assert left is not None and right is not None
        if opcode in _ADDITIONS:
            return _add(left, right[1])
        if opcode in _SUBTRACTIONS:
            return _add(left, -right[1])
        return None

    def _literal(self, instruction: capstone.CsInsn) -> _Value | None:
        """The constant of `ldr r, [pc, #offset]`."""
        memory = instruction.operands[1]
        if memory.type != arm.ARM_OP_MEM or memory.mem.base != _PC or memory.mem.index:
            return None
        address = (instruction.address + 4 & ~3) + memory.mem.disp
        return False, int.from_bytes(self._code.read(address, 4), "little")

    def _operand(self, operand: arm.ArmOp, state: _State) -> _Value | None:
        if operand.type == arm.ARM_OP_IMM:
            return False, int(operand.imm)
        if operand.type != arm.ARM_OP_REG or operand.shift.type:
            return None
        if operand.reg == _SP:
            return True, state.depth
        return state.registers.get(operand.reg)


_STACK_INSTRUCTIONS = (
    arm.ARM_INS_PUSH,
    arm.ARM_INS_POP,
    arm.ARM_INS_VPUSH,
    arm.ARM_INS_VPOP,
)
_ADDITIONS = (arm.ARM_INS_ADD, arm.ARM_INS_ADDW)
_SUBTRACTIONS = (arm.ARM_INS_SUB, arm.ARM_INS_SUBW)


def _add(left: _Value, constant: int) -> _Value:
    """Add a constant; the depth of an address in the frame falls as the address rises."""
    signed = (constant + (1 << 31)) % (1 << 32) - (1 << 31)
    relative_to_sp, amount = left
    return (True, amount - signed) if relative_to_sp else (False, (amount + signed) % (1 << 32))


def _shift_left(value: _Value | None, amount: _Value | None) -> _Value | None:
    """A constant shifted by a constant; ARMv6-M builds large frame sizes this way."""
    if value is None or amount is None or value[0] or amount[0]:
        return None
    return False, (value[1] << amount[1]) % (1 << 32)


def _align_down(
    opcode: int, operands: list[arm.ArmOp], values: list[_Value | None]
) -> _Value | None:
    """An address in the frame with its low bits cleared is lower by at most the mask."""
    if opcode == arm.ARM_INS_BFC:
        value, mask = values[0], (1 << operands[2].imm) - 1 if operands[1].imm == 0 else None
    else:
        value, mask = values[-2], operands[-1].imm if operands[-1].type == arm.ARM_OP_IMM else None
    if value is None or not value[0] or mask is None or mask & (mask + 1):
        return None
    return True, value[1] + mask


def _without(state: _State, registers: tuple[int, ...] | list[int]) -> _State:
    kept = {key: value for key, value in state.registers.items() if key not in registers}
    return _State(state.depth, kept)


def _writes(instruction: capstone.CsInsn, register: int) -> bool:
    """Whether an instruction writes a register, as an operand, a list member or by write-back."""
    if register in instruction.regs_access()[1]:
        return True
    if register == _SP and instruction.id in _STACK_INSTRUCTIONS:
        return True  # Capstone leaves the stack pointer out of what vpush and vpop access.
    return bool(register == _SP and instruction.writeback and _base_register(instruction) == _SP)


def _base_register(instruction: capstone.CsInsn) -> int:
    for operand in instruction.operands:
        if operand.type == arm.ARM_OP_MEM:
            return int(operand.mem.base)
    return int(instruction.operands[0].reg) if instruction.operands else 0


def _bytes_of(operands: list[arm.ArmOp]) -> int:
    return sum(8 if arm.ARM_REG_D0 <= item.reg <= arm.ARM_REG_D31 else 4 for item in operands)
