"""Samples from files: `.npz`, `.csv`, or a folder of pictures by class.

What comes out is checked against the network: float32 `x` of [N, *input shape] in the layout of the
user's model, and `y` as the loss wants it. Every error names the file, and where there is one the
row, the column or the picture.
"""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kilograd.errors import InputError
from kilograd.options import Loss

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
_TARGETS = ("label", "class", "target", "y")
"""Names of a column of classes, where the user names none."""


@dataclass(frozen=True)
class Wanted:
    """What the network takes: shapes without the batch dimension; no `loss`, no targets."""

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    loss: Loss | None

    @property
    def has_target(self) -> bool:
        """Whether samples need a `y`."""
        return self.loss not in (None, Loss.AUTOENCODER)

    @property
    def has_classes(self) -> bool:
        """Whether `y` are class indices."""
        return self.loss is Loss.CROSS_ENTROPY


@dataclass(frozen=True)
class Reading:
    """How values become samples.

    Pictures are brightness from 0 to 1; then `(value - mean) / std`, with one number or one for
    each channel. `resize` scales pictures of another size. `target` is the column of a CSV.
    """

    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    resize: bool = False
    target: str | None = None


@dataclass(frozen=True)
class Samples:
    """`x` float32 [N, *input shape], `y` int64 [N, ...] or float32 [N, *output shape], or None.

    `classes` are their names, where the data have names.
    """

    x: np.ndarray
    y: np.ndarray | None
    classes: tuple[str, ...] = ()


def load(
    path: str | Path,
    wanted: Wanted,
    reading: Reading | None = None,
    *,
    watch: Callable[[str], None] | None = None,
) -> Samples:
    """Read samples. Raises InputError where they are not what the network takes.

    `watch` gets how far it has come, in words, where that takes long.
    """
    path, reading = Path(path), reading or Reading()
    if path.is_dir():
        found = _load_pictures(path, wanted, reading, watch)
    elif not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    elif path.suffix.lower() == ".npz":
        found = _load_npz(path, wanted)
    elif path.suffix.lower() == ".csv":
        found = _load_csv(path, wanted, reading)
    else:
        raise InputError(
            f"{path}: samples are a .npz or .csv file, or a folder of pictures by class"
        )
    if not len(found.x):
        raise InputError(f"{path} holds no samples")
    x = _normalised(found.x, wanted, reading)
    if not np.isfinite(x).all():
        index = int(np.argwhere(~np.isfinite(x))[0][0])
        raise InputError(f"{path}: sample {index} holds NaN or infinity")
    return Samples(x, found.y, found.classes)


# npz ---------------------------------------------------------------------------------------------


def _load_npz(path: Path, wanted: Wanted) -> Samples:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no .npz file of plain arrays: {error}") from error
    for name in ("x", "y") if wanted.has_target else ("x",):
        if name not in arrays:
            raise InputError(
                f"{path} has no array '{name}'; it holds {', '.join(sorted(arrays)) or 'nothing'}. "
                "Samples are x and y: np.savez(file, x=x, y=y)"
            )
    x = _numbers(arrays["x"], f"{path}: x")
    if x.shape[1:] != wanted.input_shape:
        raise InputError(
            f"{path}: x has shape {list(x.shape)}; the network takes "
            f"[N, {', '.join(map(str, wanted.input_shape))}]"
        )
    if not wanted.has_target:
        return Samples(x.astype(np.float32), None)
    y = _numbers(arrays["y"], f"{path}: y")
    if not y.ndim or len(y) != len(x):
        raise InputError(f"{path}: y has shape {list(y.shape)} for the {len(x)} samples of x")
    shape = wanted.output_shape[1:] if wanted.has_classes else wanted.output_shape
    if math.prod(y.shape[1:]) != math.prod(shape):
        raise InputError(
            f"{path}: y has shape {list(y.shape)}; {[len(x), *shape]} is needed"
            + (" (class indices, not one-hot)" if wanted.has_classes else "")
        )
    y = y.reshape(len(x), *shape)
    if wanted.has_classes:
        return Samples(x.astype(np.float32), _class_indices(y, wanted, f"{path}: y"))
    return Samples(x.astype(np.float32), y.astype(np.float32))


