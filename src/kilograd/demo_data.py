"""The demo's pictures: a detector of upright faces meets a camera hung upside down in the dark.

200 pictures of 25x25 grey pixels, half of them faces, from the Labeled Faces in the Wild data set
(Huang et al., 2007), as scikit-image ships them. Their index modulo four says which of three
disjoint sets they go to:

    0     pretraining, upright (50)       what the shipped network was trained on
    2, 3  training on the device (100)    as the camera sees them
    1     test (50)                       as the camera sees them, and upright

PyTorch is not needed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kilograd.errors import InputError

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

CLASS_NAMES = ("no face", "face")

_NUM_FACES = 100
_REMAINDERS: Mapping[str, tuple[int, ...]] = {"pretrain": (0,), "train": (2, 3), "test": (1,)}

# The camera: contrast lost to the dark, a lens that darkens shadows further, noise of one sigma.
_GAIN, _GAMMA, _OFFSET, _NOISE = 0.35, 1.3, 0.02, 0.02
_NOISE_SEED = 1


@dataclass(frozen=True)
class DemoData:
    """Pictures float32 [N, 1, 25, 25] as the network takes them, labels int64 [N]: 1 is a face.

    Faces and other pictures alternate in every set. `upright_test_x` are the pictures of `test_x`
    as they were before the camera.
    """

    pretrain_x: Images
    pretrain_y: Labels
    train_x: Images
    train_y: Labels
    test_x: Images
    test_y: Labels
    upright_test_x: Images


def load() -> DemoData:
    """The three sets; the same bytes at every call. Raises InputError without scikit-image."""
    brightness = _load_brightness()
    pretrain, train, test = (_indices(name) for name in ("pretrain", "train", "test"))
    upright = normalize(brightness)
    seen = normalize(camera(brightness))
    labels = (np.arange(len(brightness)) < _NUM_FACES).astype(np.int64)
    return DemoData(
        pretrain_x=upright[pretrain],
        pretrain_y=labels[pretrain],
        train_x=seen[train],
        train_y=labels[train],
        test_x=seen[test],
        test_y=labels[test],
        upright_test_x=upright[test],
    )


def camera(brightness: npt.NDArray[np.floating]) -> Images:
    """What the camera makes of upright pictures: turned by half a turn, dark, noisy, eight bits.

    Brightness from 0 to 1, [N, 1, H, W], in and out. The noise depends on the array's shape only.
    """
    noise = np.random.default_rng(_NOISE_SEED).standard_normal(brightness.shape)
    turned = brightness[:, :, ::-1, ::-1]
    dark = _OFFSET + _GAIN * turned**_GAMMA + _NOISE * noise
    return (np.round(np.clip(dark, 0, 1) * 255) / 255).astype(np.float32)


def normalize(brightness: npt.NDArray[np.floating]) -> Images:
    """Brightness from 0 to 1 to the network's input, `(brightness - 0.5) / 0.25`."""
    return ((brightness - 0.5) / 0.25).astype(np.float32)


def model_path() -> Path:
    """The trained network, ONNX: `image` float32 [1, 1, 25, 25] -> `logits` [1, 2]."""
    return Path(str(resources.files("kilograd"))) / "zoo" / "face_detector.onnx"


def _load_brightness() -> npt.NDArray[np.float64]:
    try:
        from skimage.data import lfw_subset
    except ImportError as error:
        raise InputError(
            "the demo's pictures come with scikit-image, which is not installed: "
            "pip install kilograd[demo] (or pip install scikit-image)"
        ) from error
    pictures = np.asarray(lfw_subset(), dtype=np.float64)  # type: ignore[no-untyped-call]
    if pictures.shape != (2 * _NUM_FACES, 25, 25):
        raise InputError(
            f"skimage.data.lfw_subset() has shape {pictures.shape}, not (200, 25, 25): "
            "this version of scikit-image ships other data; pip install scikit-image==0.26.0"
        )
    return pictures[:, None]


def _indices(name: str) -> npt.NDArray[np.int64]:
    chosen = [i for i in range(_NUM_FACES) if i % 4 in _REMAINDERS[name]]
    faces = np.array(chosen, dtype=np.int64)
    return np.stack([faces, faces + _NUM_FACES], axis=1).reshape(-1)
