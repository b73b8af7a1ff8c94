"""What is told of a plan adds up, agrees with the schedule, and prices what else could be done."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter

import pytest
from tests.planning.planned import planned, unplanned

import kilograd as kg
from kilograd.explaining import to_json
from kilograd.ops.page import PageIn, PageOut, Paging
from kilograd.ops.stored_step import StoredSgdStep
from kilograd.planning.paging import node_prices

CASES = {
    "recomputed": ("conv", 0.9, {"page": False}),
    "paged": ("conv", 0.75, {"recompute": False}),
    "both": ("conv", 0.6, {}),
    "weights": ("dense", 0.93, {}),
    "flash": ("conv", 0.55, {"storage": "qspi"}),
}


@pytest.fixture(params=CASES)
def program(request: pytest.FixtureRequest) -> kg.Program:
    network, share, options = CASES[request.param]
    return planned(network, share, **options)


def moved(program: kg.Program) -> dict:
    return {tensor.name: tensor for tensor in program.explain("plan").functions[-1].tensors}


def test_prices_add_up_to_what_the_plan_costs(program):
    for told in program.explain("plan").functions:
        for name in ("seconds", "joules", "instructions"):
            parts = sum(getattr(tensor.price, name) for tensor in told.tensors)
            extra = getattr(told.price, name) - getattr(told.plain, name)
            assert parts == pytest.approx(extra, rel=1e-9, abs=1e-15)
    cost = program.step_cost
    assert told.price.joules == pytest.approx(cost.joules)
    assert told.price.seconds == pytest.approx(cost.seconds)
    assert told.price.joules > told.plain.joules


def test_events_are_those_of_the_graph(program):
    plan, graph = program.explain("plan"), program.train.graph
    told = plan.functions[-1]
    chunked = sum(isinstance(node.op, StoredSgdStep) for node in graph.nodes)
    assert told.page_ins == chunked + sum(isinstance(n.op, PageIn) for n in graph.nodes)
    assert told.page_outs == chunked + sum(isinstance(n.op, PageOut) for n in graph.nodes)
    assert told.stored_bytes == sum(value.type.bytes for value in graph.stored)
    assert told.plain_peak_bytes == unplanned_of(program).train.lifetimes.peak_bytes
    runs = Counter(
        re.sub(r"\.again\d*$", "", node.outputs[0].name)
        for node in graph.nodes
        if node.outputs and not isinstance(node.op, Paging) and not node.op.alias
    )
    assert told.reruns == sum(runs.values()) - len(runs)


def unplanned_of(program: kg.Program) -> kg.Program:
    return unplanned("conv" if program.name == "sequential" else "dense", program.device.name)


def test_nothing_reads_or_makes_an_absent_tensor(program):
    nodes, count = program.train.graph.nodes, 0
    # Who runs again for one of its outputs makes the others, which nobody may read.
    read = {value.name for node in nodes for value in node.inputs}
    for name, tensor in moved(program).items():
        for stretch in tensor.away:
            count += 1
            assert stretch.first < stretch.last
            for node in nodes[stretch.first + 1 : stretch.last]:
                names = {value.name for value in (*node.inputs, *node.outputs)}
                copies = {n for n in names if n == name or n.startswith(f"{name}.")}
                assert all(n.startswith(f"{name}.page") for n in copies & read), (name, copies)
            assert any(v.name.startswith(f"{name}.") for v in nodes[stretch.last].outputs)
    assert count or all(tensor.how == "stored" for tensor in moved(program).values())


def test_keeping_a_tensor_is_priced_at_the_fullest_node_between(program):
    told = program.explain("plan").functions[-1]
    changes = dict(program.train.lifetimes.profile())
    live, now = [], 0
    for index in range(len(program.train.graph.nodes)):
        now = changes.get(index, now)
        live.append(now)
    for tensor in told.tensors:
        for stretch in tensor.away:
            most = max(live[stretch.first + 1 : stretch.last])
            assert stretch.live_bytes == most
            padded = -(-tensor.size_bytes // 4) * 4
            assert stretch.over_bytes == most + padded - told.limit_bytes
        keep = [way for way in tensor.alternatives if way.how == "keep"]
        worst = max((stretch.over_bytes for stretch in tensor.away), default=0)
        if worst > 0:
            assert f"{worst:,} B over the {told.limit_bytes:,} B" in keep[0].text


def test_a_paged_tensor_names_the_price_of_running_its_chain_again():
    program = planned("conv", 0.75, recompute=False)
    tensor = moved(program)["relu"]
    assert (tensor.how, tensor.page_outs) == ("paged", 1) and tensor.page_ins
    base = program.plans[-1].step.graph
    (index,) = [i for i, n in enumerate(base.nodes) if n.outputs and n.outputs[0].name == "relu"]
    again = next(way for way in tensor.alternatives if way.how == "recompute")
    own = node_prices(base, program.device, None)[index].joules
    dropped = program.plans[-1].step.graph.inputs[0]
    storage = program.storage_device
    most = own + storage.read_cost(dropped.type.bytes).joules
    price = again.price.joules / tensor.page_ins
    assert own <= price <= 1.2 * most, "the input it is computed from may be a page"
    assert again.price.joules < tensor.price.joules, "which is why plans that may, run it again"
    times = {1: "once", 2: "twice"}[tensor.page_ins]
    assert f"run 1 operator again, {times}" in str(again)


def test_a_recomputed_tensor_names_the_price_of_paging_it():
    program = planned("conv", 0.9, page=False)
    tensor = next(t for t in moved(program).values() if t.how == "recomputed")
    page = next(way for way in tensor.alternatives if way.how == "page")
    storage = program.device.storage[0]
    moves = [storage.write_cost(tensor.size_bytes)]
    moves += [storage.read_cost(tensor.size_bytes)] * len(tensor.away)
    assert page.price.seconds > sum(cost.seconds for cost in moves), "and checksums"
    assert f"write it to {storage.name} once" in page.text
    assert page.price.joules > tensor.price.joules


def test_an_input_cannot_run_again():
    tensors = [
        t
        for program in (
            planned("conv", 0.75, recompute=False),
            planned("conv", 0.55, storage="qspi"),
        )
        for t in moved(program).values()
        if t.layer == "input" and t.how == "paged"
    ]
    assert tensors
    for tensor in tensors:
        assert "run it again: impossible, it is an input" in str(tensor)


def test_stored_weights_say_what_keeping_them_would_take():
    program = planned("dense", 0.93)
    weights = [t for t in moved(program).values() if t.how == "stored"]
    assert weights and {t.name for t in weights} == {v.name for v in program.train.graph.stored}
    for tensor in weights:
        assert tensor.page_outs == 1 and tensor.page_ins >= 1
        (keep,) = [way.text for way in tensor.alternatives]
        assert (
            "keep it in SRAM" in keep and f"{program.limits()[0]:,}" in keep
        ) or "would fit" in keep
    assert program.plan.storage.image_bytes == program.storage.image_bytes


def test_wear_is_that_of_the_busiest_block():
    program = planned("conv", 0.55, storage="qspi")
    use, placed = program.explain("plan").storage, program.storage
    storage = program.storage_device
    writes: dict[int, float] = {}
    for value, page in placed.pages[1].items():
        for byte in range(page.offset, page.offset + value.type.bytes):
            block = byte // storage.erase_bytes
            writes.setdefault(block, 0)
    for block in writes:
        low, high = block * storage.erase_bytes, (block + 1) * storage.erase_bytes
        writes[block] = sum(
            page.offset < high and page.offset + value.type.bytes > low
            for value, page in placed.pages[1].items()
        )
    assert use.erases == max([0.5 * bool(placed.initial), *writes.values()]) > 0
    assert use.life_steps == int(storage.erase_cycles / use.erases)
    assert f"last {use.life_steps:,} steps" in str(use)


def test_a_value_says_what_the_plan_does_with_it(program):
    name, tensor = next(iter(moved(program).items()))
    told = program.explain("value", name)
    assert told.plan == tensor and "  planned:" in str(told)
    copies = [v.name for v in program.train.graph.values() if v.name.startswith(f"{name}.")]
    assert copies and program.explain("value", copies[0]).plan == tensor
    assert program.explain("value", "loss").plan is None


def test_the_peak_names_what_is_kept_out_of_ram():
    program = planned("conv", 0.475)
    told = program.explain("peak")
    away = [
        t.name for t in moved(program).values() if any(s.first < told.node < s.last for s in t.away)
    ]
    assert len(told.away) == len(away) > 0
    assert all(any(f"%{name} " in line for line in told.away) for name in away)
    assert "kept out of RAM by the plan" in str(told)


def test_summary_and_manifest_tell_the_plan(program):
    told = program.explain("plan").functions[-1]
    text, facts = program.summary(), json.loads(program.manifest())["plan"]
    assert f"train step planned: {told.plain_peak_bytes:,} B" in text
    step = facts["functions"]["train step"]
    assert step["page_ins"] == told.page_ins and step["recomputations"] == told.reruns
    assert step["planned"]["joules"] == told.price.joules
    assert [t["name"] for t in step["tensors"]] == [t.name for t in told.tensors]
    assert (facts["storage"] is None) == (program.storage is None)
    assert program.figures.plan == program.plan
    assert json.loads(to_json(program.plan)) == json.loads(
        json.dumps(dataclasses.asdict(program.plan))
    )


def test_a_program_that_fits_is_not_planned():
    program = unplanned("conv")
    assert str(program.explain("plan")).startswith("nothing is planned")
    assert json.loads(program.manifest())["plan"] is None
    assert "planned" not in program.summary()
    with pytest.raises(kg.InputError, match="the plan has no name"):
        program.explain("plan", "relu")