def _numbers(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise InputError(f"{where} holds {array.dtype}; real numbers are needed")
    return array


def _class_indices(y: np.ndarray, wanted: Wanted, where: str) -> np.ndarray:
    count = wanted.output_shape[0]
    wrong = np.argwhere((y != np.round(y)) | (y < 0) | (y >= count))
    if len(wrong):
        place = tuple(wrong[0])
        raise InputError(
            f"{where}[{', '.join(map(str, place))}] is {y[place]}; the network has the classes 0 "
            f"to {count - 1}"
        )
    return y.astype(np.int64)


# CSV ---------------------------------------------------------------------------------------------


def _load_csv(path: Path, wanted: Wanted, reading: Reading) -> Samples:
    header, rows = _rows(path)
    features = math.prod(wanted.input_shape)
    targets = 0
    if wanted.has_target:
        targets = 1 if wanted.has_classes else math.prod(wanted.output_shape)
    if wanted.has_classes and math.prod(wanted.output_shape[1:]) != 1:
        raise InputError(f"{path}: a class for each position does not fit a CSV; use .npz")
    width = len(rows[0][1]) if rows else len(header or [])
    at = _target_columns(path, header, width, targets, wanted, reading)
    kept = [column for column in range(width) if column not in at]
    if not targets and len(kept) > features and header:
        kept = [column for column in kept if header[column].lower() not in _TARGETS]
    if len(kept) != features:
        raise InputError(
            f"{path}: {width} columns leave {len(kept)} for the input besides {len(at)} for the "
            f"target; the network takes {features} values, shape {list(wanted.input_shape)}"
        )
    x = np.empty((len(rows), features), np.float32)
    texts: list[list[str]] = []
    for index, (line, row) in enumerate(rows):
        if len(row) != width:
            raise InputError(f"{path}, row {line}: {len(row)} columns, where others have {width}")
        x[index] = [_number(path, line, column, row[column], header) for column in kept]
        texts.append([row[column] for column in at])
    x = x.reshape(len(rows), *wanted.input_shape)
    if not wanted.has_target:
        return Samples(x, None)
    if wanted.has_classes:
        labels = [(line, row[0]) for (line, _), row in zip(rows, texts, strict=True)]
        return _with_classes(x, labels, path, wanted)
    y = np.array(
        [
            [
                _number(path, line, column, text, header)
                for column, text in zip(at, row, strict=True)
            ]
            for (line, _), row in zip(rows, texts, strict=True)
        ],
        np.float32,
    )
    return Samples(x, y.reshape(len(rows), *wanted.output_shape))


def _rows(path: Path) -> tuple[list[str] | None, list[tuple[int, list[str]]]]:
    """The header, where the first row holds no number at all, and the rows with their lines."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV file: {error}") from error
    if rows and not any(_is_number(text) for text in rows[0][1]):
        return [text.strip() for text in rows[0][1]], rows[1:]
    return None, rows


def _target_columns(
    path: Path,
    header: list[str] | None,
    width: int,
    targets: int,
    wanted: Wanted,
    reading: Reading,
) -> list[int]:
    """Where the target is: the column named, one that is called label, or the last columns."""
    if not targets:
        return []
    if reading.target is not None:
        if header is None or reading.target not in header:
            raise InputError(
                f"{path} has no column '{reading.target}'; it has "
                + (", ".join(header) if header else "no header")
            )
        first = header.index(reading.target)
        return list(range(first, min(first + targets, width)))
    if header is not None and wanted.has_classes:
        named = [index for index, name in enumerate(header) if name.lower() in _TARGETS]
        if len(named) == 1:
            return named
    return list(range(max(width - targets, 0), width))


def _number(path: Path, line: int, column: int, text: str, header: list[str] | None) -> float:
    if not _is_number(text):
        name = f"column {column + 1}" + (f" ({header[column]})" if header else "")
        raise InputError(f"{path}, row {line}, {name}: {text!r} is no number")
    return float(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# Pictures ----------------------------------------------------------------------------------------


def _load_pictures(
    path: Path, wanted: Wanted, reading: Reading, watch: Callable[[str], None] | None
) -> Samples:
    channels, height, width, channels_first = _picture_shape(path, wanted.input_shape)
    folders = sorted(child for child in path.iterdir() if child.is_dir())
    if wanted.has_classes and math.prod(wanted.output_shape[1:]) != 1:
        raise InputError(f"{path}: a class for each position does not fit a folder; use .npz")
    if wanted.has_target and not wanted.has_classes:
        raise InputError(
            f"{path}: a folder of pictures gives classes, not the targets of this loss"
        )
    if not folders and wanted.has_target:
        raise InputError(f"{path} has no folders; pictures lie in one folder for each class")
    files = [
        (folder.name, file)
        for folder in folders or [path]
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in _PICTURES
    ]
    if not files:
        raise InputError(f"{path} holds no pictures ({', '.join(_PICTURES)})")
    pictures = []
    for index, (_, file) in enumerate(files):
        if watch is not None:
            watch(f"{index + 1} of {len(files)} pictures")
        pictures.append(_picture(file, channels, height, width, reading.resize))
    x = np.stack(pictures)
    if channels_first:
        x = x.transpose(0, 3, 1, 2)
    x = np.ascontiguousarray(x).reshape(len(files), *wanted.input_shape)
    if not wanted.has_target:
        return Samples(x, None)
    return _with_classes(x, [(file, name) for name, file in files], path, wanted)


def _picture_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int, bool]:
    """Channels, height, width, and whether channels come first."""
    if len(shape) == 2:
        return 1, shape[0], shape[1], False
    if len(shape) == 3 and shape[0] in (1, 3):
        return shape[0], shape[1], shape[2], True
    if len(shape) == 3 and shape[2] in (1, 3):
        return shape[2], shape[0], shape[1], False
    raise InputError(f"{path}: the network takes {list(shape)}, which is no grey or RGB picture")


def _picture(file: Path, channels: int, height: int, width: int, resize: bool) -> np.ndarray:
    """Brightness from 0 to 1, float32 [height, width, channels]."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise InputError(
            "pictures need Pillow, which is not installed: pip install 'kilograd[images]' "
            "(or pip install pillow)"
        ) from error
    try:
        with Image.open(file) as opened:
            image = opened.convert("L" if channels == 1 else "RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{file} is no picture: {error}") from error
    if image.size != (width, height):
        if not resize:
            raise InputError(
                f"{file} has {image.width} x {image.height} pixels; the network takes {width} x "
                f"{height}. resize = true in [data] of the run file, or --resize, scales pictures"
            )
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    array: np.ndarray = np.asarray(image, np.float32) / np.float32(255)
    return array.reshape(height, width, channels)


