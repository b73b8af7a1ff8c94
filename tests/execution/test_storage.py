"""Programs whose tensors lie in secondary storage: the same bits as unpaged, on host and boards;
checkpoints and weights in the user's terms.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.execution.storage_cases import (
    NOR_FLASH,
    PSRAM,
    SD_CARD,
    agrees,
    bits,
    expected,
    half_moved,
    learn,
    moved,
    program,
    sample,
)
from tests.paging import Geometry, paged

import kilograd as kg
from kilograd import zoo
from kilograd.errors import CompilerBug, InfeasibleError, InputError, StorageError
from kilograd.execution.session import Session
from kilograd.execution.storage import FileStorage, MemoryStorage
from kilograd.ir import Node, Value, evaluate
from kilograd.ops.optimizer import Assign
from kilograd.ops.page import PageOut
from kilograd.planning.storage import check_paging, place

both = pytest.mark.parametrize("name", ["float", "int8"])


@pytest.mark.parametrize("geometry", [SD_CARD, NOR_FLASH, PSRAM], ids=["sd", "nor", "psram"])
@both
def test_a_paged_program_computes_the_same_bits(name: str, geometry: Geometry):
    compiled = moved(name, geometry)
    session = compiled.on_host(optimize="-O1", poison=True)
    agrees(session, name)
    assert session.traffic.reads > 10 and session.traffic.read_bytes > 1000
    before, after = program(name), compiled
    assert after.state_bytes < before.state_bytes
    tables = [each.sources.files["net_tables.h"] for each in (before, after)]
    assert len(tables[1]) < len(tables[0]) / 2


@both
def test_part_of_a_program_in_storage_computes_the_same_bits(name: str):
    compiled = half_moved(name, SD_CARD)
    assert set(compiled.storage.initial) < set(compiled.interface.state)
    assert "KG_ERROR_PARTIAL" not in compiled.sources.files["net.c"]
    agrees(compiled.on_host(sanitize=name == "float", optimize="-O1"), name)


def test_integer_gradients_with_weights_in_storage():
    """Their seed is a state that steps read and do not change: no failure is a partial one."""
    model, example = zoo.create("mlp")
    calibration = np.random.default_rng(1).standard_normal((16, *example.shape[1:]))
    plain = kg.compile(
        model, example, precision="int8", calibration=calibration.astype(np.float32),
        gradients="int8", optimizer=kg.SGD(lr=0.05), name="net",
    )  # fmt: skip
    compiled = paged(plain, stored=lambda value: "weight" in value.name, geometry=SD_CARD)
    assert "KG_ERROR_PARTIAL" not in compiled.sources.files["net.c"]
    first, second = (one.on_host(optimize="-O1") for one in (plain, compiled))
    assert learn(first, plain) == learn(second, compiled)
    assert bits(first) == bits(second)


@pytest.mark.parametrize("device", ["cortex-m7-256k", "rp2040"])
@both
def test_boards_compute_the_same_bits(name: str, device: str):
    compiled = moved(name, SD_CARD, device)
    board = compiled.on_emulator()
    agrees(board, name)
    assert board.traffic.read_bytes % 512 == 0 and board.traffic.reads > 10
    memory = compiled.memory
    assert 0 < board.stack_bytes <= memory.stack_bytes
    assert memory.flash_bytes < program(name, device).memory.flash_bytes or name == "float"


@both
def test_the_meaning_of_a_paged_graph_is_that_of_the_unpaged(name: str):
    """References know nothing of storage: a page is the identity."""
    results = []
    graphs = [program(name).train.graph, half_moved(name, SD_CARD).train.graph]
    for graph in graphs:
        x, y, rate, step = graph.inputs
        rng = np.random.default_rng(0)
        data = (100 * rng.standard_normal(x.type.shape)).astype(x.type.dtype.numpy)
        feed = {x.name: data, y.name: np.array([1], np.int32)}
        feed |= {rate.name: np.float32(0.1), step.name: np.uint32(0)}
        result = evaluate(graph, feed)
        results.append([*result.outputs, *(result.state[v] for v in graphs[0].state)])
    for before, after in zip(*results, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_board_pages_in_the_sram_it_asks_for():
    """With not a byte more than the summary says, checksums and driver included."""
    roomy = moved("float", SD_CARD, "rp2040")
    needed = -(-roomy.memory.sram_bytes // 8) * 8
    assert needed < program("float", "rp2040").memory.sram_bytes / 2
    small = kg.Device(**{**roomy.device.model_dump(), "name": "small", "sram_bytes": needed})
    agrees(replace(roomy, device=small).on_emulator(), "float")


def test_a_finer_storage_serves_as_well():
    compiled = moved("float", Geometry(block_bytes=512, erase_bytes=4096))
    large = Geometry(block_bytes=512, size_bytes=1 << 35)  # more than offsets can say
    for geometry in (
        Geometry(block_bytes=1),
        Geometry(block_bytes=256, erase_bytes=1024),
        Geometry(block_bytes=512, erase_bytes=4096),
        large,
    ):
        agrees(compiled.on_host(storage=MemoryStorage(geometry)), "float")


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (Geometry(block_bytes=1024), "blocks of 512 bytes.*1,024"),
        (Geometry(block_bytes=3, size_bytes=3 << 20), "no multiple of the 3"),
        (Geometry(block_bytes=512, erase_bytes=8192), "no multiple of the 8,192"),
        (
            Geometry(block_bytes=512, size_bytes=4096),
            r"needs [\d,]+ bytes of storage, this one has 4,096",
        ),
    ],
)
def test_a_storage_that_does_not_fit_is_refused(geometry: Geometry, message: str):
    with pytest.raises(InputError, match=message):
        moved("float", SD_CARD).on_host(storage=MemoryStorage(geometry))


def test_a_program_without_pages_takes_no_storage():
    with pytest.raises(InputError, match="nothing in secondary storage"):
        program("float").on_host(storage=MemoryStorage(SD_CARD))


def test_a_plan_says_what_it_lacks():
    compiled = moved("float", SD_CARD)
    graphs = [compiled.predict.graph, compiled.train.graph]
    with pytest.raises(InfeasibleError, match=r"needs [\d,]+ bytes of storage.*8,192 that there"):
        place(graphs, Geometry(block_bytes=512, size_bytes=8192))
    assert place([program("float").train.graph], SD_CARD) is None


def test_functions_have_to_agree_on_what_is_stored():
    compiled = moved("float", SD_CARD)
    plain, train = program("float").predict.graph, compiled.train.graph
    with pytest.raises(CompilerBug, match="in storage for one function"):
        place([plain, train], SD_CARD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: replace(g, stored=frozenset()), "not in storage, which this node"),
        (lambda g: replace(g, nodes=(*g.nodes, _reads_page(g))), "is in storage, which this node"),
        (lambda g: replace(g, updates={}), None),
        (lambda g: replace(g, outputs=(next(iter(g.stored)),)), "the output .* is in storage"),
        (lambda g: replace(g, updates=_without_one(g)), "has no next value"),
    ],
)
def test_graphs_that_page_wrongly_are_bugs(change, message: str | None):
    graph = change(moved("float", SD_CARD).train.graph)
    if message is None:
        check_paging(graph, 512)
        return
    with pytest.raises(CompilerBug, match=message):
        check_paging(graph, 512)


def test_pages_of_other_blocks_are_a_bug():
    with pytest.raises(CompilerBug, match="blocks of 4096 bytes"):
        check_paging(moved("float", SD_CARD).train.graph, 4096)


def _reads_page(graph):
    """A node that takes a page for a tensor in RAM."""
    page = next(n.outputs[0] for n in graph.nodes if isinstance(n.op, PageOut))
    return Node(Assign(), (page,), (Value("copy", page.type),))


def _without_one(graph):
    return dict(list(graph.updates.items())[1:])


def test_pages_share_storage_and_nothing_overlaps():
    """Of the pages of a step, those alive at one time have places and checksums of their own."""
    compiled = moved("float", SD_CARD)
    graph, plan = compiled.train.graph, compiled.storage
    pages = plan.pages[1]
    born = {node.outputs[0]: i for i, node in enumerate(graph.nodes) if node.outputs}
    read = {v: i for i, node in enumerate(graph.nodes) for v in node.inputs}
    total = sum(-(-v.type.bytes // 512) * 512 for v in pages)
    assert plan.size_bytes - plan.image_bytes - 2 * plan.bank_bytes < total / 2
    assert plan.checksums < len(pages) / 2
    for a, at in pages.items():
        for b, place_b in pages.items():
            if a is not b and born[a] <= born[b] < read[a]:
                assert at.checksum != place_b.checksum
                first, last = at.offset, at.offset + a.type.bytes
                assert place_b.offset + b.type.bytes <= first or last <= place_b.offset


# State in the user's terms ---------------------------------------------------------------------


@both
def test_weights_in_storage_are_read_and_written(name: str):
    compiled = moved(name, SD_CARD)
    first, second = compiled.on_host(), compiled.on_host()
    learn(first, compiled, 2)
    second.load_state_dict(first.state_dict())
    x = sample(compiled, 9)[0]
    np.testing.assert_allclose(second.predict(x), first.predict(x), rtol=1e-5, atol=1e-6)
    plain = program(name).on_host()
    plain.load_state_dict(first.state_dict())
    assert plain.predict(x).tobytes() == second.predict(x).tobytes()
    second.reset()
    agrees(second, name)


@both
def test_a_power_cut_loses_nothing_that_was_saved(name: str, tmp_path: Path):
    """The card stays in, SRAM is gone: the checkpoint brings back the rest."""
    compiled = moved(name, SD_CARD)
    before = compiled.on_host(storage=FileStorage(tmp_path / "card.bin", SD_CARD))
    losses = learn(before, compiled, 3)
    (tmp_path / "checkpoint").write_bytes(before._backend.save())
    assert (tmp_path / "checkpoint").stat().st_size < 400
    learned = bits(before)
    del before
    after = compiled.on_host(storage=FileStorage(tmp_path / "card.bin", SD_CARD))
    after.load(tmp_path / "checkpoint")
    after.step = 3
    assert bits(after) == learned
    losses += learn(after, compiled, 2)
    assert (losses, bits(after)) == expected(name)[:2]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_board_goes_on_where_the_host_stopped(steps: int, tmp_path: Path):
    """The file of a session brings its weights along: the board's own card knows nothing of it."""
    host = moved("float", SD_CARD).on_host()
    learn(host, program("float"), steps)
    host.save(tmp_path / "checkpoint")
    compiled = moved("float", SD_CARD, "cortex-m7-256k")
    board = compiled.on_emulator()
    learn(board, compiled, 1)
    board.load(tmp_path / "checkpoint")
    assert bits(board) == bits(host)
    board.step = steps
    learn(board, compiled, 5 - steps)
    assert bits(board) == expected("float")[1]


