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
from kilograd.execution.interface import Interface, aligned
from kilograd.execution.storage import SessionStorage
from kilograd.ir import Value
from kilograd.planning.storage import StoragePlan

Array = np.ndarray


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
