"""Devices: what a microcontroller has, one TOML file each."""

from kilograd.devices.loader import Device, MemoryMap, load, names

__all__ = ["Device", "MemoryMap", "load", "names"]
