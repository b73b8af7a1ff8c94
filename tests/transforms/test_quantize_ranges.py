"""Ranges from histograms, scales of weights and biases, and origins that undo them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilograd.errors import InputError
from kilograd.ir import Affine, Origin, Permute, Quantized, Tensor, to_user
from kilograd.ops.q_convert import Quantize
from kilograd.ops.q_types import MAX_BIAS
from kilograd.transforms.quantize.parameters import (
    SMALLEST_RATIO,
    quantized_bias,
    quantized_weight,
    raised_for_bias,
    weight_scales,
)
from kilograd.transforms.quantize.ranges import (
    BINS,
    RANGES,
    Histogram,
    input_range,
    least_squares,
    min_max,
    percentile,
    quantization,
    squared_error,
)


def seen(*arrays: np.ndarray) -> Histogram:
    histogram = Histogram()
    for array in arrays:
        histogram.add(np.asarray(array, np.float32))
    return histogram


def heavy_tailed(count: int = 40000) -> np.ndarray:
    return np.random.default_rng(0).standard_t(3, count).astype(np.float32)


def test_counts_do_not_depend_on_the_batches():
    x = heavy_tailed()
    whole = seen(x)
    for parts in (seen(*np.array_split(x, 7)), seen(*np.array_split(np.sort(np.abs(x)), 5))):
        assert parts.width == whole.width
    parts = seen(*np.array_split(x, 7))
    np.testing.assert_array_equal(parts.counts, whole.counts)
    assert (parts.minimum, parts.maximum) == (whole.minimum, whole.maximum)


def test_bins_hold_what_numpy_counts():
    x = heavy_tailed(1000)
    x[:100] = 0
    histogram = seen(x)
    edges = (np.arange(2 * BINS + 1) - BINS) * histogram.width
    np.testing.assert_array_equal(histogram.counts, np.histogram(x[100:], edges)[0])
    assert histogram.zeros == 100
    assert BINS / 2 <= np.abs(x).max() / histogram.width <= BINS


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float):
    with pytest.raises(InputError, match="not finite"):
        seen(np.array([1.0, bad]))


def test_min_max_is_exact():
    x = heavy_tailed()
    assert min_max(seen(x)) == (x.min(), x.max())


def test_percentile_leaves_the_tails_out():
    x = heavy_tailed(100000)
    low, high = percentile(seen(x))
    width = seen(x).width
    assert np.sum(x < low) <= 5 <= np.sum(x < low + width)
    assert np.sum(x >= high) <= 5 <= np.sum(x >= high - width)
    positive = np.maximum(x, 0)
    assert percentile(seen(positive))[0] == 0


@pytest.mark.parametrize(
    "x",
    [
        heavy_tailed(),
        np.maximum(heavy_tailed(), 0),
        np.abs(heavy_tailed()) - 0.5,
        np.append(np.random.default_rng(1).standard_normal(5000), [300.0]),
        np.clip(3 * heavy_tailed(), 0, 6),
        np.array([-2.0, 0.0, 0.0, 5.0]),
    ],
    ids=["both", "relu", "shifted", "outlier", "relu6", "few"],
)
def test_least_squares_is_near_the_best_of_all_ranges(x: np.ndarray):
    ours = squared_error(x, least_squares(seen(x)))
    assert ours <= 1.001 * squared_error(x, min_max(seen(x)))
    fractions = np.linspace(0.05, 1, 20)
    ends = [(min(x.min(), 0) * a, max(x.max(), 0) * b) for a in fractions for b in fractions]
    assert ours <= 1.05 * min(squared_error(x, pair) for pair in ends)


@pytest.mark.parametrize(
    ("low", "high", "scale", "best"),
    [(0, 255, 1 / 255, 0.0), (0, 200, 1 / 255, 0.0), (-127.5, 127.5, 1 / 127.5, 1.1 / 12)],
    ids=["unit", "dark", "centred"],
)
def test_pixels_keep_their_levels(low: float, high: float, scale: float, best: float):
    """`best` is the squared error in steps of the grid."""
    x = (np.arange(low, high + 1) * scale).astype(np.float32)
    batch = np.random.default_rng(0).choice(x, (4, 50, 50, 3))
    ends = input_range(batch, min_max(seen(batch)))
    assert squared_error(x, ends) <= best * scale**2 + 1e-10
    again = input_range(batch, least_squares(seen(batch)))
    assert squared_error(x, again) <= best * scale**2 + 1e-10


def test_pixels_that_would_all_be_ties():
    x = ((np.arange(256) - 127.5) / 127.5).astype(np.float32)
    counts = []
    for ends in ((-1.0, 1.0), input_range(x, (-1.0, 1.0))):
        q = quantization(*ends)
        op = Quantize(q.scales[0], q.zero_point)
        counts.append(len(np.unique(op.reference(np, x)[0])))
    assert counts == [193, 255]


def test_numbers_on_no_grid_keep_the_chosen_range():
    x = np.random.default_rng(0).uniform(-1, 2, (5, 1000)).astype(np.float32)
    assert input_range(x, (-1.0, 2.0)) == (-1.0, 2.0)


@given(st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32))
def test_int8_covers_the_range_and_zero(a: float, b: float):
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    q = quantization(min(a, b), max(a, b))
    (scale,) = q.scales
    assert -128 <= q.zero_point <= 127 and scale == np.float32(scale) > 0
    assert scale * (-128 - q.zero_point) <= low + 0.51 * scale
    assert scale * (127 - q.zero_point) >= high - 0.51 * scale


def test_ranges_on_one_side_of_zero():
    assert quantization(1, 5).zero_point == quantization(0, 5).zero_point == -128
    assert quantization(-5, -1).zero_point == 127
    assert quantization(0, 0) == quantization(-1, 1)


@pytest.mark.parametrize("method", sorted(RANGES))
def test_a_value_that_is_always_zero(method: str):
    assert RANGES[method](seen(np.zeros(7))) == (0, 0)


@pytest.mark.parametrize(("shape", "axis"), [((5, 3, 3, 4), 0), ((3, 3, 6), 2), ((7, 20), 0)])
def test_weights_round_to_half_a_scale(shape: tuple[int, ...], axis: int):
    w = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    scales = weight_scales(w, axis)
    made, _ = quantized_weight(Tensor(w, Origin("w")), axis, scales)
    assert made.array.dtype == np.int8
    others = tuple(i for i in range(len(shape)) if i != axis)
    np.testing.assert_array_equal(np.abs(made.array).max(axis=others), 127)
    back = to_user([(made.origin, made.array)])["w"]
    assert back.dtype == np.float32
    error = np.moveaxis(np.abs(back - w), axis, -1)
    assert (error <= 0.501 * scales).all()


def test_dead_and_small_channels_have_a_scale_to_train_with():
    w = np.ones((4, 10), np.float32)
    w[0], w[1], w[2], w[3] = 0, 1e-9, 1e-5, 2
    scales = 127 * weight_scales(w, 0)
    np.testing.assert_allclose(scales[2:], [2 * SMALLEST_RATIO, 2], rtol=1e-6)
    np.testing.assert_allclose(scales[:2], np.median(scales[2:]), rtol=1e-6)
    np.testing.assert_allclose(127 * weight_scales(np.zeros((3, 25)), 0), 0.2, rtol=1e-6)


def test_a_bias_beyond_32_bits_raises_the_scale_of_its_channel():
    bias = np.array([1.0, -3e6], np.float32)
    tight = np.array([1e-3, 1e-3])
    scales = raised_for_bias(tight, bias, 1e-4)
    assert scales[0] == tight[0] and scales[1] > tight[1]
    made, _ = quantized_bias(Tensor(bias, Origin("b")), 1e-4 * scales)
    assert made.array.dtype == np.int32 and np.abs(made.array).max() <= MAX_BIAS
    np.testing.assert_allclose(to_user([(made.origin, made.array)])["b"], bias, rtol=1e-6)


def test_limits_hold_where_the_scale_is_too_small():
    step = Quantized(np.array(1.0))
    np.testing.assert_array_equal(step.apply(np.array([-1e9, -0.5, 1.5, 1e9])), [-127, 0, 2, 127])


@pytest.mark.parametrize(("axes", "cut_axis"), [((0, 2, 3, 1), 3), ((2, 3, 0, 1), 2)])
def test_origins_undo_quantisation_of_cut_weights(axes: tuple[int, ...], cut_axis: int):
    """The parts of a weight, cut along the inputs or along the channels that the scales belong to,
    come back as one float parameter in the user's layout, batch norm divided out.
    """
    w = np.random.default_rng(0).standard_normal((6, 5, 3, 2)).astype(np.float32)
    gamma = np.linspace(0.5, 3, 6, dtype=np.float32).reshape(6, 1, 1, 1)
    where = axes.index(0)
    shape = [1] * 4
    shape[where] = 6
    scales = np.linspace(0.01, 0.05, 6).reshape(shape)
    origin = Origin("w", (Affine(gamma, np.zeros(1, np.float32)), Permute(axes), Quantized(scales)))
    stored = origin.to_program(w)
    assert stored.dtype == np.int8
    whole = stored.shape[cut_axis]
    parts = []
    for start, stop in ((2, whole), (0, 2)):
        part = origin.cut(cut_axis, start, stop, whole)
        parts.append((part, np.take(stored, np.arange(start, stop), cut_axis)))
        np.testing.assert_array_equal(part.to_program(w), parts[-1][1])
    back = to_user(parts)["w"]
    assert back.dtype == np.float32 and back.shape == w.shape
    error = np.abs(back - w) * gamma
    inside = np.abs(w) * gamma < 127 * scales.reshape(6, 1, 1, 1)
    assert (error <= 0.501 * scales.reshape(6, 1, 1, 1))[inside].all() and inside.mean() > 0.9
