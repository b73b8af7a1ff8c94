"""Explanations say what the schedule does: live set, lifetimes, readers, why a weight learns."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import kilograd as kg
from kilograd import zoo
from kilograd.explaining import SUBJECTS, to_json
from kilograd.planning.explain import (
    describe_peak,
    describe_state,
    explain_peak,
    explain_value,
    peak,
)
from kilograd.planning.explain_parts import explain_weight
from kilograd.planning.facts import Kind, Phase, buffer_facts, phases

SPARSE = [
    kg.update.biases(),
    kg.update.last(2),
    {"features.3.weight": kg.update.channels(0.5), "hidden.1.bias": kg.update.none()},
]


def compiled(name: str, update, **options) -> kg.Program:
    model, example = zoo.create(name)
    return kg.compile(model, example, update=update, **options)


@pytest.fixture(scope="module")
def lenet() -> kg.Program:
    return compiled("lenet", SPARSE)


@pytest.fixture(scope="module")
def senet() -> kg.Program:
    return compiled("se_net", kg.update.all(), optimizer=kg.SGD(momentum=0.9))


@pytest.fixture(scope="module", params=["lenet", "senet", "early"])
def program(request: pytest.FixtureRequest, lenet, senet) -> kg.Program:
    early = compiled("tcn", kg.update.last(2), optimizer=kg.SGD(atomic=False))
    return {"lenet": lenet, "senet": senet, "early": early}[request.param]


def test_the_live_set_at_the_peak_adds_up(program):
    told = program.explain("peak")
    rounded = sum(-(-tensor.size_bytes // 4) * 4 for tensor in told.tensors)
    assert rounded == told.peak_bytes == program.train.lifetimes.peak_bytes
    assert sum(size for _, size in told.layers) == sum(t.size_bytes for t in told.tensors)
    lives = {b.name: b for b in program.train.lifetimes.buffers}
    for tensor in told.tensors:
        assert lives[tensor.name].first <= told.node < lives[tensor.name].last
        assert tensor.offset_bytes == program.train.offsets[tensor.name]
    assert told.running.startswith(f"node {told.node}, ")
    assert told.remedies


def test_remedies_fit_the_program(lenet):
    text = "\n".join(lenet.explain("peak").remedies)
    assert "kg.SGD(atomic=False): 4,864 B are gradients" in text
    early = compiled("lenet", SPARSE, optimizer=kg.SGD(atomic=False))
    assert "atomic" not in "\n".join(early.explain("peak").remedies)
    assert early.train.lifetimes.peak_bytes < lenet.train.lifetimes.peak_bytes
    predict = "\n".join(explain_peak(lenet.predict).remedies)
    assert "a smaller input" in predict and "backward" not in predict


def test_every_value_of_the_program_is_explained(program):
    graph, lives = program.train.graph, program.train.lifetimes
    places = set()
    for value in graph.values():
        told = explain_value(program.train, value.name)
        places.add(told.place)
        assert told.size_bytes == value.type.bytes and str(told)
        readers = [i for i, node in enumerate(graph.nodes) if value in node.inputs]
        assert [int(r.split(",")[0].removeprefix("node ")) for r in told.readers] == readers
        if told.place == "arena":
            root = lives.root[value]
            assert told.offset_bytes == program.train.offsets[root.name]
            assert told.first is not None and told.last is not None
            assert told.first < told.last and told.last > max(readers, default=told.first)
        else:
            assert (told.place == "state") == (lives.root.get(value) in graph.state)
    assert places >= {"arena", "state", "argument"}
    assert ("flash" in places) == bool(graph.constants)


def test_a_value_written_in_place_names_what_it_overwrites(lenet):
    told = lenet.explain("value", "%d_linear")
    assert told.overwrites == "d_relu_2" and told.shares == ("d_relu_2",)
    assert told.producer == "node 16, relu_grad of backward of hidden.2 (lenet.py:51)"
    text = str(told)
    assert "written in place of %d_relu_2" in text
    assert "kept for node 17, linear_grad_input" in text


def test_the_keeper_is_the_last_reader(lenet):
    told = lenet.explain("value", "relu")
    assert (
        told.readers[-1]
        == told.kept_for
        == "node 27, relu_grad of backward of features.1 (lenet.py:51)"
    )
    assert told.last == 28


def test_kinds_and_phases(lenet):
    graph = lenet.train.graph
    kinds = {facts.name: facts.kind for facts in buffer_facts(lenet.train)}
    assert kinds["x"] is Kind.INPUT and kinds["relu"] is Kind.SAVED
    assert kinds["d_relu"] is Kind.COTANGENT and kinds["d_classifier_weight"] is Kind.GRADIENT
    assert kinds["slice"] is Kind.SAVED, "what is cut for the backward pass is no gradient"
    assert {f.kind for f in buffer_facts(lenet.predict)} <= {Kind.INPUT, Kind.ACTIVATION}
    counts = {phase: phases(graph).count(phase) for phase in Phase}
    assert (
        counts[Phase.UPDATE] == len(graph.updates) and counts[Phase.CHECK] == len(graph.updates) + 1
    )


def test_why_a_weight_is_trained_or_not(lenet):
    facts = {p.name: p for p in lenet.explain("weight", "*").parameters}
    assert facts["features.0.bias"].why == "trained: `biases` chose it"
    assert facts["hidden.3.weight"].why == "trained: `last:2` chose it"
    assert facts["hidden.3.bias"].entry == "last:2", "the later entry decides"
    assert facts["hidden.1.weight"].why == "frozen: no entry of the update spec chose it"
    assert facts["hidden.1.bias"].why == "frozen: `hidden.1.bias=none` excluded it"
    part = facts["features.3.weight"]
    assert part.why == "3 of 6 input channels trained: `features.3.weight=channels:0.5` chose it"
    assert (part.trained, part.weight_bytes, part.frozen_bytes) == (1200, 4800, 4800)
    assert facts["classifier.bias"].path == ("loss", "classifier")
    assert facts["hidden.1.weight"].frozen_bytes == 192_000


def test_optimiser_state_counts(senet):
    for facts in senet.explain("weight", "*").parameters:
        assert facts.optimizer_bytes == facts.weight_bytes == 4 * facts.elements
    assert "B of the optimiser" in str(senet.explain("weight", "*"))


def test_a_weight_that_no_gradient_reaches():
    head = compiled("lenet", kg.update.last(1))
    told = explain_weight(head.forward, kg.update.all(), head.train, "hidden.3.weight")
    why = "frozen: `all` chose it, but no gradient of the loss reaches it"
    assert told.parameters[0].why == why


def test_few_channels_are_not_none():
    program = compiled("lenet", {"hidden.3.weight": kg.update.channels(0.05)})
    assert program.explain("weight", "hidden.3.weight").parameters[0].trained == 6 * 84
    none = compiled("lenet", {"hidden.3": kg.update.channels(0), "classifier": kg.update.full()})
    told = {p.name: p.why for p in none.explain("weight", "hidden.3").parameters}
    assert told["hidden.3.weight"] == "frozen: `hidden.3=channels:0.0` excluded it"
    assert told["hidden.3.bias"] == "trained: `hidden.3=channels:0.0` chose it"


def test_layers_of_a_pattern(lenet):
    layers = {layer.name: layer for layer in lenet.explain("layer", "features.*").layers}
    conv = layers["features.3"]
    assert conv.macs == {"forward": 240_000, "backward": 360_000, "check": 0, "update": 1_216}
    assert {tensor.name for tensor in conv.saved} == {"slice", "relu_1"}
    assert conv.saved_bytes == 2_352 + 6_400
    assert conv.state_bytes == 4_864 and conv.frozen_bytes == 4_800
    assert layers["features.1"].operators == ("relu_grad",)
    assert "saves      %relu_1, 6,400 B, for node 20" in str(conv)


@pytest.mark.parametrize(
    ("subject", "name", "message"),
    [
        ("value", "rellu", "there is no value 'rellu'; the nearest names are relu"),
        ("value", "zzz", "there is no value 'zzz'; there are x, "),
        ("weight", "hiden.1", "there is no parameter 'hiden.1'; the nearest names are hidden.1"),
        ("layer", "feature.3", "there is no layer 'feature.3'; the nearest names are features.3"),
        ("layer", "", "name the layer to explain, such as 'features.0'"),
        ("weight", "", "name the weight to explain, such as 'features.0.weight'"),
        ("value", "", "name the value to explain, such as 'x_1'"),
        ("peak", "relu", "the peak has no name: explain it without 'relu'"),
        (
            "wieght",
            "",
            "there is no subject of explanations 'wieght'; the nearest names are weight",
        ),
    ],
)
def test_unknown_names_get_the_nearest(lenet, subject, name, message):
    with pytest.raises(kg.InputError) as caught:
        lenet.explain(subject, name)
    assert message in str(caught.value)


def test_explanations_are_data(lenet):
    names = {"peak": "", "value": "relu", "weight": "hidden.*", "layer": "features.3", "plan": ""}
    for subject in SUBJECTS:
        told = lenet.explain(subject, names[subject])
        assert json.loads(to_json(told)) == json.loads(json.dumps(dataclasses.asdict(told)))


def test_the_short_descriptions_agree_with_the_long_ones(lenet):
    largest = lenet.explain("peak").tensors[0]
    assert f"{largest.size_bytes:,} B  %{largest.name} " in describe_peak(lenet.train)
    assert "hidden.3.weight" in describe_state(lenet.train.graph)


def test_scratch_at_the_peak_is_told_with_its_operator():
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(
        torch.nn.Conv1d(8, 8, 9, padding=4, groups=8), torch.nn.Flatten(), torch.nn.Linear(64, 2)
    )
    x = np.random.default_rng(0).standard_normal((4, 8, 8)).astype(np.float32)
    program = kg.compile(model, x[:1], precision="int8", calibration=x, update=kg.update.last(1))
    time, members = peak(program.predict)
    (name,) = (member.name for member in members if member.value is None)
    node = program.predict.graph.nodes[time]
    assert name == f"scratch of node {time}"
    told = [line for line in describe_peak(program.predict).splitlines() if name in line]
    assert len(told) == 1 and told[0].endswith(f"B  {name}  {node.location}")
