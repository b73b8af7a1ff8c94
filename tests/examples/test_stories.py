"""The examples of speech and of gestures run from data in the form that their sources have it.

The recordings here are tones and waves, made so that a network can tell them apart.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SPEAKER, MOTIONS = EXAMPLES / "new_speaker" / "adapt.py", EXAMPLES / "gestures" / "learn.py"
ACTIVITIES = ("Standing", "Running", "Walking", "Badminton")


def run(script: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def write_tones(folder: Path) -> None:
    """Two speakers say ten digits ten times: a pitch each, a third higher for the second."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    time = np.arange(2400) / 8000
    for speaker, third in (("ann", 1.0), ("bob", 1.26)):
        for digit in range(10):
            for take in range(10):
                tone = np.sin(2 * np.pi * 250 * 1.22**digit * third * time)
                noise = 0.02 * rng.standard_normal(len(time))
                pcm = (8000 * (tone + noise)).astype("<i2")
                with wave.open(str(folder / f"{digit}_{speaker}_{take}.wav"), "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(8000)
                    file.writeframes(pcm.tobytes())


def write_motions(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Eight recordings a side in the archive's text format; returns those to learn from."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for side in ("TEST", "TRAIN"):
        y = np.arange(8) % 4
        steps = np.arange(100)
        x = np.sin(steps * 0.1 * (y[:, None, None] + 1)) + 0.05 * rng.standard_normal((8, 6, 100))
        lines = [
            ":".join([*(",".join(f"{v:.6f}" for v in axis) for axis in sample), ACTIVITIES[label]])
            for sample, label in zip(x, y, strict=True)
        ]
        head = f"#A comment\n@problemName BasicMotions\n@classLabel true {' '.join(ACTIVITIES)}\n"
        (folder / f"BasicMotions_{side}.ts").write_text(head + "@data\n" + "\n".join(lines) + "\n")
    return x, y


def test_a_new_speaker(tmp_path: Path) -> None:
    pytest.importorskip("altair")
    write_tones(tmp_path / "recordings")
    output = tmp_path / "out"
    arguments = ("--data", tmp_path / "recordings", "--speaker", "bob", "--epochs", 1,
                 "--pretrain-epochs", 30, "--output", output)  # fmt: skip
    done = run(SPEAKER, *arguments)
    assert done.returncode == 0, done.stderr
    told = re.search(r"bob, 50 other takes: ([\d.]+)% before, ([\d.]+)% after", done.stdout)
    assert told and float(told[2]) > float(told[1]), done.stdout
    assert re.search(r"50 steps on the emulated board", done.stdout)
    assert (output / "firmware/speech.c").is_file() and (output / "report.html").is_file()
    assert (output / "without-bob-30-epochs.safetensors").is_file()
    nobody = run(SPEAKER, "--data", tmp_path / "recordings", "--speaker", "eve", "--output", output)
    assert nobody.returncode == 1 and "there are ann, bob" in nobody.stderr


def test_gestures(tmp_path: Path) -> None:
    pytest.importorskip("altair")
    write_motions(tmp_path / "motions")
    output = tmp_path / "out"
    done = run(MOTIONS, "--data", tmp_path / "motions", "--epochs", 8, "--output", output)
    assert done.returncode == 0, done.stderr
    before = re.search(r"8 other recordings: (\d+)% before", done.stdout)
    curve = re.search(r"after each epoch, %: (.*)", done.stdout)
    assert before and curve and len(curve[1].split()) == 8, done.stdout
    assert int(curve[1].split()[-1]) > int(before[1])
    assert (output / "motions.zip").is_file() and (output / "report.html").is_file()


@pytest.mark.parametrize(("script", "source"), [(SPEAKER, "github.com"), (MOTIONS, "timeseries")])
def test_missing_recordings_end_with_where_to_find_them(
    script: Path, source: str, tmp_path: Path
) -> None:
    done = run(script, "--output", tmp_path / "out", KILOGRAD_DATA=str(tmp_path / "none"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert str(tmp_path / "none") in done.stderr and source in done.stderr
    assert "--data" in done.stderr


def test_both_forms_of_the_motions_are_read_alike(tmp_path: Path) -> None:
    sys.path.append(str(MOTIONS.parent))
    from motions import read_archive, read_folder

    write_motions(tmp_path / "motions")
    sides = {}
    for side in ("train", "test"):
        text = (tmp_path / "motions" / f"BasicMotions_{side.upper()}.ts").read_text()
        rows = [line.split(":") for line in text.split("@data\n")[1].splitlines()]
        sides[f"x_{side}"] = np.array([[a.split(",") for a in row[:-1]] for row in rows],
                                      np.float32).transpose(0, 2, 1)  # fmt: skip
        sides[f"y_{side}"] = np.array([ACTIVITIES.index(row[-1]) for row in rows])
    np.savez(tmp_path / "motions.npz", **sides)
    for ours, theirs in zip(
        read_folder(tmp_path / "motions"), read_archive(tmp_path / "motions.npz"), strict=True
    ):
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(ours[1], theirs[1])
        assert ours[0].shape == (8, 6, 100) and ours[1].dtype == np.int64
