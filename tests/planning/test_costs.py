"""What nodes take: by the tables of a processor, by a table of one's own, by published rates."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.devices.test_devices import MINE

import kilograd as kg
from kilograd import devices, zoo
from kilograd.devices import Cost
from kilograd.devices.kernels import Kernel, KernelTable, table_json
from kilograd.errors import InputError
from kilograd.ir import Graph
from kilograd.planning.costs import (
    Estimate,
    in_words,
    node_costs,
    node_estimates,
    node_instructions,
    total,
    with_prefix,
    works,
)


def train(name: str, **options: object) -> Graph:
    model, example = zoo.create(name, **options)
    return kg.compile(model, example).train.graph


GENERIC = Kernel(instructions={"start": 100.0, "mac": 2.0}, nodes=1, error=0.0)


@pytest.mark.parametrize("name", ["lenet", "unet"])
@pytest.mark.parametrize("cpu", ["cortex-m7", "cortex-m4", "cortex-m0plus"])
def test_every_operator_is_in_the_tables(name: str, cpu: devices.Cpu) -> None:
    graph = train(name)
    table = devices.kernels.table_of_cpu(cpu)
    assert table is not None
    assert {work.kernel for node in graph.nodes for work in works(node)} <= set(table.kernels)
    counts = node_instructions(graph, cpu)
    for node, count in zip(graph.nodes, counts, strict=True):
        assert (count == 0) if node.op.alias else (count > 0), node


@pytest.mark.parametrize("name", ["mlp", "lenet"])
def test_costs_are_instructions_by_cycles_by_energy(name: str) -> None:
    graph, device = train(name), devices.load("nrf52840")
    counts, costs = node_instructions(graph, device.cpu), node_costs(graph, device)
    for count, cost in zip(counts, costs, strict=True):
        assert cost == Cost(device.seconds(count), device.joules(count))
    assert device.cycles_per_instruction and device.clock_hz
    assert sum(cost.seconds for cost in costs if cost) == pytest.approx(
        sum(counts) * device.cycles_per_instruction / device.clock_hz
    )


def test_no_estimate_where_the_device_has_none() -> None:
    graph = train("mlp")
    assert set(node_costs(graph, devices.load("host"))) == {None}
    silent = devices.load("stm32f746").model_copy(update={"joules_per_cycle": None})
    assert set(node_costs(graph, silent)) == {None}
    assert all(estimate.seconds is not None for estimate in node_estimates(graph, silent))


def test_published_rates() -> None:
    graph, device = train("lenet"), devices.load("rpi4")
    for node, cost in zip(graph.nodes, node_costs(graph, device), strict=True):
        work = node.op.cost(*(value.type for value in node.inputs))
        if node.op.alias:
            flop = 0
        else:
            flop = 2 * work.macs or sum(value.type.size for value in node.outputs)
        assert cost is not None
        assert cost.seconds == pytest.approx(flop / 2e9)
        assert cost.joules == pytest.approx(flop / 40.1e6)


def test_an_unknown_operator_is_estimated_by_the_generic_kernel() -> None:
    graph = train("mlp")
    table = KernelTable(cpu="cortex-m7", networks=(), kernels={}, generic=GENERIC)
    for node, count in zip(graph.nodes, node_instructions(graph, "cortex-m7", table), strict=True):
        macs = node.op.cost(*(value.type for value in node.inputs)).macs
        assert count == (0 if node.op.alias else 100 + 2 * macs)


def test_a_device_brings_its_own_table(tmp_path: Path) -> None:
    table = KernelTable(cpu="cortex-m4", networks=(), kernels={}, generic=GENERIC)
    (tmp_path / "mine.json").write_text(table_json(table), encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(MINE + 'kernels = "mine.json"\n', encoding="utf-8")
    graph, device = train("mlp"), devices.load(path)
    told = [estimate.instructions for estimate in node_estimates(graph, device)]
    assert told == list(node_instructions(graph, "cortex-m4", table))
    path.write_text(
        MINE.replace('cpu = "cortex-m4"', 'cpu = "cortex-m7"') + 'kernels = "mine.json"\n',
        encoding="utf-8",
    )
    with pytest.raises(InputError, match=r"cpu = \"cortex-m7\", but .*mine.json is of cortex-m4"):
        devices.load(path)


def test_a_processor_without_a_table() -> None:
    with pytest.raises(InputError, match='no instructions can be counted for cpu = "cortex-a72"'):
        node_instructions(train("mlp"), "cortex-a72")


def test_sums_and_words() -> None:
    known, timeless = Estimate(1_234_567, 0.25, 1.5e-3), Estimate(10, None, 1.0)
    assert total([known, known]) == Estimate(2_469_134, 0.5, 3e-3)
    assert total([known, timeless]) == Estimate(1_234_577, None, 1.0015)
    assert total([]) == Estimate(0, 0.0, 0.0)
    assert in_words(known) == "about 1,230,000 instructions, 250 ms, 1.5 mJ"
    assert in_words(Estimate(None, None, None)) == ""
    assert with_prefix(0, "s") == "0 s"
    assert with_prefix(0.9996, "s") == "1 s"
    assert with_prefix(123.4, "s") == "120 s"
    assert with_prefix(3.4e-10, "J") == "0.34 nJ"
