"""The user's own module of the paper's networks as a fake-quantised network, by forward hooks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from kilograd import zoo
from kilograd.ir import DType, Value, evaluate, to_user
from tests.quantised.cases import Case
from tests.quantised.fake_quant import LARGEST_ERROR, StraightThrough


def module_gradients(case: Case) -> dict[str, np.ndarray]:
    """dL/d(parameter) by name in the user's layout, with the parameters that the int8 graph has and
    every activation rounded as there.
    """
    model, _ = case.network.build()
    assert isinstance(model, zoo.TinyNet)
    tensors = [t for t in case.graph.constants.values() if t.origin]
    held = to_user((tensor.origin, tensor.array) for tensor in tensors if tensor.origin)
    model.load_state_dict({name: torch.tensor(array) for name, array in held.items()})
    model.double()
    x = case.ports.inputs[0].to_program(case.x)
    integers = evaluate(case.graph, {case.graph.inputs[0].name: x}, keep=True).values
    results = iter(
        [
            value
            for node in case.graph.nodes
            for value in node.outputs
            if value.type.dtype is DType.I8 and node.op.name != "reshape"
        ]
    )
    _add_hooks(model, results, integers)
    case.torch_loss(model(torch.tensor(case.x, dtype=torch.float64))).backward()
    assert next(results, None) is None, "every int8 result has its place in the module"
    return {name: leaf.grad.numpy() for name, leaf in model.named_parameters()}


def _add_hooks(model: zoo.TinyNet, results: Iterator[Value], integers: dict) -> None:
    """Round the input, activations, projections, sums and the mean, in the order of execution."""

    def rounded(real: Tensor) -> Tensor:
        value = next(results)
        q, stored = value.type.quantization, torch.tensor(integers[value].astype(np.float64))
        assert q is not None
        if stored.ndim == 4:
            stored = stored.permute(0, 3, 1, 2).reshape(real.shape)
        places = torch.clamp(real.detach() / q.scales[0] + q.zero_point, -128, 127)
        assert float((places - stored).abs().max()) <= LARGEST_ERROR, value
        inside = (stored > -128) & (stored < 127)
        return StraightThrough.apply(real, (stored - q.zero_point) * q.scales[0], inside)

    def after(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return rounded(output)

    model.register_forward_pre_hook(lambda _module, inputs: (rounded(inputs[0]),))
    model.activation.register_forward_hook(after)
    for block in model.blocks:
        block.activation.register_forward_hook(after)
        block.pointwise2.register_forward_hook(after)
        if block.residual:
            block.register_forward_hook(after)
    model.pool.register_forward_hook(after)
