"""What a session has to know of a program: shapes at its border, its state, its loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kilograd.codegen.paging import state_bytes as paging_state_bytes
from kilograd.ir import Tensor, TensorType, Value
from kilograd.options import SGD, Loss
from kilograd.planning.lifetimes import aligned
from kilograd.planning.storage import StoragePlan
from kilograd.transforms.ports import Port


@dataclass(frozen=True, eq=False)
class Interface:
    """The border of a compiled program.

    `input` and `output` translate between the user's layout and the program's; `target_type` is
    None for an autoencoder. `state` lists the tensors that are learned, those of the state
    structure in its order, `frozen` the constants. `input_ids` is the number of ids that the input
    may hold, None for an input of real numbers. `storage` is the plan of what lies in secondary
    storage.
    """

    name: str
    input: Port
    output: Port
    input_type: TensorType
    output_type: TensorType
    target_type: TensorType | None
    loss: Loss
    optimizer: SGD
    state: Mapping[Value, Tensor]
    frozen: Mapping[Value, Tensor]
    has_softmax: bool
    input_ids: int | None = None
    storage: StoragePlan | None = None

    @property
    def state_bytes(self) -> int:
        """Size of the state structure."""
        tensors = sum(aligned(value.type.bytes) for value in self.state if not self.stored(value))
        return tensors + (paging_state_bytes(self.storage) if self.storage else 0)

    def stored(self, value: Value) -> bool:
        """Whether a state lies in secondary storage, not in the state structure."""
        return self.storage is not None and value in self.storage.initial

    @property
    def checkpoint_bytes(self) -> int:
        """Size of a checkpoint: state, header and checksum."""
        return self.state_bytes + 20
