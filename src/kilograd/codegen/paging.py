"""What a program with tensors in secondary storage says of them in C.

Offset and checksum of a tensor in storage are the arguments of a macro that says which kind it is:

    PAGE(offset, i)      a page of the running call; its checksum lies beside the arena
    CONSTANT(offset, i)  a constant; its checksum is in flash
    NOW(offset, i)       a stored state before the step, in the bank that counts
    NEXT(offset, i)      its next value, in the other bank, which counts when the step has succeeded
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kilograd.codegen.calls import comment
from kilograd.ir import Graph, Node, Value
from kilograd.ops.page import PageOut
from kilograd.planning.storage import Page, StoragePlan

RESERVED = ("storage", "bank", "stored_crcs", "constant_crcs", "paging", "paging_t")
"""Identifiers that the project uses beside the tensors of a program that pages."""

DRIVERS = ("storage_ram.h", "storage_flash.h", "storage_blocks.h", "storage_file.h")
"""Headers that the generated C does not include, and firmware may."""


@dataclass(frozen=True)
class PagedFunction:
    """One of the program's functions: text and calls of what lies in storage."""

    plan: StoragePlan
    graph: Graph
    pages: Mapping[Value, Page]

    def text(self, value: Value) -> str | None:
        """The arguments that stand for a value in storage; None for one that does not."""
        plan = self.plan
        if value in self.pages:
            page = self.pages[value]
            return f"PAGE({page.offset}, {page.checksum})"
        if value in plan.constants:
            return f"CONSTANT({plan.constants[value]}, {_index(plan.constants, value)})"
        if value in plan.initial:
            return f"NOW({plan.initial[value]}, {_index(plan.initial, value)})"
        state = self.state_of(value)
        if state is not None:
            return f"NEXT({plan.initial[state]}, {_index(plan.initial, state)})"
        return None

    def state_of(self, value: Value) -> Value | None:
        """The stored state of which this is the next value."""
        stored = (s for s, successor in self.graph.updates.items() if successor == value)
        return next((state for state in stored if state in self.plan.initial), None)

    def function(self, node: Node) -> str | None:
        """The C function for a node that has to be another than the operator's own."""
        is_next = isinstance(node.op, PageOut) and self.state_of(node.outputs[0]) is not None
        return "kg_page_keep" if is_next else None


def context(plan: StoragePlan) -> dict[str, object]:
    """What the templates ask for."""
    return {
        "bytes": plan.size_bytes,
        "image_bytes": plan.image_bytes,
        "block_bytes": plan.block_bytes,
        "erase_bytes": plan.erase_bytes,
        "unit": plan.unit_bytes,
        "bank_bytes": plan.bank_bytes,
        "writes": "true" if plan.writes else "false",
        "checksums": plan.checksums,
        "states": len(plan.initial),
        "state_rows": _crc_rows(plan, tuple(plan.initial)),
        "constant_rows": _crc_rows(plan, tuple(plan.constants)),
        "drivers": DRIVERS,
    }


def state_bytes(plan: StoragePlan) -> int:
    """What stored states need in the state structure: the bank that counts, and checksums."""
    return 4 + 4 * len(plan.initial) if plan.initial else 0


def _crc_rows(plan: StoragePlan, values: Sequence[Value]) -> list[dict[str, str]]:
    return [{"crc": f"0x{plan.crc(v):08x}u", "comment": comment(f"{v}: {v.type}")} for v in values]


def _index(mapping: Mapping[Value, int], value: Value) -> int:
    return list(mapping).index(value)
