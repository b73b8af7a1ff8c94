"""Steps of weights in storage, a chunk at a time: the same bits, in less RAM, as safe."""

from __future__ import annotations

import numpy as np
import pytest
from tests.execution.storage_cases import (
    NOR_FLASH,
    PSRAM,
    SD_CARD,
    agrees,
    bits,
    expected,
    in_chunks,
    learn,
    moved,
    program,
    sample,
)
from tests.execution.test_storage_faults import FAULTS, sweep
from tests.paging import paged
from torch import nn

import kilograd as kg
from kilograd.execution.session import Session
from kilograd.execution.state import pack
from kilograd.execution.storage import Fault
from kilograd.ops.optimizer import SgdCheck, SgdStep
from kilograd.ops.stored_step import StoredSgdStep
from kilograd.planning.stored_steps import step_in_chunks


@pytest.mark.parametrize("geometry", [SD_CARD, NOR_FLASH, PSRAM], ids=["sd", "nor", "psram"])
def test_chunks_compute_the_same_bits(geometry):
    compiled = in_chunks(geometry)
    steps = [n for n in compiled.train.graph.nodes if isinstance(n.op, StoredSgdStep)]
    assert len(steps) == 4 and all(len(node.outputs) == 2 for node in steps)
    checked = [n.inputs[0].name for n in compiled.train.graph.nodes if isinstance(n.op, SgdCheck)]
    assert len(checked) == 4 and all("bias" in name for name in checked)
    agrees(compiled.on_host(sanitize=geometry is SD_CARD, optimize="-O1"), "float")


@pytest.mark.parametrize("device", ["cortex-m7-256k", "rp2040"])
def test_boards_compute_the_same_bits(device: str):
    compiled = in_chunks(SD_CARD, device)
    board = compiled.on_emulator()
    agrees(board, "float")
    assert board.stack_bytes <= compiled.memory.stack_bytes


def test_chunks_save_what_the_step_would_hold():
    """A weight and its velocity are no longer in RAM beside the gradient."""
    model = nn.Linear(512, 64)
    x = np.ones((1, 512), np.float32)
    plain = kg.compile(model, x, optimizer=kg.SGD(lr=0.1, momentum=0.9), name="net")
    whole, chunked = (
        paged(plain, stored=lambda v: v.type.bytes > 1000, geometry=SD_CARD, chunk_bytes=size)
        for size in (None, 1024)
    )
    weight_bytes = 512 * 64 * 4
    assert whole.arena_bytes > 3 * weight_bytes
    assert weight_bytes < chunked.arena_bytes < 1.1 * weight_bytes + 2 * 1024 + 4096
    first, second = whole.on_host(), chunked.on_host()
    for step in range(3):
        assert first.train_step(x, step) == second.train_step(x, step)
    assert bits(first) == bits(second)


@pytest.mark.parametrize("geometry", [SD_CARD, NOR_FLASH], ids=["sd", "nor"])
def test_every_transfer_may_fail(geometry):
    compiled = in_chunks(geometry)
    session = compiled.on_host()
    erases = [("erase", "fail")] if geometry is NOR_FLASH else []
    for kind, how in (*FAULTS, *erases):
        assert sweep(session, compiled, "float", kind, how, 1) >= 8


def test_what_is_not_finite_changes_nothing():
    """Found while stepping, after weights have gone to the other bank, which does not count."""
    compiled = in_chunks(SD_CARD)
    session = compiled.on_host()
    learn(session, compiled, 2)
    kept = session.raw_state()
    fast = {**kept, "v9_weight.velocity": np.full_like(kept["v9_weight.velocity"], 3e38)}
    write(session, fast)
    before = bits(session)
    for _ in range(2):
        with pytest.raises(kg.NonFiniteError):
            session.train_step(*sample(compiled, 2), lr=10)
        assert bits(session) == before
    write(session, kept)
    learn(session, compiled, 3)
    assert bits(session) == expected("float")[1]


def write(session: Session, tensors: dict[str, np.ndarray]) -> None:
    """Set the state, what is stored included."""
    backend = session._backend
    raw = pack(session._interface, tensors, backend.read_state(), backend.storage)
    backend.write_state(raw)


def test_a_rotten_weight_is_seen_before_the_step_counts():
    """The checksum of what a step read chunk by chunk is known when it has read the last one."""
    compiled = in_chunks(SD_CARD)
    plan = compiled.storage
    velocity = next(v for v in plan.initial if v.name == "v9_weight.velocity")
    session = compiled.on_host()
    learn(session, compiled, 1)
    before = bits(session)
    place = plan.offset(velocity, 1) + 700
    byte = session.storage.peek(place, 1)
    session.storage.poke(place, bytes([byte[0] ^ 1]))
    with pytest.raises(kg.errors.StorageError):
        session.train_step(*sample(compiled, 1))
    session.storage.poke(place, byte)
    assert bits(session) == before
    session.storage.faults = (Fault("read", 10**6),)
    learn(session, compiled, 4)
    assert bits(session) == expected("float")[1]


def test_what_is_no_such_step_stays():
    """Steps in SRAM; of all others, none is left."""
    for name in ("float", "int8"):
        graph = program(name).train.graph
        assert step_in_chunks(graph, 512).nodes == graph.nodes
    graph = moved("float", SD_CARD).train.graph
    again = step_in_chunks(step_in_chunks(graph, 512), 512)
    assert not any(type(node.op) is SgdStep for node in again.nodes)
