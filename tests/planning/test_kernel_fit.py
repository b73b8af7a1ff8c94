"""Kernel tables: the fit finds what made the counts, and promises nothing below zero."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kilograd.devices.kernels import FEATURES, KernelTable, read_table, table_json
from kilograd.errors import InputError
from kilograd.planning.kernel_fit import Sample, fit


def draw(count: int, instructions: Callable[[dict[str, float]], float], seed: int = 0) -> list:
    random = np.random.default_rng(seed)
    result = []
    for _ in range(count):
        channels = random.integers(2, 40, 3)
        macs = float(channels.prod() * random.integers(1, 100))
        features = {
            "start": 1.0,
            "mac": macs,
            **{name: macs / c for name, c in zip(FEATURES[2:5], channels, strict=True)},
            "line_of_input": float(random.integers(1, 1000)),
            "line_of_output": float(random.integers(1, 1000)),
            "read": float(random.integers(10, 10_000)),
            "write": float(random.integers(10, 10_000)),
        }
        result.append(Sample("op/f32", features, round(instructions(features))))
    return result


def test_the_fit_finds_what_made_the_counts() -> None:
    counted = draw(40, lambda f: 300 + 1.5 * f["mac"] + 7 * f["run_of_output"] + 0.5 * f["read"])
    kernel = fit("cortex-m7", ["none"], counted).kernels["op/f32"]
    assert kernel.error < 1e-3 and kernel.nodes == 40
    assert kernel.instructions["mac"] == pytest.approx(1.5, rel=1e-2)
    assert kernel.instructions["run_of_output"] == pytest.approx(7, rel=5e-2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_no_coefficient_is_below_zero(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    table = fit("cortex-m7", [], draw(count, lambda _: random.integers(1, 10**6), seed))
    for kernel in (*table.kernels.values(), table.generic):
        assert kernel.instructions and min(kernel.instructions.values()) > 0


def test_one_shape_is_no_constant() -> None:
    """A larger node of a kernel that was seen at one shape takes more."""
    counted = draw(1, lambda f: 5 * f["mac"])
    assert set(fit("cortex-m7", [], counted).kernels["op/f32"].instructions) != {"start"}


def test_a_table_reads_back(tmp_path: Path) -> None:
    table = fit("cortex-m4", ["a", "b"], draw(20, lambda f: 2 * f["mac"] + 3 * f["write"]))
    path = tmp_path / "table.json"
    path.write_text(table_json(table), encoding="utf-8")
    assert read_table(path) == table
    assert table_json(read_table(path)) == table_json(table)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"cpu"', '"cpo"', "cpu: Field required"),
        ('"mac": ', '"mac": -', r"kernels\.op/f32\.instructions\.mac"),
        ('"mac"', '"mack"', "mack"),
        ("{", "", "Invalid JSON"),
    ],
)
def test_bad_tables(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = table_json(fit("cortex-m4", [], draw(20, lambda f: 2 * f["mac"])))
    path = tmp_path / "table.json"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=rf"(?s)table\.json is no kernel table.*{message}"):
        read_table(path)


def test_the_tables_that_come_with_kilograd_are_written_as_calibrate_writes_them() -> None:
    folder = Path(__file__).parents[2] / "src/kilograd/devices/kernels"
    paths = sorted(folder.glob("*.json"))
    assert [path.stem for path in paths] == ["cortex-m0plus", "cortex-m4", "cortex-m7"]
    for path in paths:
        table: KernelTable = read_table(path)
        assert table.cpu == path.stem
        assert path.read_text(encoding="utf-8") == table_json(table)
