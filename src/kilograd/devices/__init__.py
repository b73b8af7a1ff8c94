"""Devices: what a microcontroller has, one TOML file each."""

from kilograd.devices.costs import Cost
from kilograd.devices.loader import Cpu, Device, MemoryMap, load, names
from kilograd.devices.storage import Storage

__all__ = ["Cost", "Cpu", "Device", "MemoryMap", "Storage", "load", "names"]
