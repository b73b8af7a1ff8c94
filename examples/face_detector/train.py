"""Train the demo's face detector on upright pictures and write it as ONNX.

    python examples/face_detector/train.py [--output src/kilograd/zoo/face_detector.onnx]

Needs torch, onnx, onnxscript and scikit-image; takes about ten seconds on one core. The 50
pretraining pictures are few, so every batch is augmented, and most of what is no face is hard:
textures from scikit-image's pictures, and faces cut up and put together wrongly, which teach the
network how a face is arranged. The same machine and versions write the same bytes at every run.
"""

import argparse
import ast
from pathlib import Path

import numpy as np
import onnx
import skimage.data
import torch
from skimage.transform import rescale
from torch.nn import functional

from kilograd import demo_data
from kilograd.zoo import FaceDetector

SEED = 0
STEPS = 400
BATCH = 48
SIZE = 25
TEXTURES = (
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "moon",
    "page",
    "text",
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the demo's face detector.")
    parser.add_argument("--output", type=Path, default=demo_data.model_path())
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = demo_data.load()
    model = train(data)
    print(f"upright test accuracy {accuracy(model, data.upright_test_x, data.test_y):.3f}")
    print(f"camera test accuracy  {accuracy(model, data.test_x, data.test_y):.3f}")
    export(model, arguments.output)
    print(f"wrote {arguments.output}: {arguments.output.stat().st_size} bytes")


def train(data: demo_data.DemoData) -> FaceDetector:
    """Fit the network to `data.pretrain_x`, augmented; returned in evaluation mode."""
    torch.manual_seed(SEED)
    generator = np.random.default_rng(SEED)
    model = FaceDetector()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=STEPS)
    brightness = data.pretrain_x[:, 0] * 0.25 + 0.5
    faces, others = brightness[data.pretrain_y == 1], brightness[data.pretrain_y == 0]
    textures = load_textures()
    for _ in range(STEPS):
        x, y = draw_batch(generator, faces, others, textures)
        loss = functional.cross_entropy(model(x), y, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def draw_batch(
    generator: np.random.Generator,
    faces: np.ndarray,
    others: np.ndarray,
    textures: list[np.ndarray],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half faces; of the rest half cut-up faces, a quarter textures, a quarter the data set's."""
    pictures, labels = [], []
    for _ in range(BATCH):
        is_face = generator.random() < 0.5
        kind = generator.random()
        if is_face:
            picture = pick(generator, faces)
        elif kind < 0.25:
            picture = misplace(generator, pick(generator, faces))
        elif kind < 0.5:
            picture = shuffle_quarters(generator, pick(generator, faces))
        elif kind < 0.75:
            picture = pick(generator, others)
        else:
            picture = crop(generator, pick(generator, textures))
        pictures.append(augment(generator, picture))
        labels.append(int(is_face))
    x = demo_data.normalize(np.stack(pictures)[:, None])
    return torch.from_numpy(x), torch.tensor(labels)


def pick(generator: np.random.Generator, items: np.ndarray | list[np.ndarray]) -> np.ndarray:
    return items[generator.integers(len(items))]


def misplace(generator: np.random.Generator, face: np.ndarray) -> np.ndarray:
    """Move a face by about half its size, round the edge: its parts are in the wrong place."""
    down, right = generator.integers(8, 18, size=2)
    return np.roll(face, (down, right * generator.integers(2)), axis=(0, 1))


def shuffle_quarters(generator: np.random.Generator, face: np.ndarray) -> np.ndarray:
    half = SIZE // 2
    quarters = [face[i : i + half, j : j + half] for i in (0, half) for j in (0, half)]
    a, b, c, d = (quarters[i] for i in generator.permutation(4))
    return np.pad(np.block([[a, b], [c, d]]), ((0, 1), (0, 1)), mode="edge")


def crop(generator: np.random.Generator, texture: np.ndarray) -> np.ndarray:
    i, j = (generator.integers(length - SIZE + 1) for length in texture.shape)
    piece = texture[i : i + SIZE, j : j + SIZE]
    return piece.T if generator.integers(2) else piece


def augment(generator: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Mirror, shift by up to two pixels, change contrast and brightness, add noise."""
    if generator.integers(2):
        picture = picture[:, ::-1]
    i, j = generator.integers(5, size=2)
    picture = np.pad(picture, 2, mode="edge")[i : i + SIZE, j : j + SIZE]
    mean = picture.mean()
    contrast, brightness = generator.uniform(0.7, 1.3), generator.uniform(-0.15, 0.15)
    picture = np.clip((picture - mean) * contrast + mean + brightness, 0, 1)
    return picture + 0.01 * generator.standard_normal(picture.shape)


def load_textures() -> list[np.ndarray]:
    """Pictures that ship inside scikit-image and show no face, grey, at a half and a quarter."""
    textures = []
    for name in TEXTURES:
        picture = getattr(skimage.data, name)() / 255.0
        grey = picture if picture.ndim == 2 else picture.mean(axis=2)
        scaled = (rescale(grey, scale, anti_aliasing=True) for scale in (0.5, 0.25))
        textures += [texture for texture in scaled if min(texture.shape) >= SIZE]
    return textures


def accuracy(model: torch.nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    with torch.no_grad():
        return float((model(torch.from_numpy(x)).argmax(dim=1).numpy() == y).mean())


def export(model: FaceDetector, path: Path) -> None:
    """Write ONNX with the weights inside and nothing of the machine it was written on."""
    program = torch.onnx.export(
        model,
        (torch.zeros(1, *model.input_shape),),
        dynamo=True,
        opset_version=18,
        input_names=["image"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    rename(proto.graph)
    strip_metadata(proto)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def rename(graph: onnx.GraphProto) -> None:
    """Call nodes, their results and the biases of folded batch norms after the user's layers."""
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    for tensor in graph.initializer:
        # The exporter folds batch norm into the convolution and calls its bias "<weight>_bias".
        names[tensor.name] = tensor.name.replace(".weight_bias", ".bias")
    for node in graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        layer = ast.literal_eval(notes["pkg.torch.onnx.name_scopes"])[-2]
        weights = [name for name in node.input if name.endswith(".weight")]
        node.name = weights[0].removesuffix(".weight") if weights else layer
        names.setdefault(node.output[0], node.name)
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    for node in graph.node:
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]


def strip_metadata(proto: onnx.ModelProto) -> None:
    """Drop the exporter's notes: they hold stack traces with the paths of this machine."""
    graph = proto.graph
    proto.producer_name, proto.producer_version = "kilograd", ""
    graph.name = "face_detector"
    for item in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    graph.ClearField("value_info")


if __name__ == "__main__":
    main()
