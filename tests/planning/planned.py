"""Programs that are planned to fit, for the tests of what is told of them."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from torch import nn

import kilograd as kg
from kilograd import devices, zoo

QUICK = kg.Planning(time_limit=10)


def conv_net() -> tuple[nn.Module, torch.Tensor]:
    """Convolutions whose activations are most of the memory."""
    torch.manual_seed(0)
    layers = [
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)),
    ]
    return nn.Sequential(*layers).eval(), torch.zeros(1, 1, 16, 16)


def dense_net() -> tuple[nn.Module, torch.Tensor]:
    """LeNet-5, whose weights are most of the memory."""
    return zoo.create("lenet")


NETWORKS = {"conv": conv_net, "dense": dense_net}


@functools.cache
def planned(
    network: str, share: float, *, device: str = "nrf52840", storage: str = "", **planning: bool
) -> kg.Program:
    """A network planned for a share of the SRAM that it needs as it stands."""
    model, example = NETWORKS[network]()
    update = kg.update.last(2) if network == "dense" else kg.update.all()
    plain = unplanned(network, device)
    return kg.compile(
        model,
        example,
        device=device,
        update=update,
        budget=kg.Budget(sram=int(share * plain.memory.sram_bytes)),
        planning=replace(QUICK, **planning),
        storage=storage or None,
    )


@functools.cache
def unplanned(network: str, device: str = "nrf52840") -> kg.Program:
    """The network as it stands."""
    model, example = NETWORKS[network]()
    update = kg.update.last(2) if network == "dense" else kg.update.all()
    return kg.compile(model, example, device=devices.load(device), update=update)
