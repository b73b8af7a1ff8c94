"""Secondary storage of a device, where tensors wait that have no room in SRAM.

A transfer of n bytes takes `latency + padded(n) / bandwidth` seconds, and `seconds * watts` joules
(POET, Patil et al., ICML 2022); writing to flash erases the blocks first.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kilograd.devices.costs import Cost

Kind = Literal["sd", "nor_flash", "psram", "file"]


class Storage(BaseModel):
    """One storage device: a `[[storage]]` table of a device file.

    Fields:
        name, title: the short name ("sd", "qspi"), and one line for people.
        kind: "sd", "nor_flash" (which has to be erased before it is written), "psram", "file".
        size_bytes: what is free for tensors.
        read_seconds, write_seconds: latency of one transfer.
        read_bytes_per_second, write_bytes_per_second: bandwidth once it flows.
        watts: power while it works.
        block_bytes: transfers start and end at multiples of this (512 for an SD card).
        erase_bytes: the erase block; 0 where writes need no erase.
        erase_seconds: time to erase one such block.
        erase_cycles: how many erases a block endures, None where nobody says.
        dma: whether pages move while the processor computes.
        sources: where every number is from, or that it is an estimate and what from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    title: str
    kind: Kind
    size_bytes: int = Field(gt=0)
    read_seconds: float = Field(ge=0, allow_inf_nan=False)
    read_bytes_per_second: float = Field(gt=0, allow_inf_nan=False)
    write_seconds: float = Field(ge=0, allow_inf_nan=False)
    write_bytes_per_second: float = Field(gt=0, allow_inf_nan=False)
    watts: float = Field(ge=0, allow_inf_nan=False)
    block_bytes: int = Field(default=1, gt=0)
    erase_bytes: int = Field(default=0, ge=0)
    erase_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    erase_cycles: int | None = Field(default=None, gt=0)
    dma: bool = False
    sources: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_consistency(self) -> Storage:
        if self.kind == "nor_flash" and not self.erase_bytes:
            raise ValueError(
                f'"{self.name}" is NOR flash, which is erased before it is written: '
                '"erase_bytes" is missing'
            )
        if not self.erase_bytes and (self.erase_seconds or self.erase_cycles is not None):
            raise ValueError(
                f'"{self.name}" has "erase_seconds" or "erase_cycles" but no "erase_bytes"'
            )
        for what, unit in (("block_bytes", self.block_bytes), ("erase_bytes", self.erase_bytes)):
            if unit and self.size_bytes % unit:
                raise ValueError(
                    f'"{self.name}": size_bytes = {self.size_bytes} is no multiple of '
                    f"{what} = {unit}"
                )
        return self

    def read_cost(self, size_bytes: int) -> Cost:
        """Time and energy to bring a tensor of that many bytes into SRAM."""
        if not size_bytes:
            return Cost(0.0, 0.0)
        return self._cost(
            self.read_seconds + self._transferred(size_bytes) / self.read_bytes_per_second
        )

    def write_cost(self, size_bytes: int) -> Cost:
        """Time and energy to write a tensor of that many bytes, its erase blocks erased first."""
        if not size_bytes:
            return Cost(0.0, 0.0)
        erases = -(-size_bytes // self.erase_bytes) if self.erase_bytes else 0
        return self._cost(
            erases * self.erase_seconds
            + self.write_seconds
            + self._transferred(size_bytes) / self.write_bytes_per_second
        )

    def padded(self, size_bytes: int) -> int:
        """Bytes that a tensor occupies: whole blocks, and whole erase blocks of its own."""
        unit = math.lcm(self.block_bytes, self.erase_bytes or 1)
        return -(-size_bytes // unit) * unit

    def _transferred(self, size_bytes: int) -> int:
        return -(-size_bytes // self.block_bytes) * self.block_bytes

    def _cost(self, seconds: float) -> Cost:
        return Cost(seconds, seconds * self.watts)
