"""Update specs resolve to the tensors that they name."""

from __future__ import annotations

import numpy as np
import pytest

from kilograd import update
from kilograd.errors import InputError
from kilograd.ir import Builder, Origin, f32
from kilograd.ops.linear import Linear
from kilograd.ops.shape import Transpose
from kilograd.transforms.select import select
from tests.small import mlp

GRAPH = mlp()


def chosen(spec) -> dict[str, int | None]:
    return {value.name: count for value, count in select(GRAPH, update.normalise(spec)).items()}


def test_all_trains_everything():
    assert set(chosen(update.all())) == {
        "fc0.weight", "fc0.bias", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"
    }  # fmt: skip


def test_last_counts_layers():
    assert set(chosen(update.last(2))) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    assert chosen(update.last(0)) == {}
    assert len(chosen(update.last(99))) == 6


def test_biases_counts_from_the_end():
    assert set(chosen(update.biases(2))) == {"fc1.bias", "fc2.bias"}
    assert set(chosen(update.biases())) == {"fc0.bias", "fc1.bias", "fc2.bias"}
    assert chosen(update.biases(0)) == {}


def test_patterns_match_parameters_and_layers():
    assert chosen({"fc1": update.full()}) == {"fc1.weight": None, "fc1.bias": None}
    assert chosen({"fc?.bias": update.full()}) == {f"fc{i}.bias": None for i in range(3)}
    assert chosen({"fc1": update.bias()}) == {"fc1.bias": None}


def test_channels_take_a_prefix_and_the_bias():
    assert chosen({"fc1": update.channels(0.4)}) == {"fc1.weight": 2, "fc1.bias": None}
    assert chosen({"fc1.weight": update.channels(0.01)}) == {"fc1.weight": 1}
    assert chosen({"fc1": update.channels(0)}) == {"fc1.bias": None}
    assert chosen({"fc1.weight": update.channels(1)}) == {"fc1.weight": None}


def test_later_entries_override_earlier_ones():
    spec = [update.all(), {"fc0": update.none(), "fc1.weight": update.channels(0.2)}]
    assert chosen(spec) == {
        "fc1.weight": 1, "fc1.bias": None, "fc2.weight": None, "fc2.bias": None
    }  # fmt: skip


def test_command_line_texts_mean_the_same():
    texts = ["biases:2", "fc1.weight=channels:0.4", "fc2=none"]
    assert chosen(update.parse(texts)) == {"fc1.weight": 2, "fc1.bias": None}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"fc9.weight": update.full()},
            r"'fc9.weight' matches none of the 6 parameters; the nearest.*fc",
        ),
        ({"fc0.weight": "full"}, "not a pattern and one of"),
        (3, "not understood"),
    ],
)
def test_bad_specs_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        chosen(spec)


@pytest.mark.parametrize("text", ["last:x", "fc=wild", "channels", "fc=channels:2"])
def test_bad_texts_are_refused(text):
    with pytest.raises(InputError, match=r"--update|fraction"):
        update.parse([text])


def test_bad_numbers_are_refused():
    with pytest.raises(InputError, match="negative"):
        update.last(-1)
    with pytest.raises(InputError, match="between 0 and 1"):
        update.channels(1.5)


def test_channels_of_a_weight_that_others_read_too():
    builder = Builder()
    x = builder.input("x", f32(1, 6))
    weight = builder.constant("w", np.zeros((6, 6), np.float32), Origin("fc.weight"))
    x = builder.add(Linear(bias=False), x, weight)
    tied = builder.finish([builder.add(Linear(bias=False), x, weight)])
    spec = update.normalise({"fc": update.channels(0.5)})
    assert list(select(tied, spec).values()) == [3]
    turned = builder.add(Transpose((1, 0)), weight)
    other = builder.finish([builder.add(Linear(bias=False), x, turned)])
    with pytest.raises(InputError, match=r"fc\.weight.*where nothing else reads them"):
        select(other, spec)
