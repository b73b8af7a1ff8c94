"""The demo's scripts: exact deterministic export, and fine-tuning recovers what the camera lost."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest

from kilograd import demo_data

torch = pytest.importorskip("torch")
pytest.importorskip("skimage")

FOLDER = Path(__file__).parents[2] / "examples" / "face_detector"


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"face_detector_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_module_read_from_the_file_computes_what_the_file_does() -> None:
    script = load_script("finetune_torch")
    data = demo_data.load()
    session = onnxruntime.InferenceSession(
        demo_data.model_path(), providers=["CPUExecutionProvider"]
    )
    model = script.load_model()
    for i in range(5):
        x = data.test_x[i : i + 1]
        with torch.no_grad():
            logits = model(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(
            logits, session.run(["logits"], {"image": x})[0], rtol=1e-4, atol=1e-4
        )


@pytest.mark.slow
def test_fine_tuning_recovers_the_upright_accuracy() -> None:
    script = load_script("finetune_torch")
    data = demo_data.load()
    model = script.load_model()
    upright = script.accuracy(model, data.upright_test_x, data.test_y)
    before = script.accuracy(model, data.test_x, data.test_y)
    after = [script.finetune(model, data, ("",), 0.003, 3, seed)[-1] for seed in range(3)]
    assert before < 0.7
    assert np.mean(after) > upright - 0.05
    # The start is left as it was.
    assert script.accuracy(model, data.test_x, data.test_y) == before


def test_export_is_deterministic_and_exact(tmp_path: Path) -> None:
    script = load_script("train")
    from kilograd import zoo

    model, _ = zoo.create("face_detector", seed=5)
    paths = [tmp_path / f"{i}.onnx" for i in range(2)]
    for path in paths:
        script.export(model, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    x = np.random.default_rng(0).standard_normal((1, 1, 25, 25)).astype(np.float32)
    session = onnxruntime.InferenceSession(paths[0], providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(
        session.run(["logits"], {"image": x})[0], expected, rtol=1e-4, atol=1e-5
    )


def test_batches_hold_augmented_faces_and_others() -> None:
    script = load_script("train")
    brightness = demo_data.load().pretrain_x[:, 0] * 0.25 + 0.5
    draw = [
        script.draw_batch(
            np.random.default_rng(seed), brightness[::2], brightness[1::2], [np.ones((30, 40))]
        )
        for seed in (0, 0, 1)
    ]
    x, y = draw[0]
    assert tuple(x.shape) == (48, 1, 25, 25) and x.dtype == torch.float32
    assert 12 < int(y.sum()) < 36
    assert torch.equal(x, draw[1][0]) and not torch.equal(x, draw[2][0])
