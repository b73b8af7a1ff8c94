"""Orders respect data and memory; lifetimes share memory only where that is legal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.small import mlp
from tests.transforms.test_differentiate import feed

from kilograd import update
from kilograd.errors import CompilerBug
from kilograd.ir import Builder, Origin, evaluate, f32, verify
from kilograd.ops.binary import Add, Mul
from kilograd.ops.linear import Linear
from kilograd.ops.shape import Reshape
from kilograd.ops.unary import Relu
from kilograd.options import SGD, Loss
from kilograd.planning.lifetimes import lifetimes
from kilograd.planning.order import order
from kilograd.transforms.differentiate import differentiate
from kilograd.transforms.select import select


def train_graph(atomic: bool):
    graph = mlp((6, 40, 40, 3))
    graphs = differentiate(
        graph, Loss.CROSS_ENTROPY, select(graph, update.all()), SGD(atomic=atomic)
    )
    return graphs.train


@pytest.mark.parametrize("atomic", [True, False])
def test_order_keeps_the_meaning(atomic):
    before = train_graph(atomic)
    after = verify(order(before, atomic=atomic))
    assert sorted(map(str, before.nodes)) == sorted(map(str, after.nodes))
    first, second = evaluate(before, feed()), evaluate(after, feed())
    for value, array in first.state.items():
        np.testing.assert_array_equal(array, second.state[value])


def test_atomic_steps_come_behind_every_check():
    names = [node.op.name for node in order(train_graph(True), atomic=True).nodes]
    assert names.index("sgd_step") > max(i for i, n in enumerate(names) if n.endswith("check"))


def test_early_updates_need_less_memory():
    held = lifetimes(order(train_graph(True), atomic=True)).peak_bytes
    early = lifetimes(order(train_graph(False), atomic=False)).peak_bytes
    assert early < held


def test_an_update_before_a_reader_is_caught():
    graph = order(train_graph(False), atomic=False)
    step = next(
        i for i, n in enumerate(graph.nodes) if n.outputs and n.outputs[0].name == "fc1.weight.next"
    )
    reader = next(i for i, n in enumerate(graph.nodes) if n.op.name == "linear_grad_input")
    assert reader < step
    nodes = list(graph.nodes)
    nodes.append(
        nodes.pop(next(i for i, n in enumerate(nodes) if n.op.name == "linear_grad_input"))
    )
    with pytest.raises(CompilerBug, match="overwritten"):
        lifetimes(replace(graph, nodes=tuple(nodes)))


def test_in_place_only_when_nobody_reads_later():
    builder = Builder()
    x = builder.input("x", f32(1, 8))
    a = builder.add(Add(), x, x, name="a")
    b = builder.add(Relu(), a, name="b")  # `a` is read again below: not in place
    c = builder.add(Add(), a, b, name="c")
    d = builder.add(Relu(), c, name="d")
    root = lifetimes(builder.finish([d])).root
    assert root[b] == b
    assert root[d] == root[c]


def test_views_of_a_weight_count_as_its_readers():
    builder = Builder()
    x = builder.input("x", f32(1, 6))
    constants = {
        name: builder.constant(name, np.full(shape, 0.5, np.float32), Origin(name))
        for name, shape in (("first", (6, 6)), ("scale", (1, 6)))
    }
    hidden = builder.add(Linear(bias=False), x, constants["first"])
    view = builder.add(Reshape((6,)), constants["scale"], name="view")
    graph = builder.finish([builder.add(Mul(), hidden, view)])
    chosen = select(graph, update.all())
    train = differentiate(graph, Loss.MSE, chosen, SGD(atomic=False)).train
    late = [node for node in train.nodes if any(v.name == "view" for v in node.inputs)][-1:]
    for node in train.nodes:
        if any(set(node.inputs) & set(other.outputs) for other in late):
            late.append(node)
    assert not any(node.op.name == "sgd_step" and node.inputs[0].name == "scale" for node in late)
    early = [node for node in train.nodes if node not in late]
    broken = replace(train, nodes=(*early, *late))
    with pytest.raises(CompilerBug, match="overwritten"):
        lifetimes(broken)
    ordered = order(broken, atomic=False)
    lifetimes(ordered)
    names = [(node.op.name, node.inputs[0].name) for node in ordered.nodes]
    assert names.index(("sgd_step", "scale")) > ordered.nodes.index(late[0])
