"""Programs that must fail, one per message: what, where, the numbers, and a way out."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import kilograd as kg

X = torch.zeros(1, 4)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def refuse(error: type[Exception], message: str, *arguments, **options):
    with pytest.raises(error, match=message):
        kg.compile(*arguments, **options)


def test_every_unsupported_operator_is_named_at_once():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x).real + torch.linalg.svdvals(x @ x.T)

    with pytest.raises(kg.UnsupportedError) as caught:
        kg.compile(Odd(), torch.ones(1, 4))
    text = str(caught.value)
    assert "fft" in text and "svd" in text and "test_messages.py" in text


def test_data_dependent_shape():
    class Dependent(nn.Module):
        def forward(self, x):
            return x[x > 0].sum().reshape(1, 1)

    refuse((kg.UnsupportedError, kg.InputError), "data|nonzero|index|shape", Dependent(), X)


def test_example_input_of_another_shape():
    exported = torch.export.export(mlp().eval(), (X,))
    refuse(kg.InputError, r"\[1, 5\].*\[1, 4\]|\[1, 4\].*\[1, 5\]", exported, torch.zeros(1, 5))


def test_nan_in_the_weights():
    model = mlp()
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    refuse(kg.InputError, r"0\.weight.*1", model, X)


def test_pattern_that_matches_nothing():
    refuse(
        kg.InputError, r"'2\.wieght' matches none.*2\.weight", mlp(), X,
        update={"2.wieght": kg.update.full()},
    )  # fmt: skip


def test_nothing_to_train():
    refuse(kg.InputError, "nothing to train", mlp(), X, update=kg.update.last(0))


def test_unknown_device():
    refuse(kg.InputError, "stm32f746", mlp(), X, device="stm32f7")


def test_unknown_loss_and_precision():
    refuse(kg.InputError, "cross_entropy, mse", mlp(), X, loss="hinge")
    refuse(kg.InputError, "float32", mlp(), X, precision="int3")


def test_missing_and_corrupt_files(tmp_path):
    refuse(kg.InputError, r"none\.onnx", tmp_path / "none.onnx")
    for name in ("broken.onnx", "broken.pt2"):
        (tmp_path / name).write_bytes(b"not a model")
        refuse(kg.InputError, name.replace(".", r"\."), tmp_path / name)


def test_label_out_of_range():
    session = kg.compile(mlp(), X).on_host()
    before = session.raw_state()
    with pytest.raises(kg.InputError, match=r"label 3 is out of range.*0 to 2"):
        session.train_step(X.numpy(), 3)
    assert all(np.array_equal(before[k], v) for k, v in session.raw_state().items())


def test_wrong_sample_shape():
    session = kg.compile(mlp(), X).on_host()
    with pytest.raises(kg.InputError, match=r"\[4\].*\[1, 5\]"):
        session.predict(np.zeros((1, 5)))


def names(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_directory_that_is_not_empty(tmp_path):
    program = kg.compile(mlp(), X)
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(kg.InputError, match=r"not empty.*--force"):
        program.save(tmp_path)
    with pytest.raises(kg.InputError, match=r"did not write.*manifest\.json"):
        program.save(tmp_path, force=True)
    assert names(tmp_path) == ["precious.txt"]


def test_force_replaces_a_project_as_a_whole(tmp_path):
    target = tmp_path / "a" / "firmware"
    kg.compile(mlp(), X, name="old").save(target)
    with pytest.raises(kg.InputError, match="not empty"):
        kg.compile(mlp(), X).save(target)
    kg.compile(mlp(), X, name="fresh").save(target, force=True)
    assert "fresh.c" in names(target) and "old.c" not in names(target)
    assert names(tmp_path / "a") == ["firmware"]


def test_the_current_directory_is_not_replaced(tmp_path, monkeypatch):
    program = kg.compile(mlp(), X)
    program.save(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    before = names(tmp_path / "project")
    for path in (".", "..", tmp_path):
        with pytest.raises(kg.InputError, match="current"):
            program.save(path, force=True)
    assert names(tmp_path / "project") == before and names(tmp_path) == ["project"]


def test_links_and_places_that_cannot_be_written(tmp_path):
    program = kg.compile(mlp(), X)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "there")
    for name in ("link", "dangling"):
        program.save(tmp_path / name)
        assert (tmp_path / name).is_symlink() and "main.c" in names(tmp_path / name)
    (tmp_path / "file").write_text("keep me")
    for path, message in (("file", "is a file"), ("file/sub", "cannot write the C project")):
        with pytest.raises(kg.InputError, match=message):
            program.save(tmp_path / path)
    assert (tmp_path / "file").read_text() == "keep me"


def test_model_too_large_says_what_and_what_helps():
    wide = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    refuse(
        kg.InfeasibleError,
        r"(?s)bytes of SRAM of nrf52840: as it is it needs.*0_weight.*What would lower it",
        wide, torch.zeros(1, 512), device="nrf52840",
    )  # fmt: skip


def test_a_device_one_byte_too_small():
    fits = kg.compile(mlp(), X, device="cortex-m7-256k")
    needed = fits.memory.sram_bytes
    kg.compile(mlp(), X, device="cortex-m7-256k", budget=kg.Budget(sram=needed))
    unplanned = kg.Planning(recompute=False, page=False)
    refuse(
        kg.InfeasibleError, rf"{needed:,}.*{needed - 1:,}", mlp(), X,
        device="cortex-m7-256k", budget=kg.Budget(sram=needed - 1), planning=unplanned,
    )  # fmt: skip
    flash = fits.memory.flash_bytes
    refuse(
        kg.InfeasibleError, "flash", mlp(), X,
        device="cortex-m7-256k", budget=kg.Budget(flash=flash - 1), planning=unplanned,
    )  # fmt: skip


@pytest.mark.parametrize("bad", ["12 parsecs", "-3", "kb"])
def test_bad_sizes(bad):
    refuse(kg.InputError, "is no size", mlp(), X, budget=kg.Budget(sram=bad))


@pytest.mark.parametrize("where", ["on_host", "on_emulator"])
@pytest.mark.parametrize("atomic", [True, False])
def test_nan_in_training_keeps_the_weights(where, atomic):
    program = kg.compile(mlp(), X, device="stm32f746", optimizer=kg.SGD(lr=0.1, atomic=atomic))
    session = getattr(program, where)()
    before = session.raw_state()
    with pytest.raises(kg.NonFiniteError, match="before the step"):
        session.train_step(np.full((1, 4), np.nan), 0)
    with pytest.raises(kg.NonFiniteError, match="before the step"):
        session.train_step(np.full((1, 4), 1e30), 0, lr=1e20)
    assert all(np.array_equal(before[k], v) for k, v in session.raw_state().items())
    assert np.isfinite(session.train_step(np.ones((1, 4)), 0))


def test_corrupt_and_foreign_checkpoints_change_nothing(tmp_path):
    session = kg.compile(mlp(), X, device="stm32f746").on_emulator()
    session.train_step(np.ones((1, 4)), 1, lr=0.1)
    before = session.raw_state()
    path = tmp_path / "good.kgcp"
    session.save(path)
    good = path.read_bytes()
    other = kg.compile(nn.Linear(4, 3), X).on_host()
    other.save(tmp_path / "foreign.kgcp")
    bad = [good[:-1], good + b"\0", b"", (tmp_path / "foreign.kgcp").read_bytes()]
    bad += [
        good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :] for i in (0, 5, 9, 13, 20, len(good) - 1)
    ]
    for data in bad:
        (tmp_path / "bad.kgcp").write_bytes(data)
        with pytest.raises(kg.InputError, match=r"bad\.kgcp is corrupt"):
            session.load(tmp_path / "bad.kgcp")
    assert all(np.array_equal(before[k], v) for k, v in session.raw_state().items())
    session.train_step(np.ones((1, 4)), 1, lr=0.1)
    session.load(path)
    assert all(np.array_equal(before[k], v) for k, v in session.raw_state().items())
    with pytest.raises(kg.InputError, match="there is no checkpoint"):
        session.load(tmp_path / "none.kgcp")


def test_a_checkpoint_of_other_frozen_weights(tmp_path):
    spec = kg.update.last(1)
    kg.compile(mlp(), X, update=spec).on_host().save(tmp_path / "head.kgcp")
    kg.compile(mlp(), X, update=spec).on_host().load(tmp_path / "head.kgcp")
    model = mlp()
    with torch.no_grad():
        model[0].bias += 1
    with pytest.raises(kg.InputError, match="another network"):
        kg.compile(model, X, update=spec).on_host().load(tmp_path / "head.kgcp")


def test_parameters_that_cannot_be_trained_are_named():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    assert "note: 0.parametrizations.weight" in kg.compile(model, X).summary()


def run_without(module: str, code: str, directory) -> str:
    """The InputError that the code prints in a fresh process without the module."""
    script = (
        f"import sys; sys.modules['{module}'] = None\n"
        f"import kilograd\ntry:\n    exec({code!r})\n"
        "except kilograd.InputError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=directory
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_missing_extras_name_the_command(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"x")
    text = run_without("torch", "from kilograd import zoo; zoo.create('mlp')", tmp_path)
    assert "pip install" in text and "torch" in text
    text = run_without("onnx", "kilograd.compile('m.onnx')", tmp_path)
    assert "pip install" in text and "onnx" in text
    code = (
        "import torch; kilograd.compile(torch.nn.Linear(4, 3), torch.zeros(1, 4), "
        "device='stm32f746').on_emulator()"
    )
    assert "kilograd[emulator]" in run_without("unicorn", code, tmp_path)
