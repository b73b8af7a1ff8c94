"""Budgets that no plan keeps: the message names a least that holds, and ways out that do."""

from __future__ import annotations

import math
import re

import pytest
from tests.planning.planned import NETWORKS, QUICK, unplanned

import kilograd as kg
from kilograd.devices import load
from kilograd.devices.costs import Cost
from kilograd.fitting import NoFitError
from kilograd.planning.paging import Mover, Request, TooCostlyError, leanest, node_prices
from kilograd.planning.paging.function import pose
from kilograd.planning.paging.tasks import update_groups
from kilograd.planning.step_limits import StepLimit

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
    step = {key: more.pop(key) for key in ("step_time", "step_energy") if key in more}
    budget = kg.Budget(sram=sram, **step)
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
@pytest.mark.parametrize("option", ["step_time", "step_energy"])
@pytest.mark.parametrize("case", ["conv", "dense"])
def test_a_limit_on_a_step_that_pages_do_not_keep(case, option):
    quantity, unit = ("seconds", "s") if option == "step_time" else ("joules", "J")
    network, device, *_ = CASES[case]
    plain = unplanned(network, device)
    limit = getattr(plain.step_cost, quantity) * 1.01
    text = refusal(case, 3000, **{option: limit})
    assert f"{option}={limit!r}" in text
    way = next(line for line in text.splitlines() if f"a {option} of" in line)
    enough = float(re.search(rf"a {option} of ([\d.e-]+) {unit}", way)[1])
    sram = number(r"([\d,]+) bytes would do", way)
    assert enough > limit and sram < plain.memory.sram_bytes
    assert f"{plain.memory.sram_bytes:,}" in text
    program = fitted(case, sram, **{option: enough})
    assert program.memory.sram_bytes <= sram
    assert getattr(program.step_cost, quantity) <= enough


def test_both_limits_are_named_and_loosened_together():
    """Pages take more time and more energy than a step within 1 % of the plain one has."""
    plain = unplanned("conv", "nrf52840").step_cost
    limits = {"step_time": plain.seconds * 1.01, "step_energy": plain.joules * 1.01}
    text = refusal("conv", 12_000, **limits)
    assert all(f"{option}={limit!r}" in text for option, limit in limits.items())
    # Either limit by itself helps only where a search that is cut off finds another plan.
    assert re.search(r"a step_(time of [\d.e-]+ s|energy of [\d.e-]+ J)\b.* or more", text)


def test_what_each_choice_takes_at_least_is_named_where_it_is_too_much():
    """Constants have to lie in storage, which takes more time than there is, and energy enough."""
    plain = unplanned("dense")
    network, example = NETWORKS["dense"]()
    budget = kg.Budget(
        sram=int(0.7 * plain.memory.sram_bytes),
        flash=plain.memory.flash_bytes - 2000,
        step_time=plain.step_cost.seconds * 1.001,
        step_energy="10J",
    )
    options = {"device": "nrf52840", "update": kg.update.last(2)}
    with pytest.raises(kg.InfeasibleError) as caught:
        kg.compile(network, example, budget=budget, planning=kg.Planning(time_limit=2), **options)
    text = str(caught.value)
    least = re.search(r"was tried, a step takes at least ([\d.]+) ms \(step_time\)\.", text)
    assert 1e-3 * float(least[1]) > budget.step_seconds
    assert "J (step_energy)" not in text


@pytest.mark.parametrize("network", ["conv", "dense"])
def test_the_least_of_each_quantity_over_all_choices(network):
    """The choice that needs the fewest bytes is tried first, and is not the cheapest."""
    program, device = unplanned(network), load("nrf52840")
    graph = program.train.graph
    prices, mover = node_prices(graph, device, None), Mover(device.storage[0], device)
    request = Request(graph, prices, True, program.step_cost.seconds / 2)
    groups = [frozenset(group) for group in update_groups(graph)]
    sets = [frozenset().union(*groups[:count]) for count in range(len(groups) + 1)]
    problems = [pose(request, stored, mover)[1] for stored in sets]
    with pytest.raises(TooCostlyError) as caught:
        leanest([request], lambda stored: 0, mover, QUICK)
    assert caught.value.cost == Cost(
        min(p.plain_seconds for p in problems), min(p.plain_joules for p in problems)
    )
    assert max(p.plain_joules for p in problems) > 1.1 * caught.value.cost.joules


def test_of_several_forms_the_least_holds_for_all():
    first, second = NoFitError(None, 0, 0, Cost(2.0, 5.0)), NoFitError(None, 0, 0, Cost(3.0, 4.0))
    assert NoFitError.closest([(None, first), (None, second)])[1].cost == Cost(2.0, 4.0)
    unknown = NoFitError(None, 0, 0)
    assert NoFitError.closest([(None, first), (None, unknown)])[1].cost is None


def test_the_quickest_plan_within_an_energy():
    """Reading pages is quicker than running again, and takes twice the energy."""
    sram = int(0.75 * unplanned("conv").memory.sram_bytes)
    settings = {"objective": "time"}
    free = fitted("conv", sram, settings=settings)
    limit = free.step_cost.joules * 0.7
    program = fitted("conv", sram, settings=settings, step_energy=limit)
    assert program.step_cost.joules <= limit
    assert program.step_cost.seconds > free.step_cost.seconds
    assert program.memory.sram_bytes <= sram


