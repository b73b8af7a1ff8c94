"""The accuracy benchmarks run, on little data; their figures are for docs/accuracy.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DATA = Path(os.environ.get("KILOGRAD_DATA", Path(__file__).parents[3] / "shared/data"))
NEEDED = {
    "transfer": "models/mcunet-5fps.safetensors",
    "speech": "speech/spoken_digits.npz",
    "gestures": "gestures/basic_motions.npz",
}


def run(name: str, data: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", "--quick"],
        env={**os.environ, "KILOGRAD_DATA": str(data)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", NEEDED)
def test_quick_run_prints_a_table_of_accuracies(name: str) -> None:
    if not (DATA / NEEDED[name]).is_file():
        pytest.skip(f"{DATA / NEEDED[name]} is not there")
    result = run(name, DATA)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    rows = [line[2:-2].split(" | ") for line in lines]
    header, _, *body = rows
    columns = [place for place, title in enumerate(header) if title.endswith("%")]
    assert columns and body
    for row in body:
        assert len(row) == len(header)
        for place in columns:
            mean = re.match(r"[\d.]+", row[place])
            assert mean and 0 <= float(mean.group()) <= 100


@pytest.mark.parametrize("name", NEEDED)
def test_missing_data_ends_with_the_path_and_what_to_do(name: str, tmp_path: Path) -> None:
    result = run(name, tmp_path)
    assert result.returncode == 1
    assert str(tmp_path / NEEDED[name]) in result.stderr
    assert "KILOGRAD_DATA" in result.stderr and "Traceback" not in result.stderr
