"""Rematerialisation and paging on POET's graphs: energy, gap and time to solve.

    python benchmarks/planning.py [--seconds 60] [--shares 100 75 50 25 15] [--deadlines 1.3 3]
        [--poet 60] [--chains] [--large] [--random 200] [INSTANCE ...]

Reads $KILOGRAD_DATA/planning, or ../shared/data/planning beside the repository. An instance is a
name such as `resnet18_cifar_m4`. RAM is a share of the plain peak, at least the least possible.
`--poet` also solves POET's own formulation with CBC and HiGHS for so many seconds each (small
instances only: it has 5 T^2 variables). `--random` compares with every schedule of random graphs.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from pathlib import Path

from kilograd.errors import InfeasibleError
from kilograd.planning import remat
from kilograd.planning.remat import Limits, Node, Problem

# Optima of the table in the description of the problem: (instance, share) -> joules.
KNOWN_JOULES = {
    ("vgg16_cifar_m4", 75): 3.4402049,
    ("vgg16_cifar_m4", 50): 3.4469393,
    ("resnet18_cifar_m4", 50): 0.5463470,
    ("resnet18_cifar_m4", 25): 0.5673185,
    ("resnet18_m4", 50): 27.431560,
}


def data_directory() -> Path:
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("KILOGRAD_DATA", default)) / "planning"


def main() -> None:
    parser = argparse.ArgumentParser(description="rematerialisation and paging")
    parser.add_argument("instances", nargs="*", metavar="INSTANCE", help="default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of each")
    parser.add_argument("--gap", type=float, default=0.01)
    parser.add_argument("--shares", type=int, nargs="*", default=[100, 75, 50, 25, 15])
    parser.add_argument("--deadlines", type=float, nargs="*", default=[1.3, 3.0])
    parser.add_argument("--poet", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--chains", action="store_true", help="unit chains of 50 and 100 layers")
    parser.add_argument("--large", action="store_true", help="graphs of about 5,000 nodes")
    parser.add_argument("--random", type=int, default=0, metavar="GRAPHS")
    arguments = parser.parse_args()
    paths = sorted(data_directory().glob("*.json"))
    if arguments.instances:
        paths = [path for path in paths if path.stem in arguments.instances]
    elif arguments.chains or arguments.large or arguments.random:
        paths = []
    elif not paths:
        parser.exit(1, f"no instances in {data_directory()}; set KILOGRAD_DATA\n")
    problems = [(path.stem, remat.load(path)) for path in paths]
    if arguments.chains:
        problems += [(f"chain{n}", unit_chain(n)) for n in (50, 100)]
    if arguments.large:
        problems += [("chain2500", unit_chain(2500)), ("blocks5000", residual_blocks(5000))]
    print(
        "| instance (nodes) | RAM, % | deadline | plan, J | over plain, % | gap, % | seconds | by |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, problem in problems:
        for deadline in arguments.deadlines:
            for share in arguments.shares:
                row(name, problem, share, deadline, arguments)
    if arguments.random:
        compare_with_all_schedules(arguments.random)


def ram_bytes_of(problem: Problem, share: int) -> int:
    return max(problem.plain_peak_bytes * share // 100, problem.least_bytes)


def row(
    name: str, problem: Problem, share: int, deadline: float, arguments: argparse.Namespace
) -> None:
    ram_bytes = ram_bytes_of(problem, share)
    shown = f"{100 * ram_bytes / problem.plain_peak_bytes:.0f}"
    head = f"| {name} ({len(problem.nodes)}) | {shown} | {deadline} "
    start = time.perf_counter()
    try:
        plan = remat.solve(
            problem,
            ram_bytes=ram_bytes,
            deadline=deadline,
            time_limit=arguments.seconds,
            gap=arguments.gap,
        )
    except InfeasibleError as error:
        elapsed = time.perf_counter() - start
        print(f"{head}| none | | | {elapsed:.1f} | {str(error).split(';')[0]} |", flush=True)
        return
    elapsed = time.perf_counter() - start
    broken = remat.validate(problem, plan)
    if broken:
        sys.exit(f"{name} at {share} %: {broken[0]}")
    over = 100 * (plan.joules / problem.plain_joules - 1)
    known = KNOWN_JOULES.get((name, share))
    against = "" if known is None else f", known {known:.7f}"
    print(
        f"{head}| {plan.joules:.7g}{against} | {over:.3f} | {100 * plan.gap:.3f} "
        f"| {elapsed:.1f} | {plan.method} |",
        flush=True,
    )
    if arguments.poet:
        compare_with_poet(problem, ram_bytes, deadline, arguments.poet)


def compare_with_poet(problem: Problem, ram_bytes: int, deadline: float, seconds: float) -> None:
    from poet_model import SOLVERS, solve_poet

    for solver in SOLVERS:
        start = time.perf_counter()
        events = solve_poet(problem, ram_bytes, deadline, solver, seconds)
        elapsed = time.perf_counter() - start
        if events is None:
            print(f"| POET's model, {solver} | | | none | | | {elapsed:.1f} | |", flush=True)
            continue
        limits = Limits(ram_bytes, deadline * problem.plain_seconds)
        replay = remat.replay(problem, events, limits)
        if replay.broken:
            sys.exit(f"POET's model, {solver}: {replay.broken[0]}")
        over = 100 * (replay.joules / problem.plain_joules - 1)
        print(
            f"| POET's model, {solver} | | | {replay.joules:.7g} | {over:.3f} "
            f"| | {elapsed:.1f} | |",
            flush=True,
        )


def unit_chain(layers: int) -> Problem:
    """A chain whose tensors have one size: a layer costs 1 J, its gradient 2 J, a page 1 J."""
    page = {"page_in_joules": 1.0, "page_out_joules": 1.0}
    nodes = [Node("x", 1024, 0.0, 0.0, **page)]
    nodes += [Node(f"f{i}", 1024, 1e-3, 1.0, (i - 1,), **page) for i in range(1, layers + 1)]
    nodes.append(Node("loss", 64, 1e-3, 1.0, (layers,), **page))
    for i in range(layers, 0, -1):
        last = len(nodes) - 1
        nodes.append(Node(f"b{i}", 1024, 2e-3, 2.0, (i - 1, i, last), **page))
    return Problem(tuple(nodes))


def residual_blocks(count: int) -> Problem:
    """About `count` nodes: blocks of three layers and an addition, sizes and costs at random."""
    draw = random.Random(0)
    blocks = count // 8

    def node(name: str, size: int, cost: float, *inputs: int) -> Node:
        page = (1e-4 + size / 4.5e6) * 0.33
        return Node(
            name, size, cost, cost * 0.01, tuple(sorted(set(inputs))),
            page_in_joules=page, page_out_joules=page,
        )  # fmt: skip

    nodes = [node("x", 4096, 0.0)]
    layers: list[tuple[int, ...]] = []
    for b in range(blocks):
        block = len(nodes) - 1
        for k, size in enumerate((8192, 8192, 4096)):
            cost = draw.uniform(1e-4, 1e-1)
            nodes.append(node(f"f{b}.{k}", size, cost, len(nodes) - 1))
            layers.append((len(nodes) - 1, len(nodes) - 2))
        nodes.append(node(f"add{b}", 4096, 1e-4, len(nodes) - 1, block))
        layers.append((len(nodes) - 1, len(nodes) - 1))
    nodes.append(node("loss", 64, 1e-4, len(nodes) - 1))
    for output, source in reversed(layers):
        cost = 2 * nodes[output].seconds
        nodes.append(node(f"b{output}", nodes[source].bytes, cost, output, source, len(nodes) - 1))
    return Problem(tuple(nodes))


def compare_with_all_schedules(count: int) -> None:
    """How often the best plan of tiny random graphs is the best of every schedule."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "planning"))
    from all_schedules import best_value, random_problem

    equal = infeasible = missed = 0
    worst = 0.0
    for seed in range(count):
        problem, limits = random_problem(seed, 6, rules=bool(seed % 2))
        best = best_value(problem, limits, "energy")
        deadline = None if limits.seconds is None else limits.seconds / problem.plain_seconds
        try:
            plan = remat.solve(problem, ram_bytes=limits.ram_bytes, deadline=deadline, gap=0.0)
        except InfeasibleError:
            infeasible += best is None
            missed += best is not None
            continue
        assert best is not None
        equal += plan.joules <= best + 1e-6
        worst = max(worst, plan.joules / best - 1)
    print(
        f"{count} random graphs of 6 nodes: {equal} as good as the best of every schedule, "
        f"{infeasible} have none, {missed} were not found; the worst is {100 * worst:.1f} % above"
    )


if __name__ == "__main__":
    main()