def test_a_step_that_takes_too_much_energy_as_it_is():
    plain = unplanned("conv").step_cost
    text = refusal("conv", 20_000, step_energy="100uJ")
    assert f"a training step takes {1e6 * plain.joules:.4g} µJ by estimate" in text
    assert "100 µJ of the budget (step_energy)" in text
    assert "a device that takes less" in text


def test_limits_on_a_step_that_fits_unplanned():
    """In the room that there is, to the last bit, and just below it."""
    plain = unplanned("conv", "nrf52840")
    model, example = NETWORKS["conv"]()

    def compiled(joules: float) -> kg.Program:
        budget = kg.Budget(step_energy=joules)
        return kg.compile(model, example, device="nrf52840", budget=budget)

    assert compiled(plain.step_cost.joules).step_cost == plain.step_cost
    for below in (plain.step_cost.joules * (1 - 1e-9), math.nextafter(plain.step_cost.joules, 0)):
        with pytest.raises(kg.InfeasibleError, match="a training step takes") as caught:
            compiled(below)
        pair = re.search(r"takes (.+) by estimate, more than the (.+) of the", str(caught.value))
        assert pair[1] != pair[2]


@pytest.mark.parametrize("ulps", range(1, 9))
@pytest.mark.parametrize("most", [48.13e-6, 0.1, 1.0, 123.0, 9.99951e-7])
def test_a_limit_and_what_is_just_above_it_read_differently(most, ulps):
    amount = most + ulps * math.ulp(most)
    taken, limit = StepLimit("joules", most).told_apart(amount)
    assert taken != limit


def test_a_limit_and_what_is_far_above_it_read_shortly():
    assert StepLimit("joules", 1e-4).told_apart(0.123456789) == ("123.5 mJ", "100 µJ")
    assert StepLimit("seconds", 1e-4).told_apart(1.00004e-4) == ("100.004 µs", "100 µs")


@pytest.mark.parametrize(("option", "name"), [("step_time", "time"), ("step_energy", "energy")])
def test_a_device_that_has_no_estimate(option, name):
    model, example = NETWORKS["conv"]()
    budget = kg.Budget(**{option: 1.0})
    with pytest.raises(kg.InputError, match=f"needs an estimate of {name}, and host has none"):
        kg.compile(model, example, budget=budget)


@pytest.mark.parametrize(
    ("option", "given", "rate"),
    [("step_time", "500ms", "flop_per_second"), ("step_energy", "5mJ", "flop_per_joule")],
)
def test_the_way_to_an_estimate_leads_there(option, given, rate):
    model, example = NETWORKS["conv"]()
    budget = kg.Budget(**{option: given})
    with pytest.raises(kg.InputError, match=f"{option}='{given}' needs .* describe its {rate} in"):
        kg.compile(model, example, budget=budget)
    device = load("host").model_copy(update={rate: 1e10})
    assert kg.compile(model, example, budget=budget, device=device).step_estimate
    board = load("stm32f746").model_copy(update={"cycles_per_instruction": None})
    with pytest.raises(kg.InputError, match=r"describe \w+ and cycles_per_instruction in a device"):
        kg.compile(model, example, budget=budget, device=board)


@pytest.mark.parametrize(
    ("given", "joules"),
    [
        *(("5mJ", 5e-3), ("5mj", 5e-3), ("300uJ", 3e-4), (" 2 J", 2.0), (0.25, 0.25)),
        *(("5 \N{MICRO SIGN}J", 5e-6), ("5\N{GREEK SMALL LETTER MU}J", 5e-6)),
        *(("1e-3", 1e-3), ("1E-3J", 1e-3), ("1e+2mJ", 0.1), (1e16, 1e16), ("1e16", 1e16)),
    ],
)
def test_energies(given, joules):
    assert kg.Budget(step_energy=given).step_joules == pytest.approx(joules)


@pytest.mark.parametrize(
    "given",
    [
        *("5ms", "0", "-1mJ", "much", "5kWh", "5MJ", "5Mj", "1e400J", "1e-400J", float("inf")),
        *(float("nan"), True, "1e-320nJ"),
    ],
)
def test_no_energies(given):
    with pytest.raises(kg.InputError, match="is no energy; write joules"):
        _ = kg.Budget(step_energy=given).step_joules


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("500ms", 0.5), ("5 \N{MICRO SIGN}s", 5e-6), ("2 MIN", 120.0), ("1.5Min", 90.0), ("2S", 2.0)],
)
def test_durations(given, seconds):
    assert kg.Budget(step_time=given).step_seconds == pytest.approx(seconds)


@pytest.mark.parametrize("given", ["5MS", "5Ms", "1e400s", "1e308h", "5mJ", 0])
def test_no_durations(given):
    with pytest.raises(kg.InputError, match="is no duration; write seconds"):
        _ = kg.Budget(step_time=given).step_seconds


def test_a_step_that_is_too_slow_as_it_is():
    text = refusal("conv", 20_000, step_time="1ms")
    assert "a training step takes" in text and "1 ms of the budget" in text
