"""A storage that fails, for every transfer of a step: an error, nothing changed, and right again
after repair.
"""

from __future__ import annotations

import pytest
from tests.execution.storage_cases import (
    NOR_FLASH,
    SD_CARD,
    bits,
    expected,
    half_moved,
    learn,
    moved,
    program,
    sample,
)
from tests.paging import paged

from kilograd.errors import StorageError
from kilograd.execution.session import Session
from kilograd.execution.storage import Fault
from kilograd.program import Program

FAULTS = [
    ("read", "fail"), ("read", "short"), ("read", "flip"),
    ("write", "fail"), ("write", "short"), ("write", "flip"),
]  # fmt: skip


def transfers(session: Session, kind: str) -> int:
    moves = session.traffic
    return {"read": moves.reads, "write": moves.writes, "erase": moves.erases}[kind]


def sweep(session: Session, compiled: Program, name: str, kind: str, how: str, before: int) -> int:
    """Fail every transfer of the step behind `before` good ones; the number of them."""
    session.reset()
    learn(session, compiled, before + 1)
    count = transfers(session, kind)
    after = expected(name, before + 1)[1]
    start = expected(name, before)[1]
    for number in range(count):
        session.reset()
        learn(session, compiled, before)
        session.storage.faults = (Fault(kind, number, how, bit=11 * number % 24),)
        with pytest.raises(StorageError, match=f"storage failed in step {before}"):
            session.train_step(*sample(compiled, before))
        session.storage.faults = ()
        assert bits(session) == start, f"{kind} {number}"
        learn(session, compiled, 1)
        assert bits(session) == after, f"{kind} {number}"
    return count


@pytest.mark.parametrize(("name", "before"), [("float", 1), ("int8", 0)])
def test_every_transfer_of_a_step(name: str, before: int):
    compiled = moved(name, SD_CARD)
    session = compiled.on_host()
    for kind, how in FAULTS:
        assert sweep(session, compiled, name, kind, how, before) > 20


def test_every_transfer_of_a_step_that_pages_in_part():
    """States in SRAM change behind the last transfer, so that they are as before, too."""
    compiled = half_moved("float", NOR_FLASH)
    session = compiled.on_host()
    for kind, how in (*FAULTS, ("erase", "fail")):
        assert sweep(session, compiled, "float", kind, how, 1) > 5


def test_transfers_of_a_step_on_a_board():
    compiled = half_moved("float", SD_CARD, "cortex-m7-256k")
    session = compiled.on_emulator()
    assert sweep(session, compiled, "float", "write", "short", 1) > 5
    assert sweep(session, compiled, "float", "read", "flip", 1) > 5


def test_every_transfer_of_a_prediction():
    compiled = moved("int8", SD_CARD)
    session = compiled.on_host()
    x = sample(compiled, 9)[0]
    learn(session, compiled, 1)
    before, right = bits(session), session.predict(x).tobytes()
    for kind, how in FAULTS:
        for number in range(transfers(session, kind)):
            session.storage.faults = (Fault(kind, number, how),)
            with pytest.raises(StorageError):
                session.predict(x)
            session.storage.faults = ()
            assert bits(session) == before
            assert session.predict(x).tobytes() == right


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_storage_that_is_gone_stays_an_error(kind: str):
    """Retries fail until it is back; then all is as if nothing had happened."""
    compiled = moved("float", SD_CARD)
    session = compiled.on_host()
    learn(session, compiled, 2)
    session.storage.faults = (Fault(kind, 7, lasting=True),)
    for _ in range(3):
        with pytest.raises(StorageError):
            session.train_step(*sample(compiled, 2))
    session.storage.faults = ()
    learn(session, compiled, 3)
    assert bits(session) == expected("float")[1]


def test_a_rotten_weight_is_never_used():
    """A bit that flips while nobody looks, in a constant, an initial value, a bank."""
    compiled = moved("int8", SD_CARD)
    plan = compiled.storage
    constant, state = next(iter(plan.constants.values())), next(iter(plan.initial))
    for steps, offset in ((0, constant), (0, plan.offset(state, 0)), (1, plan.offset(state, 1))):
        session = compiled.on_host()
        learn(session, compiled, steps)
        byte = session.storage.peek(offset, 1)
        session.storage.poke(offset, bytes([byte[0] ^ 0x10]))
        with pytest.raises(StorageError):
            session.predict(sample(compiled, 9)[0])
        with pytest.raises(StorageError):
            session.train_step(*sample(compiled, steps))
        session.storage.poke(offset, byte)
        learn(session, compiled, 5 - steps)
        assert bits(session) == expected("int8")[1]


def test_a_page_behind_an_update_in_sram_is_reported_and_undone():
    """With atomic=False a layer in SRAM may change before the next page: sessions restore it."""
    plain = program("float", atomic=False)
    compiled = paged(plain, pages=lambda _: True, storage_first=False)
    assert "KG_ERROR_PARTIAL" in compiled.sources.files["net.c"]
    session, reference = compiled.on_host(), plain.on_host()
    learn(session, compiled, 1)
    count, start = session.traffic.reads, bits(session)
    for number in range(count):
        session.storage.faults = (Fault("read", number),)
        with pytest.raises(StorageError):
            session.train_step(*sample(compiled, 1))
        session.storage.faults = ()
        assert bits(session) == start
    learn(session, compiled, 4)
    learn(reference, plain, 5)
    assert bits(session) == bits(reference)