@pytest.mark.parametrize("part", ["checkpoint", "bank"])
def test_a_damaged_checkpoint_changes_nothing(part: str, tmp_path: Path):
    compiled = moved("float", SD_CARD)
    session = compiled.on_host()
    learn(session, compiled, 2)
    session.save(tmp_path / "checkpoint")
    data = bytearray((tmp_path / "checkpoint").read_bytes())
    offset = 20 if part == "checkpoint" else session._interface.checkpoint_bytes + 5
    data[offset] ^= 4
    (tmp_path / "checkpoint").write_bytes(data)
    learn(session, compiled, 1)
    before = bits(session)
    with pytest.raises(InputError, match=r"corrupt.*nothing was changed"):
        session.load(tmp_path / "checkpoint")
    assert bits(session) == before
    learn(session, compiled, 2)
    assert bits(session) == expected("float")[1]


def test_a_checkpoint_outlives_one_step_and_is_refused_after_two(tmp_path: Path):
    """The second step overwrites the bank; the checksums see it before a weight is used."""
    compiled = moved("float", SD_CARD)
    session = compiled.on_host()
    learn(session, compiled, 2)
    (tmp_path / "checkpoint").write_bytes(session._backend.save())
    saved = bits(session)
    learn(session, compiled, 1)
    session.load(tmp_path / "checkpoint")
    assert bits(session) == saved
    session.step = 2
    learn(session, compiled, 2)
    session.load(tmp_path / "checkpoint")
    x, y = sample(compiled, 0)
    for call in (lambda: session.predict(x), lambda: session.train_step(x, y), session.raw_state):
        with pytest.raises(StorageError):
            call()
    session.reset()
    agrees(session, "float")


