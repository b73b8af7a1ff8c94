"""The learned tensors of a session as arrays: from the state structure, and from storage.

Behind its tensors the state structure of a program with stored states has the bank that counts and
the CRC-32 of every stored state, as 32-bit numbers.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np

from kilograd.codegen.paging import state_bytes
from kilograd.errors import StorageError
from kilograd.execution.interface import Interface
from kilograd.execution.storage import SessionStorage
from kilograd.ir import Value
from kilograd.planning.lifetimes import aligned
from kilograd.planning.storage import StoragePlan

Array = np.ndarray

_CHECKPOINT_STATE = 16
"""Where the state begins in a checkpoint (checkpoint.h)."""


def unpack(interface: Interface, raw: bytes, storage: SessionStorage | None) -> dict[str, Array]:
    """Every learned tensor by program name, in the order of `interface.state`.

    Raises StorageError where a tensor in storage is damaged.
    """
    result, offset = {}, 0
    for value in interface.state:
        if interface.storage is not None and interface.stored(value):
            assert storage is not None
            data = _stored(interface.storage, value, raw, storage)
        else:
            data = raw[offset : offset + value.type.bytes]
            offset += aligned(value.type.bytes)
        array = np.frombuffer(data, value.type.dtype.numpy).reshape(value.type.shape)
        result[value.name] = array.copy()
    return result


def pack(
    interface: Interface, tensors: Mapping[str, Array], raw: bytes, storage: SessionStorage | None
) -> bytes:
    """The state structure for these tensors, `raw` being the one of now.

    Those in storage are written to the bank that does not count; it counts once the structure is
    the program's.
    """
    kept = [value for value in interface.state if not interface.stored(value)]
    parts = [tensors[value.name].tobytes() for value in kept]
    result = b"".join(part.ljust(aligned(len(part)), b"\0") for part in parts)
    plan = interface.storage
    if plan is None or not plan.initial:
        return result
    assert storage is not None
    bank = 2 if _trailer(plan, raw)[0] == 1 else 1
    crcs = []
    for value in plan.initial:
        data = np.ascontiguousarray(tensors[value.name]).tobytes()
        storage.poke(plan.offset(value, bank), data)
        crcs.append(zlib.crc32(data))
    return result + struct.pack(f"<{1 + len(crcs)}I", bank, *crcs)


def with_bank(interface: Interface, checkpoint: bytes, storage: SessionStorage | None) -> bytes:
    """A checkpoint as `net_save` makes it, and behind it the bank that it refers to.

    Raises StorageError where a tensor in storage is damaged.
    """
    plan = interface.storage
    if plan is None or not plan.initial:
        return checkpoint
    assert storage is not None
    raw = _state_in(interface, checkpoint)
    for value in plan.initial:
        _stored(plan, value, raw, storage)
    bank = _trailer(plan, raw)[0]
    return checkpoint + storage.peek(plan.bank_offset(bank), plan.bank_bytes)


def split_bank(interface: Interface, data: bytes) -> tuple[bytes, bytes]:
    """The checkpoint and the bank of what `with_bank` made; without a bank, all is checkpoint.

    Raises StorageError where the bank is not the one of the checkpoint.
    """
    plan, size = interface.storage, interface.checkpoint_bytes
    if plan is None or not plan.initial or len(data) != size + plan.bank_bytes:
        return data, b""
    checkpoint, content = data[:size], data[size:]
    crcs = _trailer(plan, _state_in(interface, checkpoint))[1:]
    for value, crc in zip(plan.initial, crcs, strict=True):
        start = plan.initial[value] - plan.bank_offset(0)
        if zlib.crc32(content[start : start + value.type.bytes]) != crc:
            raise StorageError(f"{value} behind the checkpoint is damaged")
    return checkpoint, content


def write_bank(interface: Interface, raw: bytes, content: bytes, storage: SessionStorage) -> None:
    """Put the content of the bank that the state refers to into storage."""
    assert interface.storage is not None
    bank = _trailer(interface.storage, raw)[0]
    if bank:  # the initial values are there
        storage.poke(interface.storage.bank_offset(bank), content)


def _state_in(interface: Interface, checkpoint: bytes) -> bytes:
    return checkpoint[_CHECKPOINT_STATE : _CHECKPOINT_STATE + interface.state_bytes]


def _stored(plan: StoragePlan, value: Value, raw: bytes, storage: SessionStorage) -> bytes:
    bank, *crcs = _trailer(plan, raw)
    data = storage.peek(plan.offset(value, bank), value.type.bytes)
    if zlib.crc32(data) != crcs[list(plan.initial).index(value)]:
        raise StorageError(
            f"{value} is damaged in storage, or a later step has overwritten it; load a checkpoint "
            "with the storage that belongs to it, or reset the session"
        )
    return data


def _trailer(plan: StoragePlan, raw: bytes) -> tuple[int, ...]:
    """The bank that counts, and the checksums."""
    words: tuple[int, ...] = struct.unpack(f"<{1 + len(plan.initial)}I", raw[-state_bytes(plan) :])
    return words
