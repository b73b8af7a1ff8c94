"""Samples from files: what is read, and one message for everything that is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kilograd as kg
from kilograd.data import Reading, Wanted, load

CLASSES = Wanted((4,), (3,), kg.Loss.CROSS_ENTROPY)
VALUES = Wanted((4,), (2,), kg.Loss.MSE)
ITSELF = Wanted((4,), (4,), kg.Loss.AUTOENCODER)
SCORES = Wanted((4,), (2,), kg.Loss.BCE_WITH_LOGITS)
ONLY_X = Wanted((4,), (), None)
PIXELS = Wanted((2, 4), (3, 4), kg.Loss.CROSS_ENTROPY)
RGB = Wanted((3, 2, 4), (2,), kg.Loss.CROSS_ENTROPY)
GREY_LAST = Wanted((2, 4, 1), (2,), kg.Loss.CROSS_ENTROPY)
X = np.arange(20, dtype=np.float64).reshape(5, 4)


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# What is read ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "y", "seen"),
    [
        (CLASSES, np.array([0, 1, 2, 1, 0]), (5,)),
        (CLASSES, np.array([[0], [1], [2], [1], [0.0]]), (5,)),
        (VALUES, np.ones((5, 2)), (5, 2)),
        (SCORES, np.ones((5, 2), bool), (5, 2)),
        (ITSELF, None, None),
        (ONLY_X, None, None),
    ],
)
def test_npz(wanted: Wanted, y: np.ndarray | None, seen: tuple[int, ...] | None, tmp_path: Path):
    np.savez(tmp_path / "a.npz", **({"x": X} if y is None else {"x": X, "y": y}))
    found = load(tmp_path / "a.npz", wanted)
    assert found.x.dtype == np.float32 and np.array_equal(found.x, X)
    assert (None if found.y is None else found.y.shape) == seen


def test_npz_with_a_class_for_each_position(tmp_path: Path):
    x, y = np.zeros((2, 2, 4)), np.array([[0, 1, 2, 0], [2, 2, 1, 0]])
    np.savez(tmp_path / "a.npz", x=x, y=y)
    assert np.array_equal(load(tmp_path / "a.npz", PIXELS).y, y)


@pytest.mark.parametrize(
    ("text", "wanted", "reading", "y"),
    [
        ("1,2,3,4,0\n5,6,7,8,2\n", CLASSES, Reading(), [0, 2]),
        ("a,b,c,d,k\n1,2,3,4,0\n5,6,7,8,2\n", CLASSES, Reading(), [0, 2]),
        ("label,a,b,c,d\n2,1,2,3,4\n1,5,6,7,8\n", CLASSES, Reading(), [2, 1]),
        ("a,kind,b,c,d\n1,0,2,3,4\n5,1,6,7,8\n", CLASSES, Reading(target="kind"), [0, 1]),
        ("\ufeff1,2,3,4,9,8\r\n5, 6,7,8,7,6\r\n", VALUES, Reading(), [[9, 8], [7, 6]]),
        ("1,2,3,4\n5,6,7,8\n", ITSELF, Reading(), None),
        ("a,b,c,d,label\n1,2,3,4,x\n5,6,7,8,y\n", ONLY_X, Reading(), None),
    ],
)
def test_csv(text: str, wanted: Wanted, reading: Reading, y: object, tmp_path: Path):
    found = load(write_csv(tmp_path / "a.csv", text), wanted, reading)
    assert np.array_equal(found.x, [[1, 2, 3, 4], [5, 6, 7, 8]])
    assert found.y is None if y is None else np.array_equal(found.y, y)


def test_csv_with_names_of_classes(tmp_path: Path):
    text = "a,b,c,d,label\n1,2,3,4,up\n1,2,3,4,down\n1,2,3,4,left\n1,2,3,4,up\n"
    found = load(write_csv(tmp_path / "a.csv", text), CLASSES)
    assert found.classes == ("down", "left", "up") and found.y.tolist() == [2, 0, 1, 2]


def pictures(root: Path, size: tuple[int, int] = (4, 2)) -> Path:
    rng = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (root / kind).mkdir(parents=True)
        for index in range(2):
            array = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
            Image.fromarray(array).save(root / kind / f"{index}.png")
        (root / kind / "notes.txt").write_text("no picture")
    return root


def test_pictures_in_both_layouts(tmp_path: Path):
    root = pictures(tmp_path / "animals")
    seen: list[str] = []
    found = load(root, RGB, watch=seen.append)
    assert seen == [f"{i + 1} of {len(found.x)} pictures" for i in range(len(found.x))]
    assert found.x.shape == (4, 3, 2, 4) and found.y.tolist() == [0, 0, 1, 1]
    assert found.classes == ("cat", "dog")
    pixels = np.asarray(Image.open(root / "cat/0.png"), np.float32) / 255
    assert np.array_equal(found.x[0], pixels.transpose(2, 0, 1))
    grey = load(root, GREY_LAST)
    assert grey.x.shape == (4, 2, 4, 1) and grey.x.min() >= 0 and grey.x.max() <= 1


def test_pictures_are_scaled_and_normalised_where_asked(tmp_path: Path):
    root = pictures(tmp_path / "animals", (8, 8))
    plain = load(root, RGB, Reading(resize=True)).x
    assert plain.shape == (4, 3, 2, 4)
    mean, std = [0.5, 0.25, 0.125], 0.5
    found = load(root, RGB, Reading(mean, std, resize=True)).x
    wanted = (plain - np.array(mean).reshape(3, 1, 1)) / std
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    last = Wanted((2, 4, 3), (2,), kg.Loss.CROSS_ENTROPY)
    np.testing.assert_array_equal(
        load(root, last, Reading(mean, std, resize=True)).x.transpose(0, 3, 1, 2), found
    )


def test_folders_that_are_numbers_are_classes(tmp_path: Path):
    root = pictures(tmp_path / "animals")
    (root / "cat").rename(root / "2")
    (root / "dog").rename(root / "0")
    found = load(root, Wanted((3, 2, 4), (3,), kg.Loss.CROSS_ENTROPY))
    assert found.y.tolist() == [0, 0, 2, 2] and found.classes == ()


# What is wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "wanted", "message"),
    [
        ({"x": X}, CLASSES, "no array 'y'; it holds x"),
        ({"images": X}, ITSELF, "no array 'x'; it holds images"),
        ({"x": X[:, :3], "y": [0] * 5}, CLASSES, r"shape \[5, 3\]; the network takes \[N, 4\]"),
        ({"x": X, "y": [0] * 4}, CLASSES, r"y has shape \[4\] for the 5 samples"),
        ({"x": X, "y": np.eye(5, 3)}, CLASSES, "not one-hot"),
        (
            {"x": X, "y": [0, 1, 3, 0, 0]},
            CLASSES,
            r"y\[2\] is 3; the network has the classes 0 to 2",
        ),
        ({"x": X, "y": [0, 0.5, 1, 0, 0]}, CLASSES, r"y\[1\] is 0.5"),
        ({"x": X, "y": list("abcab")}, CLASSES, "y holds <U1; real numbers"),
        ({"x": X + 1j}, ITSELF, "complex"),
        ({"x": np.where(X == 9, np.nan, X)}, ITSELF, "sample 2 holds NaN"),
        ({"x": X[:0]}, ITSELF, "no samples"),
        ({"x": X, "y": np.ones((5, 3))}, VALUES, r"\[5, 2\] is needed"),
        ({"x": np.array([{}], object)}, ITSELF, "plain arrays"),
    ],
)
def test_wrong_npz(arrays: dict[str, object], wanted: Wanted, message: str, tmp_path: Path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(kg.InputError, match=message) as error:
        load(tmp_path / "a.npz", wanted)
    assert "a.npz" in str(error.value)


@pytest.mark.parametrize(
    ("text", "wanted", "reading", "message"),
    [
        ("a,b,c,d,y\n1,2,x,4,0\n", CLASSES, Reading(), r"row 2, column 3 \(c\): 'x' is no number"),
        ("1,2,3,4,0\n1,2,3,0\n", CLASSES, Reading(), "row 2: 4 columns, where others have 5"),
        ("1,2,3,0\n", CLASSES, Reading(), r"4 columns leave 3 .* takes 4 values, shape \[4\]"),
        ("1,2,3,4,5\n", ITSELF, Reading(), "5 columns leave 5"),
        ("1,2,3,4,3\n", CLASSES, Reading(), "row 1: the class is 3"),
        ("1,2,3,4,up\n1,2,3,4,down\n", CLASSES, Reading(), r"2 classes \(down, up\).* has 3"),
        ("1,2,3,4,0\n", CLASSES, Reading(target="kind"), "no column 'kind'; it has no header"),
        ("a,b,c,d,e\n1,2,3,4,0\n", CLASSES, Reading(target="kind"), "it has a, b, c, d, e"),
        ("a,b,c,d,y\n1,,3,4,0\n", CLASSES, Reading(), r"column 2 \(b\): '' is no number"),
        ("1,2,3,4,5,up\n", VALUES, Reading(), "row 1, column 6: 'up'"),
        ("1,2,3,nan\n", ITSELF, Reading(), "sample 0 holds NaN"),
        ("a,b,c,d\n", ITSELF, Reading(), "no samples"),
        ("", ITSELF, Reading(), "leave 0"),
        ("1,2,3,4\n", ITSELF, Reading(std=0.0), "std not 0"),
        ("1,2,3,4\n", ITSELF, Reading(mean=[1.0, 2.0]), "2 numbers for the 4 channels"),
        ("1,2,3,4,5,6,7,8,0\n", PIXELS, Reading(), "does not fit a CSV"),
    ],
)
def test_wrong_csv(text: str, wanted: Wanted, reading: Reading, message: str, tmp_path: Path):
    with pytest.raises(kg.InputError, match=message):
        load(write_csv(tmp_path / "a.csv", text), wanted, reading)


def test_wrong_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = pictures(tmp_path / "animals", (8, 8))
    with pytest.raises(kg.InputError, match=r"cat.0\.png has 8 x 8 pixels; .* 4 x 2\. resize"):
        load(root, RGB)
    with pytest.raises(kg.InputError, match=r"2 classes \(cat, dog\); the network has 5"):
        load(root, Wanted((3, 8, 8), (5,), kg.Loss.CROSS_ENTROPY))
    with pytest.raises(kg.InputError, match="no grey or RGB picture"):
        load(root, CLASSES)
    with pytest.raises(kg.InputError, match="not the targets of this loss"):
        load(root, Wanted((3, 8, 8), (2,), kg.Loss.MSE))
    (root / "dog/0.png").write_text("no picture")
    with pytest.raises(kg.InputError, match=r"dog.0\.png is no picture"):
        load(root, Wanted((3, 8, 8), (2,), kg.Loss.CROSS_ENTROPY))
    (tmp_path / "empty/cat").mkdir(parents=True)
    with pytest.raises(kg.InputError, match="holds no pictures"):
        load(tmp_path / "empty", RGB)
    with pytest.raises(kg.InputError, match="one folder for each class"):
        load(root / "cat", RGB)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(kg.InputError, match=r"pip install 'kilograd\[images\]'"):
        load(root, RGB)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.npz", None, "no such file"),
        ("a.txt", b"1,2", "are a .npz or .csv file"),
        ("a.npz", b"no zip", "no .npz file"),
        ("a.csv", b"\xff\xfe\x00", "no CSV file"),
    ],
)
def test_no_samples_at_all(name: str, content: bytes | None, message: str, tmp_path: Path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(kg.InputError, match=message):
        load(tmp_path / name, ITSELF)


# Sessions judge by one pass ----------------------------------------------------------------------


def test_evaluate_is_loss_and_accuracy():
    from tests.codegen.networks import PROGRAMS, samples

    for build in PROGRAMS.values():
        program = build()
        session, (x, y) = program.on_host(), samples(program, 40)
        found = session.evaluate(x, y)
        assert found.loss == session.loss(x, y)
        classes = program.loss is kg.Loss.CROSS_ENTROPY
        assert found.accuracy == (session.accuracy(x, y) if classes else None)
        assert (found.confusion is not None) == classes
        if found.confusion is not None:
            counts = np.array(found.confusion)
            winners = np.argmax(session.predict(x), axis=1)
            assert counts.sum() == np.size(y) and counts.trace() / np.size(y) == found.accuracy
            np.testing.assert_array_equal(
                counts.sum(1), np.bincount(np.ravel(y), minlength=len(counts))
            )
            np.testing.assert_array_equal(
                counts.sum(0), np.bincount(winners.ravel(), minlength=len(counts))
            )
        one = session.evaluate(x[0], None if y is None else y[:1])
        assert one.loss == session.loss(x[:1], None if y is None else y[:1])
        with pytest.raises(kg.InputError, match="no samples"):
            session.evaluate(x[:0], y)
