"""What learning on the device should reach: the same fine-tuning of the network in PyTorch.

    python examples/face_detector/finetune_torch.py [--rate 0.003] [--epochs 3] [--seeds 5]

Plain gradient descent, one sample a step, constant rate, batch norm folded as in the ONNX file, on
the 100 pictures of the device; mean and range over `--seeds` orders of the samples. Beside training
every layer: the last two blocks, the classifier alone, and every layer from a random start.
"""

import argparse
import itertools

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from kilograd import demo_data
from kilograd.zoo import FaceDetector, count_macs, create

INSTRUCTIONS_PER_MAC = 6
STEP_PER_FORWARD = 3  # The backward pass takes about twice the forward pass.
CHOICES = {
    "all layers": ("",),
    "last two blocks": ("blocks.2", "blocks.3", "classifier"),
    "classifier": ("classifier",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune the demo's network in PyTorch.")
    parser.add_argument("--rate", type=float, default=0.003)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = demo_data.load()
    model = load_model()
    macs = count_macs(model, torch.zeros(1, *model.input_shape))
    steps = arguments.epochs * len(data.train_x)
    cost = macs * STEP_PER_FORWARD * INSTRUCTIONS_PER_MAC * steps
    print(
        f"{macs} MACs a picture; {steps} steps of all layers: about {cost / 1e9:.2f} G instructions"
    )
    print(f"upright before      {accuracy(model, data.upright_test_x, data.test_y):.3f}")
    print(f"camera  before      {accuracy(model, data.test_x, data.test_y):.3f}")
    starts = [(name, model, prefixes) for name, prefixes in CHOICES.items()]
    starts.append(("random start", fold(create("face_detector")[0]), ("",)))
    for name, start, prefixes in starts:
        curves = np.array(
            [
                finetune(start, data, prefixes, arguments.rate, arguments.epochs, seed)
                for seed in range(arguments.seeds)
            ]
        )
        mean = " ".join(f"{value:.3f}" for value in curves.mean(axis=0))
        last = curves[:, -1]
        print(f"{name:15s} mean by epoch {mean}, last from {last.min():.3f} to {last.max():.3f}")


def load_model() -> FaceDetector:
    """The shipped network as a PyTorch module, without batch norm, as in the file."""
    model = fold(FaceDetector().eval())
    tensors = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load(demo_data.model_path()).graph.initializer
    }
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    return model


def fold(model: FaceDetector) -> FaceDetector:
    """Put every batch norm of `model` into the convolution before it, in place."""
    for block in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        for i, (first, second) in enumerate(itertools.pairwise(block)):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                block[i] = nn.utils.fusion.fuse_conv_bn_eval(first, second)
                block[i + 1] = nn.Identity()
    return model.requires_grad_(True)


def finetune(
    start: FaceDetector,
    data: demo_data.DemoData,
    prefixes: tuple[str, ...],
    rate: float,
    epochs: int,
    seed: int,
) -> list[float]:
    """Camera test accuracy after every epoch; parameters that begin with `prefixes` are trained."""
    model = fold(FaceDetector().eval())
    model.load_state_dict(start.state_dict())
    trained = [p for name, p in model.named_parameters() if name.startswith(prefixes)]
    x, y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    generator = np.random.default_rng(seed)
    accuracies = []
    for _ in range(epochs):
        for i in generator.permutation(len(x)):
            loss = functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
            gradients = torch.autograd.grad(loss, trained)
            with torch.no_grad():
                for parameter, gradient in zip(trained, gradients, strict=True):
                    parameter -= rate * gradient
        accuracies.append(accuracy(model, data.test_x, data.test_y))
    return accuracies


def accuracy(model: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    with torch.no_grad():
        return float((model(torch.from_numpy(x)).argmax(dim=1).numpy() == y).mean())


if __name__ == "__main__":
    main()