def test_a_step_that_is_not_finite_changes_nothing():
    compiled = moved("float", SD_CARD)
    session = compiled.on_host()
    learn(session, compiled, 2)
    before = bits(session)
    with pytest.raises(kg.NonFiniteError):
        session.train_step(np.full_like(sample(compiled, 0)[0], np.nan), 1)
    assert bits(session) == before
    learn(session, compiled, 3)
    assert bits(session) == expected("float")[1]


# What is measured ------------------------------------------------------------------------------


class Card(Geometry):
    """A storage with figures."""

    read_seconds: float = 1e-3
    read_bytes_per_second: float = 1e6
    write_seconds: float = 2e-3
    write_bytes_per_second: float = 5e5
    erase_seconds: float = 0.0
    watts: float = 0.1


@pytest.mark.parametrize("where", ["on_host", "on_emulator"])
def test_time_and_energy_are_those_of_the_transfers(where: str):
    card = Card(block_bytes=512)
    compiled = replace(moved("float", SD_CARD, "cortex-m7-256k"), storage_device=card)
    session: Session = getattr(compiled, where)()
    learn(session, compiled, 1)
    moves = session.traffic
    assert moves.reads and moves.writes and not moves.erases
    seconds = moves.reads * 1e-3 + moves.read_bytes / 1e6
    seconds += moves.writes * 2e-3 + moves.written_bytes / 5e5
    assert moves.seconds == pytest.approx(seconds)
    assert moves.joules == pytest.approx(0.1 * seconds)
    session.predict(sample(compiled, 0)[0])
    assert 0 < session.traffic.reads < moves.reads
