"""Schemes as data: TOML in and out, and clear words about wrong ones."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

import kilograd as kg
from kilograd.compiler import prepare
from kilograd.errors import InputError
from kilograd.search.layers import layers_of
from kilograd.search.scheme import Scheme, read_scheme, write_scheme
from kilograd.search.table import Contributions, Gain

EIGHTH, HALF = Fraction(1, 8), Fraction(1, 2)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 3),
    )  # fmt: skip


SAMPLE = torch.zeros(1, 1, 8, 8)


@pytest.fixture(scope="module")
def layers():
    return layers_of(prepare(network(), SAMPLE).forward)


def trained(program: kg.Program) -> dict[str, tuple[int, ...]]:
    return {
        tensor.origin.name: value.type.shape
        for value, tensor in program.train.graph.state.items()
        if tensor.origin is not None
    }


def test_a_written_scheme_trains_what_the_scheme_trains(layers, tmp_path):
    scheme = Scheme.of(1, {"2": HALF})
    path = tmp_path / "scheme.toml"
    write_scheme(path, scheme, layers, "found for 100 KB\nof SRAM")
    assert path.read_text().startswith("# found for 100 KB\n# of SRAM\n")
    assert read_scheme(path, layers) == scheme
    direct = kg.compile(network(), SAMPLE, update=scheme.spec(layers))
    loaded = kg.compile(network(), SAMPLE, update=str(path))
    assert trained(direct) == trained(loaded)
    assert {name.rpartition(".")[0] for name in trained(loaded)} == {"2", "5"}
    assert trained(loaded)["2.weight"][-1] == 4 or 4 in trained(loaded)["2.weight"]


def test_the_same_scheme_is_the_same_text(layers, tmp_path):
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    write_scheme(one, Scheme.of(2, {"2": HALF, "0": EIGHTH}), layers)
    write_scheme(other, Scheme.of(2, {"0": EIGHTH, "2": HALF}), layers)
    assert one.read_text() == other.read_text()


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        (Scheme.of(1, {"7": HALF}), r"trains '7'; the network's layers are 0, 2"),
        (Scheme.of(1, {"2": Fraction(3, 2)}), r"trains 3/2 of 2; a ratio is above 0 and at most 1"),
        (Scheme.of(1, {"0": HALF}), "not among the last 1 layers, whose biases it trains"),
        (Scheme(9), "biases of the last 9 layers; the network has 2"),
    ],
)
def test_wrong_schemes_are_refused(layers, scheme, words):
    with pytest.raises(InputError, match=words):
        scheme.spec(layers)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("update = []", r"no scheme of a search.*needs a table \[scheme\]"),
        ("nonsense [", "no scheme of a search"),
        ('[scheme]\nbiases = 1\n[scheme.weights]\n"2" = "much"', "no scheme of a search"),
        ('[scheme]\nbiases = 1\n[scheme.weights]\n"conv9" = "1/2"', "trains 'conv9'; the network"),
        ('[scheme]\nbiases = 1\n[scheme.weights]\n"2" = "9/8"', "trains 9/8 of 2"),
    ],
)
def test_wrong_files_are_refused_by_name(layers, text, words, tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"wrong\.toml.*" + words):
        read_scheme(path, layers)


def test_files_that_cannot_be_are_refused(layers, tmp_path):
    with pytest.raises(InputError, match="cannot read the scheme"):
        read_scheme(tmp_path / "none.toml", layers)
    with pytest.raises(InputError, match="cannot write the scheme"):
        write_scheme(tmp_path / "no/scheme.toml", Scheme(1), layers)


def contributions() -> Contributions:
    return Contributions(
        "net",
        ("0", "2"),
        Gain(0.5, 0.01, 3),
        {2: Gain(0.1)},
        {("2", HALF): Gain(0.03, 0.02, 3), ("0", Fraction(1)): Gain(-0.01)},
        "measured",
    )


def test_contributions_survive_a_file(tmp_path):
    path = tmp_path / "table.json"
    contributions().save(path)
    assert Contributions.load(path) == contributions()
    assert [file.name for file in tmp_path.iterdir()] == ["table.json"]


def test_missing_depths_are_interpolated():
    table = contributions()
    assert [table.bias_gain(k) for k in range(3)] == [0.0, 0.05, 0.1]
    assert Scheme.of(1, {"2": HALF}).gain(table) == pytest.approx(0.08)
    with pytest.raises(
        InputError, match="1/8 of 2 has no measured contribution; its ratios are 1/"
    ):
        Scheme.of(1, {"2": EIGHTH}).gain(table)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('"format": "kilograd', '"format": "other'), 'its "format" is not'),
        (('"ratio": "1/2"', '"ratio": "5/2"'), "ratios are above 0 and at most 1"),
        (('"layer": "2"', '"layer": "9"'), "'9' is not among its layers"),
        (('"k": 2', '"k": 3'), "biases of the last 3 layers, but it has 2"),
        (('"mean": 0.1', '"mean": NaN'), "not a finite number"),
        (('"head"', '"tail"'), "not a table of contributions"),
        (("{", ""), "not a table of contributions"),
    ],
)
def test_wrong_tables_are_refused_by_name(change, words, tmp_path):
    path = tmp_path / "table.json"
    text = contributions().to_json()
    path.write_text(text.replace(*change, 1))
    assert path.read_text() != text
    with pytest.raises(InputError, match=r"table\.json: .*" + words):
        Contributions.load(path)
