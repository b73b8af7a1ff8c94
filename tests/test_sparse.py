"""Sparse is sparse: what nobody trains keeps no activation alive and does no backward work."""

from __future__ import annotations

import pytest

import kilograd as kg
from kilograd import zoo
from kilograd.update import SpecLike


def compiled(update: SpecLike) -> kg.Program:
    model, example = zoo.create("mbv2_w035", resolution=64, num_classes=10)
    return kg.compile(model, example, update=update)


@pytest.fixture(scope="module")
def head() -> kg.Program:
    return compiled({"classifier": kg.update.full()})


def test_the_head_alone_does_no_backward_work_in_the_backbone(head):
    backward = [node for node in head.train.graph.nodes if node.location.backward]
    assert {node.location.layer for node in backward} <= {"loss", "classifier"}
    weights = sum(value.type.size for value in head.train.graph.state)
    assert head.macs.train_step - head.macs.predict <= 3 * weights


def test_the_head_alone_keeps_no_activation_of_the_backbone(head):
    graph, lives = head.train.graph, head.train.lifetimes
    loss = next(i for i, node in enumerate(graph.nodes) if node.location.layer == "loss")
    alive = {b.name for b in lives.buffers if b.first <= loss < b.last}
    classifier = next(n for n in graph.nodes if n.op.name == "linear")
    allowed = {lives.root[value].name for value in classifier.inputs if value in lives.root}
    allowed |= {lives.root[value].name for value in classifier.outputs} | {"target"}
    produced = {v.name for node in graph.nodes for v in node.outputs if node.location.backward}
    assert alive <= allowed | produced
    label_bytes = 4
    assert head.train.arena_bytes <= head.predict.arena_bytes + label_bytes
    assert "classifier" in head.summary()


def test_the_figures_show_it(head):
    full = compiled(kg.update.all())
    assert full.arena_bytes > 4 * head.arena_bytes
    assert full.macs.train_step > 2.5 * head.macs.train_step


def test_biases_alone_need_no_weight_gradient_and_no_input_of_a_layer():
    program = compiled(kg.update.biases(5))
    names = {node.op.name for node in program.train.graph.nodes}
    assert not any(name.endswith("grad_weight") for name in names)


def test_partial_channels_save_the_slice_alone():
    program = compiled({"blocks.16.pointwise2.weight": kg.update.channels(0.25)})
    graph, lives = program.train.graph, program.train.lifetimes
    piece = next(node for node in graph.nodes if node.op.name == "slice")
    whole, part = piece.inputs[0], piece.outputs[0]
    assert part.type.shape[-1] == whole.type.shape[-1] // 4
    loss = next(i for i, node in enumerate(graph.nodes) if node.location.layer == "loss")
    alive = {b.name for b in lives.buffers if b.first <= loss < b.last}
    assert lives.root[part].name in alive
    assert lives.root[whole].name not in alive
