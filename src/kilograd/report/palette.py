"""The colours of reports.

Each has a contrast of at least 3 to 1 with the light and with the dark page, and any two of a chart
differ for eyes without red, green or blue cones (tests/report/test_palette.py measures both).
"""

from __future__ import annotations

from kilograd.planning.facts import Kind, Phase

LIGHT_PAGE = "#ffffff"
DARK_PAGE = "#161a20"

KINDS: dict[Kind, str] = {
    Kind.INPUT: "#8c8c8c",
    Kind.ACTIVATION: "#28a0c8",
    Kind.SAVED: "#6450f0",
    Kind.COTANGENT: "#dc7814",
    Kind.GRADIENT: "#007850",
    Kind.SCRATCH: "#646478",
}

PHASES: dict[Phase, str] = {
    Phase.FORWARD: KINDS[Kind.SAVED],
    Phase.BACKWARD: KINDS[Kind.COTANGENT],
    Phase.CHECK: KINDS[Kind.INPUT],
    Phase.UPDATE: KINDS[Kind.GRADIENT],
}

USES: dict[str, str] = {
    "arena": KINDS[Kind.SAVED],
    "trained weights": KINDS[Kind.GRADIENT],
    "optimiser state": KINDS[Kind.SCRATCH],
    "stack": KINDS[Kind.COTANGENT],
    "frozen weights": KINDS[Kind.ACTIVATION],
    "initial values": KINDS[Kind.GRADIENT],
    "code": KINDS[Kind.COTANGENT],
    "other data": KINDS[Kind.INPUT],
    "free": "#a9afb8",
}
"""Parts of the SRAM and of the flash by name; within one memory no two are alike."""


FRONT: dict[str, str] = {
    "chosen": KINDS[Kind.COTANGENT],
    "on the front": KINDS[Kind.SAVED],
    "beaten": KINDS[Kind.INPUT],
}
"""Choices of a front; their shapes differ, too."""


def luminance(color: str) -> float:
    """The relative luminance of `#rrggbb`, in [0, 1] (WCAG 2.2)."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, from 1 to 21 (WCAG 2.2)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def ink_on(color: str) -> str:
    """The colour of text on a colour: black or white, whichever contrasts more."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, color))
