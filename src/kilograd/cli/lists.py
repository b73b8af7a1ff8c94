"""`kilograd devices`, `kilograd operators`."""

from __future__ import annotations

from rich.table import Table

from kilograd import devices as device_files
from kilograd.cli.app import Json, app, output, print_json
from kilograd.ops import all_operators


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
            device.title,
        )
    output.print(table)


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
