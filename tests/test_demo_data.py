"""The demo's pictures and the network that ships for them."""

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from kilograd import demo_data

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def data() -> demo_data.DemoData:
    return demo_data.load()


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(demo_data.model_path(), providers=["CPUExecutionProvider"])


def accuracy(session: onnxruntime.InferenceSession, x: np.ndarray, y: np.ndarray) -> float:
    answers = [
        int(np.argmax(session.run(["logits"], {"image": x[i : i + 1]})[0])) for i in range(len(x))
    ]
    return float(np.mean(np.array(answers) == y))


def test_shapes_types_and_balance(data: demo_data.DemoData) -> None:
    for x, y, count in (
        (data.pretrain_x, data.pretrain_y, 50),
        (data.train_x, data.train_y, 100),
        (data.test_x, data.test_y, 50),
        (data.upright_test_x, data.test_y, 50),
    ):
        assert x.shape == (count, 1, 25, 25) and x.dtype == np.float32
        assert y.shape == (count,) and y.dtype == np.int64
        assert x.min() >= -2 and x.max() <= 2
        assert np.array_equal(y, np.arange(count) % 2 == 0)


def test_no_picture_is_in_two_sets(data: demo_data.DemoData) -> None:
    # The camera's own inverse would lose digits: all sets are taken through it instead.
    brightness = {name: x * 0.25 + 0.5 for name, x in vars(data).items() if name.endswith("_x")}
    plain = {
        "pretrain": brightness["pretrain_x"],
        "test": brightness["upright_test_x"],
    }
    everything = demo_data._load_brightness().astype(np.float32)
    used: dict[str, set[int]] = {}
    for name, pictures in plain.items():
        distances = np.abs(pictures[:, None] - everything[None]).max(axis=(2, 3, 4))
        used[name] = set(distances.argmin(axis=1).tolist())
        assert distances.min(axis=1).max() < 1e-6
    seen = demo_data.camera(demo_data._load_brightness())
    distances = np.abs(brightness["train_x"][:, None] - seen[None]).max(axis=(2, 3, 4))
    used["train"] = set(distances.argmin(axis=1).tolist())
    assert distances.min(axis=1).max() < 1e-6
    assert sum(len(indices) for indices in used.values()) == 200
    assert len(set.union(*used.values())) == 200


def test_the_camera_turns_darkens_and_adds_noise() -> None:
    ramp = np.zeros((2, 1, 25, 25))
    ramp[:, :, :12] = 1.0
    seen = demo_data.camera(ramp)
    assert seen.dtype == np.float32
    assert seen[:, :, 13:].mean() == pytest.approx(0.37, abs=0.01)
    assert seen[:, :, :13].mean() == pytest.approx(0.02, abs=0.01)
    assert 0.015 < seen[0, 0, 13:].std() < 0.025
    assert np.array_equal(np.round(seen * 255), (seen * 255).round(4))
    assert np.array_equal(seen, demo_data.camera(ramp))


def test_the_detector_knows_upright_faces_and_is_lost_behind_the_camera(
    data: demo_data.DemoData, session: onnxruntime.InferenceSession
) -> None:
    assert accuracy(session, data.upright_test_x, data.test_y) >= 0.92
    assert 0.5 <= accuracy(session, data.test_x, data.test_y) <= 0.65


def test_the_file_is_small_complete_and_says_nothing_of_its_machine() -> None:
    path = demo_data.model_path()
    content = path.read_bytes()
    assert len(content) < 100_000
    for text in (b"/work", b"/home", b"site-packages", b'File "'):
        assert text not in content
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 13
    operators = {node.op_type for node in model.graph.node}
    assert operators == {"Conv", "Relu", "ReduceMean", "Reshape", "Gemm"}
    names = {tensor.name for tensor in model.graph.initializer}
    assert {"first_conv.0.weight", "blocks.3.pointwise.0.bias", "classifier.weight"} <= names


def test_the_zoo_has_the_architecture_of_the_file() -> None:
    torch = pytest.importorskip("torch")
    from kilograd import zoo

    model, example_input = zoo.create("face_detector")
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    stored = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(demo_data.model_path()).graph.initializer
    }
    for name, shape in shapes.items():
        if name in stored and name.endswith("weight"):
            assert list(stored[name].shape) == shape
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sum(name.endswith(".weight") for name in stored) == len(convolutions) + 1
    assert tuple(example_input.shape) == (1, 1, 25, 25)


def test_missing_scikit_image_is_an_input_error_with_a_hint() -> None:
    program = (
        "import sys; sys.modules['skimage'] = None; sys.modules['skimage.data'] = None\n"
        "from kilograd import demo_data\n"
        "from kilograd.errors import InputError\n"
        "assert demo_data.model_path().is_file()\n"
        "try:\n"
        "    demo_data.load()\n"
        "except InputError as error:\n"
        "    print(error)\n"
        "assert 'torch' not in sys.modules\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install kilograd[demo]" in result.stdout
