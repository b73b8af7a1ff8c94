"""The reference networks, as PyTorch exports them, lose all transposes and all batch norms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kilograd import frontend, zoo
from kilograd.ir import evaluate, to_user, verify
from kilograd.ops.affine import ChannelAffine
from kilograd.ops.shape import Transpose
from kilograd.transforms.fold import fold
from kilograd.transforms.layout import arrange
from kilograd.zoo.registry import draw_input


@pytest.mark.parametrize("name", zoo.names())
def test_network(name: str):
    model, example = zoo.create(name)
    torch.manual_seed(0)
    graph = frontend.load(model, example).graph
    arranged, ports = arrange(graph)
    folded = verify(fold(verify(arranged)))
    # Attention moves the heads of queries, keys and values to the front, and back.
    wanted = 4 * len(model.layers) if name == "bert" else 0
    assert sum(isinstance(node.op, Transpose) for node in folded.nodes) == wanted
    assert not any(isinstance(node.op, ChannelAffine) for node in folded.nodes)
    (port,) = ports.inputs
    x = draw_input(model, 2).numpy()
    (before,) = evaluate(graph, {graph.inputs[0].name: x}).outputs
    (after,) = evaluate(folded, {folded.inputs[0].name: port.to_program(x)}).outputs
    after = ports.outputs[0].to_user(after)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
    parameters = dict(model.named_parameters())
    held = [(t.origin, t.array) for t in folded.constants.values() if t.origin]
    for key, array in to_user(held).items():
        expected = parameters[key].detach().numpy()
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)
