"""`kilograd.search`, `update="auto"` and `kilograd search`: what they find, write and refuse."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import kilograd as kg
from kilograd.cli import app
from kilograd.compiler import prepare
from kilograd.errors import InfeasibleError, InputError
from kilograd.search import trials
from kilograd.search.correction import correct
from kilograd.search.layers import layers_of
from kilograd.search.scheme import Scheme
from kilograd.search.search import find, with_ratios
from kilograd.search.table import Contributions, Gain
from kilograd.search.task import make_task
from kilograd.search.training import Training, trial
from kilograd.search.trials import best_rate
from tests.search.networks import CLASSES, FEATURES, bench, blobs, perceptron

DEVICE, SRAM = "stm32f746", "1500"
OPTIONS = {"device": DEVICE, "optimizer": kg.SGD(lr=0.05), "progress": False, "jobs": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    x, y = blobs()
    np.savez(folder / "data.npz", x=x, y=y)
    np.savez(folder / "unlabelled.npz", x=x)
    np.savez(folder / "one.npz", x=x, y=np.zeros(len(x), int))
    perceptron(folder / "net.onnx")
    return folder


@pytest.fixture(scope="module")
def found(place):
    return kg.search(
        place / "net.onnx",
        data=blobs(),
        budget=kg.Budget(sram=SRAM),
        method="quick",
        store=place / "store",
        front=3,
        **OPTIONS,
    )


def run(*arguments: object):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result


# What is found -----------------------------------------------------------------------------------


def test_the_program_of_the_scheme_is_as_large_as_it_says(place, found):
    program = kg.compile(
        place / "net.onnx",
        update=found.spec,
        device=DEVICE,
        optimizer=kg.SGD(lr=0.05),
        budget=kg.Budget(sram=SRAM),
    )
    assert program.memory.sram_bytes == found.best.sram_bytes <= int(SRAM)
    assert program.memory.flash_bytes == found.best.flash_bytes
    assert all(point.proven for point in found.front) and found.front[-1].weights


def test_the_gain_is_the_sum_of_contributions(found):
    total = found.contributions.bias_gain(found.best.biases)
    for pair in found.best.weights.items():
        total += found.contributions.weights[pair].mean
    assert found.best.gain == pytest.approx(total)


def test_the_scheme_is_the_best_of_the_front_when_trained(place, found):
    """Against trainings of the schemes and of the head at two rates, with the seeds of quick."""
    network = prepare(place / "net.onnx", optimizer=kg.SGD(lr=0.05))
    task = make_task(blobs(), shape=(FEATURES,), classes=CLASSES, samples=200, test_samples=200)

    def accuracies(spec, seeds=2):
        session = network.session(spec)
        return {
            lr: np.array([trial(session, task, Training(5, lr), s).accuracy for s in range(seeds)])
            for lr in (0.05 / 3, 0.05)
        }

    by_head = accuracies(found.layers.spec(0, {}), 16)
    lr = max(by_head, key=lambda lr: by_head[lr][:2].mean())
    head = by_head[lr]
    for point in found.points:
        by_rate = accuracies(found.spec_of(point), 16)
        means = {lr: row[:2].mean() for lr, row in by_rate.items()}
        assert point.realised is not None and means[point.lr] == max(means.values())
        runs = point.realised.runs
        over = by_rate[point.lr][:runs] - head[:runs]
        assert point.realised.mean == pytest.approx(over.mean())
        assert point.realised.spread == pytest.approx(over.std(ddof=1))
    contenders = [point for point in found.points if point.realised.runs == 16]
    assert len(contenders) == 2 and found.best in contenders
    assert found.best.realised.mean == max(point.realised.mean for point in contenders)
    runs = sorted(point.realised.runs for point in found.points)
    assert runs[-4:] == [8, 8, 16, 16] and set(runs[-8:-4]) == {4}
    assert found.answers == {int(SRAM): found.best}
    assert "# Trained, it gains " in found.scheme() and f"(lr {found.best.lr:g})" in found.scheme()


def test_the_front_rises_and_ends_at_the_scheme(found):
    sizes = [point.sram_bytes for point in found.front]
    gains = [point.gain for point in found.front]
    assert len(sizes) >= 2 and sizes == sorted(set(sizes)) and gains == sorted(set(gains))
    assert gains[0] >= 0


def test_files_are_an_update_and_the_same_table(place, found, tmp_path):
    scheme = found.save(tmp_path / "out")
    assert kg.update.unparse(kg.update.load(scheme)) == kg.update.unparse(found.spec)
    assert Contributions.load(tmp_path / "out" / "contributions.json") == found.contributions
    front = json.loads((tmp_path / "out" / "front.json").read_text())
    assert [row["sram_bytes"] for row in front] == [p.sram_bytes for p in found.points]
    assert {row["kind"] for row in front} == {point.kind for point in found.points}
    assert all(kg.update.parse(row["update"]) for row in front)
    assert found.files() == {p.name: p.read_text() for p in (tmp_path / "out").iterdir()}


def test_rounds_try_what_corrected_contributions_choose(place, found):
    """They train more schemes, and keep those ahead of all smaller ones."""
    options = {
        "data": blobs(), "budget": kg.Budget(sram=SRAM), "method": "quick", "front": 3,
        "store": place / "store", **OPTIONS,
    }  # fmt: skip
    before = kg.search(place / "net.onnx", rounds=0, **options)
    schemes = [point.scheme for point in found.front]
    assert before.refined == () and [point.scheme for point in before.front] == schemes
    runs = len(list((place / "store").glob("*/*.json")))
    more = kg.search(place / "net.onnx", rounds=6, **options)
    assert len(list((place / "store").glob("*/*.json"))) > runs
    assert [point.scheme for point in more.front] == schemes
    assert more.contributions == found.contributions
    assert more.best.realised.runs == 16
    for point in more.refined:
        assert point.kind == "refined" and point.sram_bytes <= int(SRAM) and not point.proven
        assert point.gain == pytest.approx(point.scheme.gain(found.contributions))
        smaller = [p for p in more.points if p.sram_bytes < point.sram_bytes]
        ahead = all(p.realised.mean < point.realised.mean for p in smaller)
        assert (ahead or point.realised.runs == 16) == (point in more.ahead)
    assert more.best in more.ahead and len(more.ahead) < len(more.points)


def test_what_gradients_foretell_of_whole_schemes_corrects(place, found, monkeypatch):
    """By one pass, at each rate of the trial."""
    seen = []

    def spied(table, realised, wholes):
        seen.append(wholes)
        return correct(table, realised, wholes)

    monkeypatch.setattr(trials, "correct", spied)
    options = {
        "data": blobs(), "budget": kg.Budget(sram=SRAM), "store": place / "store", "front": 1,
        "contributions": found.contributions, "rounds": 1, "epochs": 5, **OPTIONS,
    }  # fmt: skip
    kg.search(place / "net.onnx", **options)
    (wholes,) = seen
    assert [float(whole.rates.max()) for whole in wholes] == pytest.approx(
        [0.05 / 3, 0.05], rel=0.2
    )
    assert len({id(whole.kernel) for whole in wholes}) == 1 and wholes[0].kernel.finite


def test_a_network_of_nothing_but_its_head_has_one_scheme(tmp_path):
    model = torch.nn.Linear(FEATURES, CLASSES)
    options = {"data": blobs(), "budget": kg.Budget(sram=SRAM), "store": tmp_path / "store"}
    for method in ("fast", "quick"):
        found = kg.search(model, blobs()[0][:1], method=method, rounds=1, **options, **OPTIONS)
        assert found.best.scheme == Scheme(0) and found.best.realised.mean == 0


def test_what_gradients_foretell_is_trained_too(place, found):
    options = {"data": blobs(), "budget": kg.Budget(sram=SRAM), "store": place / "store", **OPTIONS}
    fast = kg.search(place / "net.onnx", method="fast", rounds=0, seeds=2, **options)
    assert fast.foretold == () and all(
        gain.runs == 0 for gain in fast.contributions.biases.values()
    )
    largest = max(fast.front, key=lambda point: point.gain)
    (tried,) = [point for point in found.points if point.scheme == largest.scheme]
    assert tried.realised and tried.kind in ("foretold", "found", "biases", "last layers")
    for point in found.foretold:
        assert point.told() == "chosen by foretold contributions" and not point.proven
        assert point.gain == pytest.approx(point.scheme.gain(found.contributions))


def test_a_table_of_few_ratios_is_all_there_is_to_choose_from(place, found):
    ratios = {Fraction(1, 8), Fraction(1)}
    few = {key: gain for key, gain in found.contributions.weights.items() if key[1] in ratios}
    table = replace(found.contributions, weights=few)
    options = {"data": blobs(), "budget": kg.Budget(sram=SRAM), "store": place / "store", **OPTIONS}
    chosen = kg.search(place / "net.onnx", contributions=table, rounds=1, front=1, **options)
    assert {r for p in chosen.points for r in p.weights.values()} <= ratios


def test_a_search_trains_in_int8_with_an_int8_head(place):
    options = {"data": blobs(), "store": place / "store", **OPTIONS} | {
        "precision": "int8", "calibration": blobs()[0], "head": "int8",
    }  # fmt: skip
    small = kg.search(
        place / "net.onnx", method="fast", front=1, budget=kg.Budget(sram="4KB"), **options
    )
    assert small.best.realised and small.best.sram_bytes <= 4096


def test_contributions_are_measured_at_a_rate_that_falls_from_the_start(place, found):
    """By four epochs the rate would rise in the first."""
    options = {
        "data": blobs(), "budget": kg.Budget(sram=SRAM), "store": place / "store", "epochs": 4,
        "method": "quick", "front": 1, "rounds": 0, **OPTIONS,
    }  # fmt: skip
    told = kg.search(place / "net.onnx", **options).contributions
    network = prepare(place / "net.onnx", optimizer=kg.SGD(lr=0.05))
    task = make_task(blobs(), shape=(FEATURES,), classes=CLASSES, samples=200, test_samples=200)
    session = network.session(layers_of(network.forward).spec(0, {}))
    by_rise = [
        [trial(session, task, Training(4, 0.05, rise), seed).accuracy for seed in range(2)]
        for rise in (0.0, 0.25)
    ]
    assert by_rise[0] != by_rise[1]
    assert told.head.mean == pytest.approx(np.mean(by_rise[0]))
    assert Training(4, 0.05).rate(0) < Training(4, 0.05, 0.0).rate(0)


def test_each_limit_that_is_asked_for_has_an_answer(place, found, tmp_path):
    """Of what was trained and fits, the best; as a file of its own."""
    least = found.front[0].sram_bytes
    middle = (least + int(SRAM)) // 2
    options = {"data": blobs(), "budget": kg.Budget(sram=SRAM), "store": place / "store", **OPTIONS}
    several = kg.search(place / "net.onnx", front=[middle, f"{least}B"], **options)
    assert several.answers.keys() == {least, middle, int(SRAM)}
    assert several.answers[int(SRAM)] is several.best
    for limit, answer in several.answers.items():
        judged = [p for p in several.points if p.sram_bytes <= limit and p.realised.runs == 16]
        assert answer in judged and answer.realised_mean == max(p.realised_mean for p in judged)
    gained = [answer.realised_mean for answer in several.answers.values()]
    assert list(several.answers) == sorted(several.answers) and gained == sorted(gained)
    assert not several.answers[least].weights and several.answers[middle].scheme != Scheme(0)
    by_hand = {point.kind for point in several.by_hand if point.sram_bytes <= middle}
    assert by_hand & {"biases", "last layers"}
    several.save(tmp_path)
    for limit in several.answers:
        spec = kg.update.load(tmp_path / f"scheme-{limit}.toml")
        assert kg.update.unparse(spec) == kg.update.unparse(several.spec_of(several.answers[limit]))
    rows = several.to_json()["answers"]
    assert [row["limit_bytes"] for row in rows] == list(several.answers)
    assert [row["biases"] for row in rows] == [p.biases for p in several.answers.values()]
    assert (
        f"# The best within {least:,} B of SRAM." in (tmp_path / f"scheme-{least}.toml").read_text()
    )
    (tmp_path / "scheme-mine.toml").touch()
    found.save(tmp_path)
    assert {path.name for path in tmp_path.glob("*.toml")} == {"scheme.toml", "scheme-mine.toml"}


def test_a_table_alone_answers_at_each_limit(place, found):
    options = {"budget": kg.Budget(sram=SRAM), "contributions": found.contributions, **OPTIONS}
    several = kg.search(place / "net.onnx", front=[1200, 1300], **options)
    for limit, answer in several.answers.items():
        assert answer in several.front and answer.sram_bytes <= limit
        fitting = [point.gain for point in several.front if point.sram_bytes <= limit]
        assert answer.gain == max(fitting)


@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        (10, InfeasibleError, r"head alone needs [\d,]+ bytes of SRAM, [\d,]+ more than 10;"),
        ("2KB", InputError, "2,048 bytes are more than the 1,500 of SRAM that there are"),
        ("big", InputError, "'big' is no size"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(place, tmp_path, limit, error, message):
    options = {"data": blobs(), "budget": kg.Budget(sram=SRAM), **OPTIONS, "store": tmp_path}
    with pytest.raises(error, match=message):
        kg.search(place / "net.onnx", front=[limit], **options)
    assert not list(tmp_path.iterdir())


def _killed(network, arguments, before: int, rng: random.Random) -> int:
    """Kill a search a moment after the store has some files more; how many it has then."""

    def files() -> int:
        return len(list(arguments["store"].glob("*/*.json")))

    child = multiprocessing.get_context("fork").Process(
        target=find, args=(network, blobs()), kwargs=arguments
    )
    child.start()
    wanted, deadline = before + rng.randrange(5), time.monotonic() + 60
    while files() < wanted and time.monotonic() < deadline:
        time.sleep(0.0005)
    time.sleep(rng.random() * 0.02)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL, "it is alive until it is killed"
    return files()


def test_a_search_that_is_killed_in_its_refinement_ends_as_the_uninterrupted_one(
    place, found, tmp_path
):
    """SIGKILL at random moments of front, rounds and trainings again."""
    network = prepare(place / "net.onnx", optimizer=kg.SGD(lr=0.05), budget=kg.Budget(sram=SRAM))
    arguments = {
        "contributions": found.contributions, "seeds": 2, "rounds": 2, "front": [1300],
        "jobs": 1, "progress": False, "store": tmp_path / "whole",
    }  # fmt: skip
    expected = find(network, blobs(), **arguments)
    files = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*/*.json")}
    arguments["store"] = tmp_path / "killed"
    rng, before = random.Random(0), 0
    for _ in range(20):
        before = _killed(network, arguments, before, rng)
    assert 0 < before < len(files) and expected.refined, "all of them were in the middle"
    resumed = find(network, blobs(), **arguments)
    assert resumed.files() == expected.files()
    survived = {path.name: path.read_bytes() for path in (tmp_path / "killed").glob("*/*.json")}
    assert survived == files


def test_the_same_search_gives_the_same_files(place, found):
    again = kg.search(
        place / "net.onnx",
        data=blobs(),
        budget=kg.Budget(sram=SRAM),
        method="quick",
        store=place / "store",
        front=3,
        **OPTIONS,
    )
    assert again.files() == found.files()


def test_auto_trains_what_the_search_finds(place, found):
    program = kg.compile(
        place / "net.onnx",
        device=DEVICE,
        budget=kg.Budget(sram=SRAM),
        optimizer=kg.SGD(lr=0.05),
        update="auto",
        data=blobs(),
        search={"store": place / "store", "front": 3, "jobs": 1, "progress": False},
    )
    assert kg.update.unparse(program.update) == kg.update.unparse(found.spec)


def test_a_table_serves_another_budget(place, found, tmp_path):
    """Without data, so nothing can be measured; a larger budget gains no less."""
    path = tmp_path / "contributions.json"
    found.contributions.save(path)
    arguments = {"budget": kg.Budget(sram="2KB"), "front": 1, **OPTIONS}
    larger = kg.search(place / "net.onnx", contributions=path, **arguments)
    assert int(SRAM) < larger.best.sram_bytes <= 2048
    assert larger.best.gain > found.front[-1].gain and not larger.orders
    assert larger.best.realised is None
    with_channels = kg.search(
        place / "net.onnx",
        contributions=found.contributions,
        data=blobs(),
        channels="best",
        store=place / "store",
        **arguments,
    )
    assert (
        replace(with_channels.front[-1], realised=None, lr=None) == larger.best
        and with_channels.orders
    )
    told = run(
        *("search", place / "net.onnx", "--contributions", path, "--sram", "2KB"),
        *("--device", DEVICE, "--lr", 0.05, "--front", 1, "-o", tmp_path / "out", "--json"),
    )
    assert json.loads(told.stdout)["scheme"] == json.loads(json.dumps(larger.best.to_json()))


def test_quick_fills_ratios_in_between():
    measured = {
        ("a", Fraction(1, 4)): Gain(0.1, 0.01, 2),
        ("a", Fraction(1)): Gain(0.4, 0.02, 2),
        ("b", Fraction(1, 2)): Gain(0.2, 0.0, 2),
    }
    table = Contributions("net", ("a", "b"), Gain(0.5), {0: Gain(0.0)}, measured, "quick")

    class Layers:
        paths = ("a", "b")

    filled = with_ratios(table, Layers()).weights
    assert filled["a", Fraction(1, 8)] == Gain(pytest.approx(0.05), 0.01, 0)
    assert filled["a", Fraction(1, 2)] == Gain(pytest.approx(0.2), 0.02, 0)
    assert filled["a", Fraction(1)] == measured["a", Fraction(1)]
    assert filled["b", Fraction(1, 4)].mean == pytest.approx(0.1)
    assert ("b", Fraction(1)) not in filled  # beyond what was measured


def test_the_best_of_several_rates_is_taken(tmp_path):
    _, layers, place = bench(tmp_path)
    rates = (1e-6, 0.05, 1e4)
    assert best_rate(place, layers, rates, 2).training.lr == 0.05


# The command line --------------------------------------------------------------------------------


def command(place, *more: object):
    return run(
        "search",
        place / "net.onnx",
        "--data",
        place / "data.npz",
        "--device",
        DEVICE,
        "--lr",
        0.05,
        "--store",
        place / "store",
        "--front",
        3,
        "--jobs",
        1,
        *more,
    )


def test_command_writes_what_update_takes(place, found, tmp_path):
    folder = tmp_path / "out"
    told = command(place, "--budget", SRAM, "--quick", "-o", folder)
    assert "trained: " in told.stdout and "contributions took" in told.stdout
    assert "<- the scheme" in told.stdout
    written = {path.name for path in folder.iterdir()}
    assert written == {
        *("scheme.toml", "contributions.json", "front.json"),
        *("contributions.svg", "front.svg"),
    }
    assert (folder / "scheme.toml").read_text() == found.scheme()
    assert "<svg" in (folder / "front.svg").read_text()
    run("compile", place / "net.onnx", "--update", folder / "scheme.toml", "-o", tmp_path / "fw")
    (folder / "kilograd.toml").write_text(
        f'model = "{place / "net.onnx"}"\nupdate = "scheme.toml"\n'
    )
    run("compile", "-c", folder / "kilograd.toml", "-o", tmp_path / "fw2")
    manifests = [json.loads((tmp_path / d / "manifest.json").read_text()) for d in ("fw", "fw2")]
    assert manifests[0]["trained"] == manifests[1]["trained"]


def test_command_tells_machines(place, found, tmp_path):
    told = command(place, "--sram", SRAM, "--quick", "-o", tmp_path / "out", "--json")
    content = json.loads(told.stdout)
    assert content["scheme"] == json.loads(json.dumps(found.best.to_json()))
    assert content["update"] == kg.update.unparse(found.spec)
    assert content["method"] == "quick" and content["scheme_file"].endswith("scheme.toml")


def test_command_answers_at_each_limit(place, found, tmp_path):
    least = found.front[0].sram_bytes
    told = command(
        place, "--sram", SRAM, "--method", "fast", "--front", f"{least},1400B", "-o", tmp_path
    )
    assert {path.name for path in tmp_path.glob("scheme-*.toml")} == {
        f"scheme-{limit}.toml" for limit in (least, 1400, SRAM)
    }
    marked = [line for line in told.stdout.splitlines() if "<- best within" in line]
    assert any(line.split("<- best within")[1].startswith(f" {least:,}") for line in marked)
    assert (
        sum("<- the scheme  <- best within" in line and "1,500 B" in line for line in marked) == 1
    )


def test_fast_measures_the_head_alone(place, tmp_path):
    told = command(place, "--sram", SRAM, "--method", "fast", "-o", tmp_path, "--json")
    content = json.loads(told.stdout)
    assert content["method"] == "fast" and content["contributions"]["head"]["runs"] == 1
    assert content["refined"] == []
    assert {row["runs"] for row in content["contributions"]["weights"]} == {0}
    assert 0 < content["scheme"]["sram_bytes"] <= int(SRAM)


# Refusals ----------------------------------------------------------------------------------------

CALLS = [
    ({"data": None}, "needs labelled samples"),
    ({"data": (blobs()[0], None)}, "no labels: a search measures accuracy"),
    ({"data": blobs()[0]}, "not a pair"),
    ({"data": (blobs()[0], np.zeros(60, int))}, "the task has one class: all 60 samples"),
    ({"data": (blobs()[0], blobs()[1] + 1)}, "y holds 1 to 3; the network has the classes 0 to 2"),
    ({"data": (blobs()[0][:, :5], blobs()[1])}, r"x has shape \[60, 5\]"),
    ({"data": (blobs()[0], blobs()[1][:9])}, r"y has shape \[9\]"),
    ({"data": (blobs()[0][:4], [0, 0, 1, 2])}, "class 1 has one sample"),
    ({"budget": None, "device": "host"}, "a search needs a limit"),
    ({"loss": "mse"}, "for classifiers"),
    ({"method": "slow"}, "there are measured, quick, fast"),
    ({"channels": "worst"}, "there are best, first"),
    ({"seeds": 0}, "one seed or more"),
    ({"epochs": 0}, "one epoch or more"),
    ({"rounds": -1}, "are 0 or more"),
    ({"samples": 1}, "two samples or more"),
    ({"front": 0}, "front=0: write how many SRAM limits, 1 to 100, or which"),
    ({"front": True}, "front=True: write how many"),
    ({"front": 65536}, "front=65536: write how many"),
    ({"front": 1300.0}, "front=1300.0: write how many"),
    ({"front": []}, "front is an empty list"),
    ({"front": "2KB"}, "front: 2,048 bytes are more than the 1,500 of SRAM"),
    ({"lr": 0.0}, "a learning rate above 0"),
    ({"lr": []}, "an empty list"),
]


@pytest.mark.parametrize(("arguments", "message"), CALLS, ids=[message for _, message in CALLS])
def test_refused(place, tmp_path, arguments, message):
    options = {"data": blobs(), "budget": kg.Budget(sram=SRAM), **OPTIONS, "store": tmp_path}
    with pytest.raises(InputError, match=message):
        kg.search(place / "net.onnx", **{**options, **arguments})
    assert not list(tmp_path.iterdir())


def test_a_budget_below_the_head_says_how_much_it_needs(place, tmp_path):
    network = prepare(place / "net.onnx", device=DEVICE)
    needed = network.program(layers_of(network.forward).spec(0, {})).memory.sram_bytes
    with pytest.raises(InfeasibleError) as caught:
        kg.search(
            place / "net.onnx",
            data=blobs(),
            budget=kg.Budget(sram=needed - 1),
            store=tmp_path,
            **OPTIONS,
        )
    assert f"(fc2) alone needs {needed:,} bytes of SRAM, 1 more than" in str(caught.value)
    assert not list(tmp_path.iterdir())
    least = kg.search(
        place / "net.onnx",
        data=blobs(),
        budget=kg.Budget(sram=needed),
        method="fast",
        store=tmp_path,
        front=1,
        **OPTIONS,
    )
    assert least.best.sram_bytes == needed and not least.best.weights


@pytest.mark.parametrize(
    ("file", "message"),
    [("unlabelled.npz", "no array 'y'"), ("one.npz", "the task has one class")],
)
def test_command_refuses(place, tmp_path, file, message):
    with pytest.raises(InputError, match=message):
        run(
            *("search", place / "net.onnx", "--data", place / file, "--device", DEVICE),
            *("-o", tmp_path / "out"),
        )
    assert not (tmp_path / "out").exists()


def test_command_replaces_nothing_unasked(place, tmp_path):
    (tmp_path / "precious.txt").touch()
    with pytest.raises(InputError, match="is not empty"):
        command(place, "-o", tmp_path)
    with pytest.raises(InputError, match="contradict each other"):
        command(place, "--quick", "--method", "fast", "-o", tmp_path / "out")
    with pytest.raises(InputError, match="--rates 'a'"):
        command(place, "--rates", "a", "-o", tmp_path / "out")


def test_data_without_auto_is_refused(place):
    with pytest.raises(InputError, match="are for update='auto'"):
        kg.compile(place / "net.onnx", update=kg.update.last(1), data=blobs())
    with pytest.raises(InputError, match="metod is no argument"):
        kg.compile(place / "net.onnx", update="auto", data=blobs(), search={"metod": "fast"})


def test_a_task_may_have_fewer_classes_than_the_network(place, tmp_path):
    x, y = blobs()
    kept = y < CLASSES - 1
    assert x.shape[1] == FEATURES
    _, layers, where = bench(tmp_path)
    task = replace(where.task, x=x[kept], y=y[kept])
    ((score,),) = replace(where, task=task).scores([layers.spec(0, {})], [0])
    assert 0 <= score.accuracy <= 1
