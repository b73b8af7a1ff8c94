"""What an ONNX file tells about its exporter that the user should know.

PyTorch's exporters fold batch norm into the layer before it. The one by `torch.export` keeps the
layer's name for the folded weight and notes the rewriting rule in the node's metadata; the one by
TorchScript makes up a name such as `onnx::Conv_16`. Either way what is learned belongs to the file.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import onnx

_RULE = "pkg.onnxscript.rewriter.rule_name"
_MADE_UP = re.compile(r"onnx::\w+_\d+")
_SHOWN = 3


def exporter_notes(model: onnx.ModelProto, parameters: Collection[str]) -> tuple[str, ...]:
    """Sentences about those of `parameters` whose names do not say what they do in PyTorch."""
    folded = [name for name in _folded(model) if name in parameters]
    made_up = [name for name in parameters if _MADE_UP.fullmatch(name)]
    notes = []
    if folded:
        notes.append(
            f"the exporter of this file folded batch norm into {_listed(folded)}, which "
            "the PyTorch model has with other values: do not load back what is learned; export "
            "with optimize=False to keep the two apart"
        )
    if made_up:
        notes.append(
            f"the exporter of this file merged weights into {_listed(made_up)}, names that the "
            "PyTorch model does not have; export with dynamo=True, optimize=False to keep its names"
        )
    return tuple(notes)


def _folded(model: onnx.ModelProto) -> list[str]:
    """The weights of nodes that a rule made which folds batch norm."""
    names = []
    for node in model.graph.node:
        rules = [item.value for item in node.metadata_props if item.key == _RULE]
        if any("FuseBatchNorm" in rule for rule in rules):
            names.append(node.input[1])
    return names


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
