"""Budgets that no plan keeps: the message names a least that holds, and ways out that do."""

from __future__ import annotations

import re

import pytest
from tests.planning.planned import NETWORKS, QUICK, unplanned

import kilograd as kg

STACK_BYTES = 128
"""By how much the stack of two plans may differ."""

CASES = {
    "conv": ("conv", "nrf52840", {}, {}),
    "conv without pages": (
        *("conv", "stm32f746", {"optimizer": kg.SGD(atomic=False)}, {"page": False}),
    ),
    "dense": ("dense", "stm32f746", {"update": kg.update.last(2)}, {}),
    "dense without reruns": (
        *("dense", "nrf52840", {"update": kg.update.last(2)}, {"recompute": False}),
    ),
}


def fitted(case: str, sram: int, **more) -> kg.Program:
    network, device, options, settings = CASES[case]
    model, example = NETWORKS[network]()
    planning = kg.Planning(time_limit=QUICK.time_limit, **(settings | more.pop("settings", {})))
    budget = kg.Budget(sram=sram, step_time=more.pop("step_time", None))
    options = {**options, "device": device, "planning": planning, "budget": budget, **more}
    return kg.compile(model, example, **options)


def refusal(case: str, sram: int, **more) -> str:
    with pytest.raises(kg.InfeasibleError) as caught:
        fitted(case, sram, **more)
    return str(caught.value)


def number(pattern: str, text: str) -> int:
    return int(re.search(pattern, text)[1].replace(",", ""))


@pytest.fixture(scope="module", params=CASES)
def refused(request: pytest.FixtureRequest) -> tuple[str, str, int]:
    text = refusal(request.param, 3000)
    return request.param, text, number(r"planned.* ([\d,]+)\.\n", text)


def test_the_named_least_compiles(refused):
    case, text, least = refused
    program = fitted(case, least)
    assert program.memory.sram_bytes <= least
    network, device, options, _ = CASES[case]
    plain = number(r"as it is it needs ([\d,]+)", text)
    assert least < plain
    if "optimizer" not in options:
        assert plain == unplanned(network, device).memory.sram_bytes
    assert "the 3,000 bytes of SRAM of the budget" in text


def test_less_does_not(refused):
    case, text, least = refused
    if "(proven), and the rest" in text:
        bound = least - STACK_BYTES
    else:
        bound = number(r"with less than ([\d,]+) there is no plan", text) - STACK_BYTES
    assert "are the least" in refusal(case, bound)


def test_what_makes_it_adds_up(refused):
    _, text, least = refused
    parts = re.findall(r"^ *([\d,]+) B  (arena|learned state|stack)", text, re.M)
    assert sum(int(size.replace(",", "")) for size, _ in parts) == least
    arena = number(r"([\d,]+) B  arena", text)
    block = text.split("B  arena, at its peak:\n")[1].split("while running")[0]
    alive = sum(int(n.replace(",", "")) for n in re.findall(r"([\d,]+) B  ", block))
    assert 0.9 * arena <= alive <= arena
    assert "while running" in text


@pytest.mark.slow
def test_the_ways_out_do(refused):
    case, text, least = refused
    ways = text.split("What would lower it:\n")[1].splitlines()
    assert ways and all(line.startswith("  * ") for line in ways)
    for way in ways:
        sram = number(r"([\d,]+) bytes would do", way)
        assert sram < least
        more: dict = {}
        if "Planning(page=True)" in way:
            more = {"settings": {"page": True}, "storage": re.search(r"storage='(\w+)'", way)[1]}
        elif "recompute=True" in way:
            more = {"settings": {"recompute": True}}
        elif "atomic" in way:
            more = {"optimizer": kg.SGD(atomic=False)}
        elif "update=" in way:
            more = {"update": kg.update.last(number(r"last\((\d+)\)", way))}
        assert fitted(case, sram + 256, **more).memory.sram_bytes <= sram + 256


@pytest.mark.slow
@pytest.mark.parametrize("case", ["conv", "dense"])
def test_a_step_time_that_pages_do_not_keep(case):
    network, device, *_ = CASES[case]
    plain = unplanned(network, device)
    limit = plain.step_cost.seconds * 1.01
    text = refusal(case, 3000, step_time=limit)
    assert f"step_time={limit!r}" in text
    way = next(line for line in text.splitlines() if "a step_time of" in line)
    seconds = float(re.search(r"a step_time of ([\d.e-]+) s", way)[1])
    sram = number(r"([\d,]+) bytes would do", way)
    assert seconds > limit and sram < plain.memory.sram_bytes
    assert f"{plain.memory.sram_bytes:,}" in text
    program = fitted(case, sram, step_time=seconds)
    assert program.memory.sram_bytes <= sram and program.step_cost.seconds <= seconds


def test_a_step_that_is_too_slow_as_it_is():
    text = refusal("conv", 20_000, step_time="1ms")
    assert "a training step takes" in text and "0.001 s of the budget" in text
