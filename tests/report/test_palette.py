"""The colours of reports can be seen, and told apart by everyone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kilograd.report.palette import (
    DARK_PAGE,
    KINDS,
    LIGHT_PAGE,
    PHASES,
    USES,
    contrast,
    ink_on,
)

# Machado, Oliveira, Fernandes: A physiologically-based model for simulation of color vision
# deficiency (2009), severity 1.
SIGHTS = {
    "all cones": np.eye(3),
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                     [-0.003882, -0.048116, 1.051998]],
    "no green cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                       [-0.011820, 0.042940, 0.968881]],
    "no blue cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                      [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def linear(color: str) -> np.ndarray:
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(color: str, sight: str) -> np.ndarray:
    skimage = pytest.importorskip("skimage.color")
    seen = np.clip(np.asarray(SIGHTS[sight]) @ linear(color), 0, 1)
    encoded = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    return skimage.rgb2lab(encoded[None, None])[0, 0]


@pytest.mark.parametrize("color", sorted({*KINDS.values(), *PHASES.values()}))
def test_colours_stand_out_from_the_page(color):
    assert contrast(color, LIGHT_PAGE) >= 3 and contrast(color, DARK_PAGE) >= 3
    assert contrast(color, ink_on(color)) >= 4.5


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize(
    "colors",
    [
        KINDS.values(),
        PHASES.values(),
        [USES[n] for n in ("arena", "trained weights", "optimiser state", "stack", "other data")],
        [USES[n] for n in ("frozen weights", "initial values", "code", "other data")],
    ],
    ids=["kinds", "phases", "SRAM", "flash"],
)
def test_colours_of_one_chart_differ(colors, sight):
    skimage = pytest.importorskip("skimage.color")
    for one, other in itertools.combinations(colors, 2):
        assert skimage.deltaE_ciede2000(lab(one, sight), lab(other, sight)) > 12, (one, other)
