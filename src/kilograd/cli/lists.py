"""`kilograd devices`, `kilograd operators`."""

from __future__ import annotations

from rich.table import Table

from kilograd import devices as device_files
from kilograd.cli.app import Json, app, output, print_json
from kilograd.devices import Device
from kilograd.ops import all_operators
from kilograd.planning.costs import with_prefix


@app.command()
def devices(as_json: Json = False) -> None:
    """List the devices that programs can be compiled for.

    Example: kilograd devices --json
    """
    known = [device_files.load(name) for name in device_files.names()]
    if as_json:
        print_json([device.model_dump() for device in known])
        return
    table = Table("name", "SRAM", "flash", "clock", "what")
    for device in known:
        table.add_row(
            device.name,
            "-" if device.sram_bytes is None else f"{device.sram_bytes // 1024} KB",
            "-" if device.flash_bytes is None else f"{device.flash_bytes // 1024} KB",
            "-" if device.clock_hz is None else f"{device.clock_hz / 1e6:g} MHz",
            "\n".join([device.title, *_storage(device), *_speed(device)]),
        )
    output.print(table)


def _storage(device: Device) -> list[str]:
    """The secondary storage of a device by name."""
    names = ", ".join(storage.name for storage in device.storage)
    return [f"storage: {names}"] if names else []


def _speed(device: Device) -> list[str]:
    """Time and energy of a million instructions, or of a million FLOP where none are counted."""
    if device.is_host:
        rates = device.flop_per_second, device.flop_per_joule
        seconds, joules = (None if rate is None else 1e6 / rate for rate in rates)
    else:
        seconds, joules = device.seconds(1_000_000), device.joules(1_000_000)
    parts = [
        *([] if seconds is None else [with_prefix(seconds, "s")]),
        *([] if joules is None else [with_prefix(joules, "J")]),
    ]
    unit = "FLOP" if device.is_host else "instructions"
    return [f"estimate: {', '.join(parts)} for a million {unit}"] if parts else []


@app.command()
def operators(as_json: Json = False) -> None:
    """List the operators that programs are made of.

    Example: kilograd operators
    """
    known = all_operators()
    if as_json:
        print_json([operator.name for operator in known])
        return
    table = Table("operator", "what")
    for operator in known:
        table.add_row(operator.name, (operator.__doc__ or "").splitlines()[0])
    output.print(table)
