"""What a front end hands to the compiler."""

from __future__ import annotations

from dataclasses import dataclass

from kilograd.ir import Graph


@dataclass(frozen=True, eq=False)
class Imported:
    """A float32 forward graph and what is known of the model it comes from.

    `graph` has one input and one output, types for a batch of 1, and no state: the parameters are
    constants with an origin. `name` is a C identifier made from the class or the file.
    `parameters` gives the shape of every parameter under the user's name and in the user's layout,
    in the user's order. `notes` are sentences that the user should see.
    """

    graph: Graph
    name: str
    parameters: dict[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()
