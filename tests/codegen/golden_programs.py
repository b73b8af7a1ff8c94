"""The two programs whose generated C is kept; run as a script, it prints a hash of all their
files.
"""

from __future__ import annotations

import hashlib

import torch
from torch import nn

import kilograd as kg


def dense() -> kg.Program:
    """Everything trained, with momentum."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    return kg.compile(net, torch.zeros(1, 4), optimizer=kg.SGD(momentum=0.9), name="dense")


def picture() -> kg.Program:
    """Convolutions with batch norm, of which a part is trained, each update made at once."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.ReLU6(), nn.Conv2d(4, 6, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    ).eval()  # fmt: skip
    return kg.compile(
        net, torch.zeros(1, 1, 8, 8), name="picture", optimizer=kg.SGD(atomic=False),
        update={"5.weight": kg.update.channels(0.5), "8": kg.update.full(), "3": kg.update.bias()},
    )  # fmt: skip


PROGRAMS = {"dense": dense, "picture": picture}

if __name__ == "__main__":
    digest = hashlib.sha256()
    for build in PROGRAMS.values():
        program = build()
        for name, text in sorted(program.sources.files.items()):
            digest.update(f"{name}\n{text}".encode())
        digest.update(program.manifest().encode())
    print(digest.hexdigest())
