"""Measurements: what they are, and that none is lost, run twice or half written."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from kilograd.compiler import Prepared
from kilograd.search import measure as measure_module
from kilograd.search import store as store_module
from kilograd.search.measure import Plan, measure
from kilograd.search.store import Score, Store, key_of
from kilograd.search.training import Training, trial
from kilograd.update import channels, full, normalise
from tests.search.networks import bench, task

QUARTER, WHOLE = Fraction(1, 4), Fraction(1)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("*/*.json")}


def no_builds(monkeypatch) -> list[object]:
    """Every session that is built from here on."""
    built: list[object] = []
    session = Prepared.session

    def counted(self, update, judge="c"):
        built.append(update)
        return session(self, update, judge)

    monkeypatch.setattr(Prepared, "session", counted)
    return built


def test_gains_are_differences_of_trained_programs(tmp_path):
    """Against trainings of programs compiled by hand."""
    network, layers, place = bench(tmp_path)
    assert layers.paths == ("fc0", "fc1") and layers.head.path == "fc2"
    found = measure(place, layers, Plan((0, 1, 2), (("fc1", QUARTER),), (0, 1)), name="net")

    def accuracy(update, seed):
        return trial(network.session(normalise(update)), place.task, place.training, seed).accuracy

    head = {"fc2.*": full()}
    biases = {"fc1.bias": full(), **head}
    part = {"fc1.weight": channels(0.25), **biases}
    by_hand = np.array([[accuracy(u, seed) for seed in (0, 1)] for u in (head, biases, part)])
    assert found.head.mean == pytest.approx(by_hand[0].mean())
    assert found.head.spread == pytest.approx(by_hand[0].std(ddof=1))
    assert found.biases[1].mean == pytest.approx((by_hand[1] - by_hand[0]).mean())
    gained = found.weights["fc1", QUARTER]
    assert gained.mean == pytest.approx((by_hand[2] - by_hand[1]).mean())
    assert gained.spread == pytest.approx((by_hand[2] - by_hand[1]).std(ddof=1))
    assert gained.runs == 2


def test_what_is_in_the_store_is_not_run_again(tmp_path, monkeypatch):
    _, layers, place = bench(tmp_path)
    plan = Plan.full(layers, 2)
    first = measure(place, layers, plan, name="net")
    built = no_builds(monkeypatch)
    assert measure(place, layers, plan, name="net") == first
    assert not built
    more = replace(plan, seeds=(0, 1, 2))
    measure(place, layers, more, name="net")
    assert built  # only the third seed, in one build for each scheme
    assert len(contents(tmp_path / "store")) == 3 * len(built)


@pytest.mark.parametrize("changed", ["weights", "data", "rate", "epochs", "loss", "optimizer"])
def test_another_input_is_another_measurement(tmp_path, monkeypatch, changed):
    network, layers, place = bench(tmp_path)
    specs = [layers.spec(0, {})]
    place.scores(specs, [0])
    if changed == "weights":
        constants = dict(network.forward.constants)
        value, tensor = next(iter(constants.items()))
        constants[value] = replace(tensor, array=tensor.array + np.float32(0.25))
        other = replace(network, forward=replace(network.forward, constants=constants))
        place = replace(place, network=other.inputs)
    elif changed == "data":
        place.task.x[0] += 1
    elif changed in ("rate", "epochs"):
        other = Training(3, 0.05) if changed == "epochs" else Training(2, 0.04)
        place = replace(place, training=other)
    elif changed == "optimizer":
        momentum = replace(network.optimizer, momentum=0.5)
        place = replace(place, network=replace(network, optimizer=momentum).inputs)
    else:
        place = replace(place, network={**network.inputs, "loss": "mse"})
    built = no_builds(monkeypatch)
    place.scores(specs, [0])
    assert len(built) == 1


def test_another_program_text_is_another_measurement(tmp_path, monkeypatch):
    _, layers, place = bench(tmp_path)
    place.scores([layers.spec(0, {})], [0])
    monkeypatch.setattr(measure_module, "program_text", lambda: "of another version")
    built = no_builds(monkeypatch)
    place.scores([layers.spec(0, {})], [0])
    assert len(built) == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "edited", "foreign"])
def test_a_damaged_file_is_measured_anew(tmp_path, damage):
    _, layers, place = bench(tmp_path)
    spec = [layers.spec(1, {})]
    expected = place.scores(spec, [0])
    (path,) = (tmp_path / "store").glob("*/*.json")
    whole = path.read_bytes()
    if damage == "edited":
        content = json.loads(whole)
        content["score"]["accuracy"] = 0.987
        path.write_text(json.dumps(content))
    else:
        path.write_bytes({"cut": whole[:100], "empty": b"", "foreign": b'{"a": 1}\n'}[damage])
    assert place.scores(spec, [0]) == expected
    assert path.read_bytes() == whole


def test_a_crash_before_the_rename_leaves_no_measurement(tmp_path, monkeypatch):
    place = Store(tmp_path)
    inputs = {"seed": 1}

    def crash(*arguments):
        os._exit(9)

    child = os.fork()
    if child == 0:
        store_module.os.replace = crash
        place.put(inputs, Score(0.5, 1.0))
    os.waitpid(child, 0)
    (partial,) = tmp_path.glob("*/*")
    assert partial.name.endswith(".partial")
    assert place.get(key_of(inputs)) is None
    place.clean()
    assert partial.exists()  # it may be in use
    os.utime(partial, (0, 0))
    place.clean()
    assert not partial.exists()


def _search(folder: str, place) -> None:
    _, layers, _ = place
    measure(place[2], layers, Plan.full(layers, 8), name="net")


def test_twenty_kills_lose_nothing(tmp_path):
    """SIGKILL at random moments: what is on disk stays whole, and the end is the same."""
    reference = bench(tmp_path)
    expected = measure(reference[2], reference[1], Plan.full(reference[1], 8), name="net")
    whole = contents(tmp_path / "store")
    directory = tmp_path / "killed"
    network, layers, place = reference
    place = replace(place, store=Store(directory))
    rng = random.Random(0)
    fork = multiprocessing.get_context("fork")
    before = 0
    for _ in range(20):
        child = fork.Process(target=_search, args=("", (network, layers, place)))
        child.start()
        assert child.pid is not None
        wanted = before + rng.randrange(4)
        while child.is_alive() and len(list(directory.glob("*/*.json"))) < wanted:
            time.sleep(0.0005)
        time.sleep(rng.random() * 0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        survived = contents(directory)
        assert all(whole[name] == data for name, data in survived.items())
        assert len(survived) >= before
        before = len(survived)
    assert 0 < before < len(whole)
    resumed = measure(place, layers, Plan.full(layers, 8), name="net")
    assert resumed == expected
    assert contents(directory) == whole


def test_ratios_that_train_the_same_channels_share_a_measurement(tmp_path, monkeypatch):
    """A 16th and an 8th of 12 channels are one and two; a 12th is one, too."""
    _, layers, place = bench(tmp_path)
    built = no_builds(monkeypatch)
    ratios = (Fraction(1, 16), Fraction(1, 12), Fraction(1, 8))
    plan = Plan((1,), tuple(("fc1", ratio) for ratio in ratios), (0, 1))
    found = measure(place, layers, plan, name="net")
    assert len(built) == 2 + 2  # k = 0 and 1, one and two channels
    assert found.weights["fc1", ratios[0]] == found.weights["fc1", ratios[1]]


def test_seeds_draw_and_classes_stay_in_proportion():
    drawn = [task(samples=12, test_samples=9).draw(seed) for seed in (0, 0, 1)]
    for (x, y), (_, judged) in drawn:
        assert len(x) == 12 and np.bincount(y).tolist() == [4, 4, 4]
        assert np.bincount(judged).tolist() == [3, 3, 3]
    np.testing.assert_array_equal(drawn[0][0][0], drawn[1][0][0])
    assert not np.array_equal(drawn[0][0][0], drawn[2][0][0])
    learned, judged = ({row.tobytes() for row in split[0]} for split in drawn[0])
    assert not learned & judged


def test_a_diverged_run_is_a_measurement(tmp_path):
    _, layers, place = bench(tmp_path, training=Training(2, 1e20))
    ((score,),) = place.scores([layers.spec(2, {"fc0": WHOLE})], [0])
    assert score.diverged and 0 <= score.accuracy <= 1
