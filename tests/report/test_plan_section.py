"""What a report tells of a plan: its rows by layer, and nothing where nothing moves."""

from __future__ import annotations

import re

import pytest
from tests.planning.planned import planned, unplanned

from kilograd.report import page


@pytest.mark.parametrize(("network", "share", "options"), [("conv", 0.6, {}), ("dense", 0.93, {})])
def test_rows_by_layer_add_up(network, share, options):
    program = planned(network, share, **options)
    told = program.plan.functions[-1]
    rows = page._by_layer(program.figures)
    assert sum(row["reads"] for row in rows) == told.page_ins
    assert sum(row["writes"] for row in rows) == told.page_outs
    assert sum(row["again"] for row in rows) == told.reruns
    assert sum(row["stored"] for row in rows) == told.stored_bytes
    extra = told.price.joules - told.plain.joules
    assert sum(row["joules"] for row in rows) == pytest.approx(extra)


def test_the_page_tells_each_tensor_that_moves():
    program = planned("conv", 0.6)
    text = page.render(program)
    section = re.search(r'<section id="plan">.*?</section>', text, re.S)[0]
    for tensor in program.plan.functions[-1].tensors:
        assert f'<span class="name">{tensor.name}</span>' in section
        for stretch in tensor.away:
            assert f"nodes {stretch.first + 1} to {stretch.last - 1}" in section


def test_no_section_without_a_plan():
    assert 'id="plan"' not in page.render(unplanned("conv"))
