"""The report holds the figures, loads nothing, and refuses what it cannot show."""

from __future__ import annotations

import html
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.report.programs import full_mlp, sample, short_runs, sparse_lenet

import kilograd as kg
from kilograd import zoo
from kilograd.execution.session import History
from kilograd.planning.costs import Estimate, in_words, rounded, total, with_prefix

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from kilograd.report import render

pytestmark = pytest.mark.xdist_group("report")
LIMIT_BYTES = 3_000_000


@pytest.fixture(scope="module")
def page() -> str:
    return render(sparse_lenet(), runs=short_runs())


def charts(page: str) -> dict[str, dict]:
    found = re.findall(
        r'<script type="application/json" data-chart="([\w-]+)">(.*?)</script>', page, re.DOTALL
    )
    return {name: json.loads(text) for name, text in found}


def text_of(page: str) -> str:
    """What a reader sees: no scripts, no styles, no tags."""
    page = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def values(node: object) -> list[list[dict]]:
    """Every data set of a chart."""
    if isinstance(node, dict):
        inner = [found for child in node.values() for found in values(child)]
        own = node.get("values")
        return (
            [own, *inner] if isinstance(own, list) and own and isinstance(own[0], dict) else inner
        )
    if isinstance(node, list):
        return [found for child in node for found in values(child)]
    return []


@pytest.mark.parametrize("make", [sparse_lenet, full_mlp], ids=["lenet", "mlp"])
def test_the_figures_are_those_of_summary_and_manifest(make):
    program = make()
    page = render(program)
    text, told = text_of(page), program.figures
    manifest = json.loads(program.manifest())
    for key in ("sram_bytes", "flash_bytes", "arena_bytes", "stack_bytes"):
        assert f"{manifest['memory'][key]:,}" in text, key
    assert f"MACs of a prediction {manifest['macs']['predict']:,}" in text
    assert f"MACs of a training step {manifest['macs']['train_step']:,}" in text
    assert f"trained parameters {told.trained_parameters:,}" in text
    assert "Fits the device" in text
    assert re.sub(r"\s+", " ", told.command) in text
    for word in (told.identity.graph_sha256, told.identity.weights_sha256, told.kilograd):
        assert word in text
    assert f"0x{manifest['checkpoint_id']:08x}" in text
    for parameter in told.parameters:
        assert f"{parameter.name} {parameter.type}" in text
    for layer in told.layers:
        assert layer.name in text


def test_charts_hold_the_schedule(page):
    program, specs = sparse_lenet(), charts(page)
    boxes = {row["name"]: row for row in max(values(specs["memory-map"]), key=len)}
    assert set(boxes) == {buffer.name for buffer in program.train.lifetimes.buffers}
    for buffer in program.train.lifetimes.buffers:
        row = boxes[buffer.name]
        assert row["bottom"] == program.train.offsets[buffer.name]
        assert row["top"] - row["bottom"] == row["bytes"] == buffer.size_bytes
        assert row["first"] == buffer.first and row["last"] >= min(
            buffer.last, len(program.train.graph.nodes)
        )
    assert boxes["relu"]["keeper"] == "node 27, relu_grad of backward of features.1 (lenet.py:51)"
    work = max(values(specs["layer-work"]), key=len)
    assert sum(row["work"] for row in work) == program.figures.train_step.instructions
    uses = max(values(specs["memory-uses"]), key=len)
    assert sum(r["bytes"] for r in uses if r["memory"] == "SRAM") == program.memory.sram_bytes
    assert sum(r["bytes"] for r in uses if r["memory"] == "flash") == program.memory.flash_bytes


def test_curves_are_those_of_the_runs(page):
    specs, runs = charts(page), short_runs()
    points = max(values(specs["losses"]), key=len)
    for name, history in runs.items():
        assert [p["loss"] for p in points if p["run"] == name] == history.losses
    marks = max(values(specs["validation"]), key=len)
    assert [m["value"] for m in marks if m["run"] == "rate 0.005"] == (
        runs["rate 0.005"].validation_accuracies
    )


@pytest.mark.parametrize("make", [sparse_lenet, full_mlp], ids=["lenet", "mlp"])
def test_estimates_are_those_of_summary_and_manifest(make):
    program = make()
    text, told = text_of(render(program)), program.figures
    told_of_step = json.loads(program.manifest())["estimates"]["train_step"]
    instructions, seconds, joules = in_words(Estimate(**told_of_step))[6:].rsplit(", ", 2)
    assert f"about {instructions}, {seconds}, {joules}" in program.summary()
    assert f"about {instructions.split()[0]} about {seconds}, about {joules}" in text
    for sentence in told.estimates:
        assert f"estimate: {sentence}" in program.summary()
        assert f"Estimate: {sentence}." in text
    for layer in told.layers:
        own = total(told.steps[i].estimate for nodes in layer.nodes.values() for i in nodes)
        times = f"{with_prefix(own.seconds, 's')} {with_prefix(own.joules, 'J')}"
        row = f"{rounded(own.instructions):,} {times}"
        assert row in text, layer.name
        explained = program.explain("layer", layer.name).layers[0]
        assert explained.estimate == own and in_words(own) in str(explained)


