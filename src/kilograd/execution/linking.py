"""The linker script of a device: flash for code and constants, SRAM for data below the stack."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kilograd.devices import Device

# Output sections are listed so that nothing allocatable is left for the linker to place on its own.
# Unwind tables are dropped: C never unwinds, and they cost flash for every function. So is debug
# information: zig's compiler-rt brings a megabyte of it.
_TEMPLATE = """\
/* {title} */
ENTRY(_start)
{externs}MEMORY {{
  FLASH (rx) : ORIGIN = {flash_base:#010x}, LENGTH = {flash_bytes}
  SRAM (rw) : ORIGIN = {sram_base:#010x}, LENGTH = {sram_bytes}
}}
_estack = ORIGIN(SRAM) + LENGTH(SRAM);
SECTIONS {{
  .vectors : {{ KEEP(*(.vectors)) }} > FLASH
  .text : {{ *(.text .text.*) }} > FLASH
  .rodata : {{ *(.rodata .rodata.*) . = ALIGN(4); }} > FLASH
  .data : {{
    . = ALIGN(4); _sdata = .; *(.data .data.*) . = ALIGN(4); _edata = .;
  }} > SRAM AT > FLASH
  _sidata = LOADADDR(.data);
  .bss (NOLOAD) : {{
    . = ALIGN(4); _sbss = .; *(.bss .bss.* COMMON) . = ALIGN(4); _ebss = .;
  }} > SRAM
  /DISCARD/ : {{
    *(.ARM.exidx*) *(.ARM.extab*) *(.eh_frame*) *(.init_array*) *(.fini_array*) *(.debug_*)
  }}
}}
ASSERT(_ebss + {stack_bytes} <= _estack,
  "static data and a stack of {stack_bytes} bytes do not fit the {sram_bytes} bytes of SRAM")
"""

# "section '.bss' will not fit in region 'SRAM': overflowed by 12 bytes" (LLD) and
# "region `SRAM' overflowed by 12 bytes" (GNU ld).
_OVERFLOW = re.compile(r"region [`'](FLASH|SRAM)':? overflowed by (\d+) byte")
_STACK_ASSERT = "static data and a stack of"


def linker_script(device: Device, exports: Sequence[str] = (), stack_bytes: int = 0) -> str:
    """Return a GNU-style linker script; flash is read and execute, SRAM read and write.

    The script defines `_estack` (the top of SRAM, where the stack starts and grows down), `_sdata`,
    `_edata`, `_sidata` (where flash keeps the initial values of .data), `_sbss` and `_ebss`.

    Args:
        device: a microcontroller.
        exports: functions and objects to keep though nothing in the program refers to them.
        stack_bytes: linking fails where less than this is left between `_ebss` and `_estack`.

    Raises:
        InputError: the device is the host.
    """
    memory = device.memory_map()
    return _TEMPLATE.format(
        title=device.title,
        externs=f"EXTERN({' '.join(exports)})\n" if exports else "",
        flash_base=memory.flash_base,
        flash_bytes=memory.flash_bytes,
        sram_base=memory.sram_base,
        sram_bytes=memory.sram_bytes,
        stack_bytes=stack_bytes,
    )


def overflow_message(device: Device, linker_output: str) -> str | None:
    """Explain a link that failed because the program does not fit; None if it failed otherwise."""
    memory = device.memory_map()
    # Every section after the first that does not fit is reported again; the largest figure counts.
    excess: dict[str, int] = {}
    for region, count in _OVERFLOW.findall(linker_output):
        excess[region] = max(excess.get(region, 0), int(count))
    parts = []
    if "FLASH" in excess:
        parts.append(
            f"code and constants need {memory.flash_bytes + excess['FLASH']} bytes of flash, "
            f"{excess['FLASH']} more than the {memory.flash_bytes} it has"
        )
    if "SRAM" in excess:
        parts.append(
            f"static data need {memory.sram_bytes + excess['SRAM']} bytes of SRAM, "
            f"{excess['SRAM']} more than the {memory.sram_bytes} it has, before any stack"
        )
    if not parts and _STACK_ASSERT in linker_output:
        line = next(line for line in linker_output.splitlines() if _STACK_ASSERT in line)
        parts.append(line[line.index(_STACK_ASSERT) :].strip())
    if not parts:
        return None
    return (
        f"the program does not fit {device.name}: {'; '.join(parts)}. Train fewer layers, use a "
        "smaller input or model, or choose a larger device."
    )
