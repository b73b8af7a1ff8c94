"""Pooling and resizing against PyTorch, over many attributes: values, gradients, sizes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kilograd.errors import InputError
from kilograd.ir import f32
from kilograd.ops.pool import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    AvgPool2dGrad,
    MaxPool2d,
    MaxPool2dGrad,
)
from kilograd.ops.resize import UpsampleNearest2d
from kilograd.ops.windows import ceil_mode_extra

SETTINGS = list(itertools.product((2, 3), (1, 2, 3), (0, 1), (False, True)))


def image(h: int, w: int, c: int = 3) -> np.ndarray:
    return np.random.default_rng(h * 100 + w).standard_normal((2, h, w, c)).astype(np.float32)


def nchw(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def nhwc(y: torch.Tensor) -> np.ndarray:
    return y.detach().numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize(("kernel", "stride", "padding", "ceil"), SETTINGS)
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [(7, 8), (6, 9)])
def test_max_pool(kernel, stride, padding, ceil, dilation, size):
    x = image(*size)
    leaf = nchw(x).requires_grad_()
    expected = F.max_pool2d(leaf, kernel, stride, padding, dilation, ceil)
    seed = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    expected.backward(seed)
    extra = [
        ceil_mode_extra(n, kernel, stride, (padding, padding), dilation) if ceil else 0
        for n in size
    ]
    pads = ((padding, padding + extra[0]), (padding, padding + extra[1]))
    op = MaxPool2d((kernel, kernel), (stride, stride), pads, (dilation, dilation))
    y, index = op.reference(np, x)
    np.testing.assert_array_equal(y, nhwc(expected))
    grad = MaxPool2dGrad(size, op.kernel, op.stride, op.padding, op.dilation)
    (d_x,) = grad.reference(np, nhwc(seed), index)
    np.testing.assert_allclose(d_x, nhwc(leaf.grad), atol=1e-6)


@pytest.mark.parametrize(("kernel", "stride", "padding", "ceil"), SETTINGS)
@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize("divisor", [None, 3])
def test_avg_pool(kernel, stride, padding, ceil, include_pad, divisor):
    size = (7, 8)
    x = image(*size)
    leaf = nchw(x).requires_grad_()
    expected = F.avg_pool2d(leaf, kernel, stride, padding, ceil, include_pad, divisor)
    seed = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    expected.backward(seed)
    pads = ((padding, padding), (padding, padding))
    extra = tuple(
        ceil_mode_extra(n, kernel, stride, (padding, padding)) if ceil else 0 for n in size
    )
    fields = ((kernel, kernel), (stride, stride), pads, include_pad, extra, divisor or 0)
    (y,) = AvgPool2d(*fields).reference(np, x)
    np.testing.assert_allclose(y, nhwc(expected), atol=1e-6)
    (d_x,) = AvgPool2dGrad(*fields, size).reference(np, nhwc(seed))
    np.testing.assert_allclose(d_x, nhwc(leaf.grad), atol=1e-6)


@pytest.mark.parametrize("output", [(1, 1), (3, 2), (5, 4), (7, 9), (9, 3)])
def test_adaptive_pools(output):
    x = image(7, 9)
    (y,) = AdaptiveAvgPool2d(output).reference(np, x)
    np.testing.assert_allclose(y, nhwc(F.adaptive_avg_pool2d(nchw(x), output)), atol=1e-6)
    y, _ = AdaptiveMaxPool2d(output).reference(np, x)
    np.testing.assert_array_equal(y, nhwc(F.adaptive_max_pool2d(nchw(x), output)))


@pytest.mark.parametrize("output", [(14, 18), (7, 9), (10, 20), (3, 4), (287, 1), (343, 9)])
def test_upsample_to_a_size(output):
    x = image(7, 9)
    (y,) = UpsampleNearest2d(output).reference(np, x)
    np.testing.assert_array_equal(y, nhwc(F.interpolate(nchw(x), output, mode="nearest")))


@pytest.mark.parametrize("factor", [1.5, 2.0, 2.3, 0.6, 3.7])
def test_upsample_by_a_factor(factor):
    x = image(7, 9)
    expected = F.interpolate(nchw(x), scale_factor=factor, mode="nearest")
    op = UpsampleNearest2d(tuple(expected.shape[2:]), (1 / factor, 1 / factor))
    np.testing.assert_array_equal(op.reference(np, x)[0], nhwc(expected))


def test_nan_reaches_the_result():
    x = image(4, 4)
    x[0, 1, 1, 0] = np.nan
    y, _ = MaxPool2d((2, 2), (2, 2)).reference(np, x)
    assert np.isnan(y[0, 0, 0, 0]) and np.isnan(y).sum() == 1


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (MaxPool2d((2, 2), (2, 2), ((3, 0), (0, 0))), "has no position inside"),
        (MaxPool2d((9, 2), (2, 2)), "does not fit 7 positions"),
        (MaxPool2d((2, 2), (2, 2), ((0, 0), (0, 0)), (7, 1)), "does not fit"),
        (AvgPool2d((2, 2), (2, 2), ((0, 4), (0, 0))), "has no position inside"),
    ],
)
def test_misfits_are_named(op, message):
    with pytest.raises(InputError, match=message):
        op.infer(f32(1, 7, 8, 3))


def test_large_windows_need_no_index_to_predict():
    op = MaxPool2d((16, 16), (16, 16))
    with pytest.raises(InputError, match="at most 255 positions, this one has 256"):
        op.infer(f32(1, 16, 16, 3))
    assert len(op.prune([True, False]).infer(f32(1, 16, 16, 3))) == 1