def test_a_processor_without_counts_has_time_and_energy_alone():
    model, example = zoo.create("mlp")
    program = kg.compile(model, example, device="rpi4")
    text, told = text_of(render(program)), program.figures
    assert told.train_step.instructions is None
    assert "Compiled for rpi4" in text and "this computer" not in text.split("Memory during")[1]
    seconds, joules = in_words(told.train_step)[6:].split(", ")
    assert f"a training step about {seconds} about {joules}" in text
    assert "MACs backward time energy of the step" in text
    work = max(values(charts(render(program))["layer-work"]), key=len)
    assert sum(row["work"] for row in work) == program.macs.train_step


def test_no_estimate_is_made_up():
    model, example = zoo.create("mlp")
    program = kg.compile(model, example)
    assert "about" not in program.summary() and not program.figures.estimates
    assert "Estimate:" not in text_of(render(program))
    assert "estimate" not in str(program.explain("layer", "*"))
    assert json.loads(program.manifest())["estimates"] == {
        name: {"instructions": None, "seconds": None, "joules": None}
        for name in ("predict", "train_step")
    } | {"quality": []}


def test_confusions_are_those_of_the_last_validation(page):
    specs, runs = charts(page), short_runs()
    for index, history in enumerate(runs.values()):
        assert sum(map(sum, history.confusion)) == 12, "every validation sample"
        cells = max(values(specs[f"confusion-{index}"]), key=len)
        assert [cell["count"] for cell in cells] == [n for row in history.confusion for n in row]
        assert all(cell["text"] == (str(cell["count"]) if cell["count"] else "") for cell in cells)
    assert "What was taken for what" in text_of(page)
    plain = {"plain": History(losses=[1.0, 0.5])}
    assert "What was taken for what" not in text_of(render(full_mlp(), runs=plain))
    many = {"many": History(losses=[1.0], confusion=[[1] * 25] * 25)}
    assert "confusion-0" not in charts(render(full_mlp(), runs=many))


def test_instructions_replace_macs_where_a_sample_is_given():
    pytest.importorskip("unicorn")
    program = full_mlp()
    x, y = sample("mlp")
    page = render(program, sample=(x, y))
    total = sum(program.instructions_by_node(x, y))
    assert f"instructions of a training step {total:,}" in text_of(page)
    assert sum(r["work"] for r in max(values(charts(page)["timeline"]), key=len)) == total


def test_it_loads_nothing_and_is_small(page):
    assert len(page.encode()) < LIMIT_BYTES
    assert not re.search(r"<script[^>]+src=", page)
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"<(?:link|img|iframe|object|embed|audio|video)\b(?![^>]*data:)", markup)
    assert "http:" not in markup and "https:" not in markup
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    assert "default-src 'none'" in page


def test_it_is_the_same_text_every_time(page):
    assert render(sparse_lenet(), runs=short_runs()) == page


def test_a_deep_network_stays_small():
    model, example = zoo.create("mbv2_w035", resolution=32, num_classes=10)
    page = render(kg.compile(model, example))
    assert len(page.encode()) < LIMIT_BYTES / 2
    assert "Compiled for this computer" in page


def test_what_does_not_fit_is_said_at_the_top():
    program = sparse_lenet()
    tight = replace(program, budget=kg.Budget(sram=program.memory.sram_bytes - 10))
    text = text_of(render(tight))
    assert "Does not fit 10 bytes too many for the SRAM." in text


def test_names_of_the_user_are_text_not_html(page):
    program = replace(sparse_lenet(), model="<b>&model", notes=("</script><script>alert(1)",))
    made = render(program)
    assert "<b>&model" not in made and "&lt;b&gt;&amp;model" in made
    assert "<script>alert(1)" not in made


def test_writing_is_whole_or_not_at_all(tmp_path: Path):
    program = full_mlp()
    assert program.report(tmp_path / "sub" / "report.html").read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["report.html"]
    with pytest.raises(kg.InputError, match="cannot write the report"):
        program.report(tmp_path / "sub")
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["report.html"]


def test_runs_without_classes_show_their_validation_loss():
    run = History(losses=[3.0, 2.0], validation_losses=[2.5, 1.5, 1.25])
    page = render(full_mlp(), runs=run)
    assert [row["value"] for row in max(values(charts(page)["validation"]), key=len)] == [
        2.5,
        1.5,
        1.25,
    ]
    assert "run 2 3.0000 2.0000 1.2500" in text_of(page)


def test_curves_have_to_be_finite():
    with pytest.raises(kg.InputError, match="first has numbers that are not finite"):
        render(full_mlp(), runs={"first": History(losses=[1.0, float("nan")])})


def test_runs_have_to_be_histories():
    with pytest.raises(kg.InputError, match=r"run is float; pass what Session\.fit returns"):
        render(full_mlp(), runs=[0.5])  # type: ignore[list-item]


@pytest.mark.parametrize("module", ["altair", "vl_convert"])
def test_a_missing_library_is_named_with_what_installs_it(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(kg.InputError, match=r"pip install 'kilograd\[report\]'"):
        render(full_mlp())