# Both --------------------------------------------------------------------------------------------


def _with_classes(
    x: np.ndarray, labels: Sequence[tuple[Any, str]], path: Path, wanted: Wanted
) -> Samples:
    """Class indices from texts: whole numbers are themselves, names count in sorted order."""
    count = wanted.output_shape[0]
    if all(_is_number(text) for _, text in labels):
        for place, text in labels:
            if float(text) != round(float(text)) or not 0 <= float(text) < count:
                where = f"{path}, row {place}" if isinstance(place, int) else str(place)
                raise InputError(
                    f"{where}: the class is {text}; the network has the classes 0 to {count - 1}"
                )
        y = np.array([int(float(text)) for _, text in labels], np.int64)
        return Samples(x, _per_position(y, wanted))
    names = sorted({text for _, text in labels})
    if len(names) != count:
        raise InputError(
            f"{path} has {len(names)} classes ({', '.join(names[:10])}); the network has {count}. "
            "Where some do not occur, call classes by their index"
        )
    y = np.array([names.index(text) for _, text in labels], np.int64)
    return Samples(x, _per_position(y, wanted), tuple(names))


def _per_position(y: np.ndarray, wanted: Wanted) -> np.ndarray:
    return y.reshape(len(y), *wanted.output_shape[1:])


def _normalised(x: np.ndarray, wanted: Wanted, reading: Reading) -> np.ndarray:
    mean, std = (np.asarray(value, np.float32) for value in (reading.mean, reading.std))
    if not std.all() or not np.isfinite(mean).all() or not np.isfinite(std).all():
        raise InputError(f"mean={reading.mean} and std={reading.std}: finite, std not 0")
    if mean.size == 1 and std.size == 1:
        if mean == 0 and std == 1:
            return x
        return ((x - mean.reshape(())) / std.reshape(())).astype(np.float32)
    shape = wanted.input_shape
    axis = len(shape) - 1 if len(shape) == 3 and shape[0] not in (1, 3) else 0
    for name, value in (("mean", mean), ("std", std)):
        if value.size not in (1, shape[axis]):
            raise InputError(f"{name} has {value.size} numbers for the {shape[axis]} channels")
    spread = [1] * len(shape)
    spread[axis] = -1
    result: np.ndarray = (x - mean.reshape(spread)) / std.reshape(spread)
    return result.astype(np.float32)
