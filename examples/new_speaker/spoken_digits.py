"""Spoken digits: recordings, their log-mel energies, and a network that is trained on them.

The recordings are those of the Free Spoken Digit Dataset (Jackson, 2016, CC BY-SA 4.0): six
speakers say every digit fifty times. Takes 0 to 4 are the official test split.
"""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kilograd.zoo.model import DepthwiseSeparable, ZooModel, conv_bn_relu

RATE = 8000
FRAMES, BANDS, WINDOW = 32, 24, 256
SPEEDS = (1.0, 0.88, 1.13)
TEST_TAKES = 5
SAMPLES_A_DIGIT = 5
EPOCHS = 16
BATCH = 64

Split = tuple[np.ndarray, np.ndarray]
"""Inputs and labels."""
Bar = Callable[[Iterable[int]], Iterable[int]]
"""Goes through what it is given, and may show how far it has come."""


class SpeechNet(ZooModel):
    """DS-CNN on 32 frames of 24 bands: [N, 1, 32, 24] -> [N, 10].

    Zhang et al., "Hello Edge", 2017; words are stretched to the same length, so the last feature
    map keeps its four places in time apart.
    """

    def __init__(self, widths: tuple[int, ...] = (24, 32, 48, 48, 64)) -> None:
        super().__init__()
        self.input_shape = (1, FRAMES, BANDS)
        self.first_conv = conv_bn_relu(1, widths[0], 5, stride=2, padding=2)
        self.blocks = nn.Sequential(
            *(
                DepthwiseSeparable(inputs, outputs, stride)
                for (inputs, outputs), stride in zip(pairwise(widths), (1, 2, 1, 2), strict=True)
            )
        )
        self.dropout = nn.Dropout(0.3)
        self.pool = nn.Sequential(nn.AvgPool2d((1, BANDS // 8)), nn.Flatten())
        self.classifier = nn.Linear(widths[-1] * (FRAMES // 8), 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.pool(self.dropout(self.blocks(self.first_conv(x)))))
        return y


@dataclass(frozen=True)
class Sounds:
    """Recordings as float32 in [-1, 1], what was said, by whom and which time."""

    waves: list[np.ndarray]
    digit: np.ndarray
    speaker: np.ndarray
    take: np.ndarray
    names: tuple[str, ...]


def read_archive(path: Path) -> Sounds:
    """An .npz file with `pcm` (int16, all recordings one behind the other), `offset` and labels."""
    with np.load(path) as file:
        pcm = file["pcm"].astype(np.float32) / 32768
        waves = [pcm[a:b] for a, b in pairwise(file["offset"])]
        digit, speaker, take = (
            file[name].astype(np.int64) for name in ("digit", "speaker", "take")
        )
        return Sounds(waves, digit, speaker, take, tuple(map(str, file["speaker_names"])))


def read_folder(path: Path) -> Sounds:
    """The dataset's own folder: `{digit}_{speaker}_{take}.wav`, mono, 16 bits, 8 kHz."""
    found = sorted(path.glob("[0-9]_*_*.wav"))
    labels = [file.stem.split("_") for file in found]
    names = tuple(sorted({speaker for _, speaker, _ in labels}))
    return Sounds(
        [_read_wave(file) for file in found],
        np.array([int(digit) for digit, _, _ in labels], np.int64),
        np.array([names.index(speaker) for _, speaker, _ in labels], np.int64),
        np.array([int(take) for _, _, take in labels], np.int64),
        names,
    )


def _read_wave(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        form = file.getnchannels(), file.getsampwidth(), file.getframerate()
        if form != (1, 2, RATE):
            raise ValueError(f"{path}: {form} channels, bytes and Hz; (1, 2, {RATE}) is needed")
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return data.astype(np.float32) / 32768


def mel_filters(bands: int, rate: int) -> np.ndarray:
    """Triangles [bands, WINDOW / 2 + 1], evenly spaced in mel from 60 Hz to 95 % of half the rate.

    O'Shaughnessy, "Speech Communication", 1987: mel = 2595 log10(1 + f / 700 Hz).
    """
    low, high = (2595 * np.log10(1 + f / 700) for f in (60, 0.475 * rate))
    corners = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
    frequencies = np.arange(WINDOW // 2 + 1) * rate / WINDOW
    left, middle, right = (corners[i : i + bands, None] for i in range(3))
    rising, falling = (
        (frequencies - left) / (middle - left),
        (right - frequencies) / (right - middle),
    )
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def log_mel(sound: np.ndarray, filters: np.ndarray, speed: float = 1.0) -> np.ndarray:
    """[FRAMES, BANDS] of a recording, frames evenly spread over it; mean 0 and deviation 1."""
    if speed != 1.0:
        places = np.arange(int(len(sound) / speed)) * speed
        sound = np.interp(places, np.arange(len(sound)), sound).astype(np.float32)
    sound = np.append(sound[:1], sound[1:] - np.float32(0.95) * sound[:-1])
    sound = np.pad(sound, (0, max(0, WINDOW + FRAMES - len(sound))))
    starts = np.linspace(0, len(sound) - WINDOW, FRAMES).astype(int)
    frames = sound[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW).astype(np.float32)
    energies = (np.abs(np.fft.rfft(frames)) ** 2).astype(np.float32) @ filters.T
    logs = np.log(energies + 1e-5)
    return (logs - logs.mean()) / (logs.std() + 1e-3)


@dataclass(frozen=True)
class Recordings:
    """Features [speeds, N, 1, FRAMES, BANDS] at every speed, and what was said by whom."""

    x: np.ndarray
    digit: np.ndarray
    speaker: np.ndarray
    take: np.ndarray
    names: tuple[str, ...]

    def split(self, chosen: np.ndarray) -> Split:
        """The recordings at these indices, at their own speed."""
        return self.x[0, chosen], self.digit[chosen]

    def test(self, speaker: int) -> Split:
        return self.split(np.flatnonzero((self.speaker == speaker) & (self.take < TEST_TAKES)))

    def draw(self, speaker: int, seed: int) -> tuple[Split, Split]:
        """What the device learns from, and the takes left for choosing settings."""
        rng, chosen = np.random.default_rng(seed), []
        own = (self.speaker == speaker) & (self.take >= TEST_TAKES)
        for digit in range(10):
            takes = np.flatnonzero(own & (self.digit == digit))
            chosen.append(rng.permutation(takes)[:SAMPLES_A_DIGIT])
        learned = np.concatenate(chosen)
        rest = np.setdiff1d(np.flatnonzero(own), learned)
        return self.split(learned), self.split(rest)


def features(sounds: Sounds, speeds: tuple[float, ...], bar: Bar = iter) -> Recordings:
    """The log-mel energies of all recordings, at each speed."""
    filters, count = mel_filters(BANDS, RATE), len(sounds.waves)
    x = np.empty((len(speeds), count, 1, FRAMES, BANDS), np.float32)
    for index in bar(range(count)):
        for place, speed in enumerate(speeds):
            x[place, index, 0] = log_mel(sounds.waves[index], filters, speed)
    return Recordings(x, sounds.digit, sounds.speaker, sounds.take, sounds.names)


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Moved by up to three frames and one band, a gap in time and one in frequency, and noise.

    The gaps are those of Park et al., "SpecAugment", 2019.
    """
    count, _, frames, bands = x.shape

    def integers(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (count, 1), generator=generator)

    times = (torch.arange(frames) + integers(-3, 4)).clamp(0, frames - 1)
    tones = (torch.arange(bands) + integers(-1, 2)).clamp(0, bands - 1)
    y = x[torch.arange(count)[:, None, None], 0, times[:, :, None], tones[:, None, :]]
    for axis, size, widest in ((1, frames, 7), (2, bands, 5)):
        start, width = integers(0, size - widest), integers(0, widest)
        place = torch.arange(size)
        gap = (place >= start) & (place < start + width)
        y = y.masked_fill(gap[:, :, None] if axis == 1 else gap[:, None, :], 0.0)
    return (y + 0.1 * torch.randn(y.shape, generator=generator))[:, None]


def pretrain(sounds: Recordings, chosen: np.ndarray, epochs: int, bar: Bar = iter) -> SpeechNet:
    """Train on these recordings in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, generator = SpeechNet(), torch.Generator().manual_seed(0)
        x, y = torch.tensor(sounds.x[:, chosen]), torch.tensor(sounds.digit[chosen])
        steps = epochs * (len(chosen) // BATCH)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
        loss = nn.CrossEntropyLoss(label_smoothing=0.1)
        model.train()
        for _ in bar(range(epochs)):
            order = torch.randperm(len(chosen), generator=generator)
            for part in order[: len(order) // BATCH * BATCH].split(BATCH):
                speed = torch.randint(len(x), (BATCH,), generator=generator)
                optimizer.zero_grad()
                loss(model(augment(x[speed, part], generator)), y[part]).backward()
                optimizer.step()
                schedule.step()
    return model.eval()
