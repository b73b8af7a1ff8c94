"""Where a tensor could be used: the stages between which it matters whether it stays in RAM.

    stages      ...  t1 ........... t2 ............. t3 ...
    tensor v    -keep[v,0]-|-keep[v,1]-|--keep[v,2]--|

v is used at the first runs of its readers, and at the stages in which a reader may run again. A
reader may run again at its own points of use. So a point has a depth: how many nodes of a chain
run again to make it one. `depth` caps the chain; None does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from kilograd.planning.remat.problem import Problem


@dataclass(frozen=True)
class Freedom:
    """What a plan may do: run nodes again, page, and chains of how many nodes run again.

    `joules` and `seconds` say whether the energy and the time of a plan matter.
    """

    recompute: bool = True
    page: bool = True
    depth: int | None = None
    joules: bool = True
    seconds: bool = True


@dataclass(frozen=True)
class Uses:
    """For each node: its points of use in order, where it may run again, whether it may be paged.

    `rerun[v]` holds the points of use of v at which v itself may run again.
    """

    points: tuple[tuple[int, ...], ...]
    rerun: tuple[frozenset[int], ...]
    pageable: tuple[bool, ...]

    @classmethod
    def of(cls, problem: Problem, freedom: Freedom, most: int | None = None) -> Uses | None:
        """Find them, readers before their inputs; None where there are more than `most`.

        Running again is ruled out where paging costs no more of anything, and paging where a node
        without inputs costs no more to run again.
        """
        nodes = problem.nodes
        pageable = [freedom.page and n.pageable and not n.resident for n in nodes]
        rerun: list[frozenset[int]] = [frozenset()] * len(nodes)
        depths: list[dict[int, int]] = [{} for _ in nodes]
        total = 0
        for v in reversed(range(len(nodes))):
            node, own = nodes[v], depths[v]
            may_run = freedom.recompute and not node.resident
            if may_run and pageable[v] and _paging_is_no_worse(problem, v, freedom):
                may_run = False
            if may_run:
                deepest = freedom.depth if freedom.depth is not None else len(nodes)
                last = problem.last_rerun[v]
                rerun[v] = frozenset(t for t, d in own.items() if t <= last and d < deepest)
            if rerun[v] and not node.inputs and not node.saved and _rerun_is_no_worse(problem, v, freedom):
                pageable[v] = pageable[v] and not rerun[v].issuperset(own)
            for u in node.inputs:
                depths[u][v] = 0
                for t in rerun[v]:
                    depths[u][t] = min(depths[u].get(t, own[t] + 1), own[t] + 1)
            total += len(own)
            if most is not None and total > most:
                return None
        return cls(tuple(tuple(sorted(d)) for d in depths), tuple(rerun), tuple(pageable))


def _paging_is_no_worse(problem: Problem, v: int, freedom: Freedom) -> bool:
    """Writing v once and reading it costs no more than one more run, in all that matters."""
    node = problem.nodes[v]
    out_joules = 0.0 if node.saved else node.page_out_joules
    out_seconds = 0.0 if node.saved else node.page_out_seconds
    joules, seconds = out_joules + node.page_in_joules, out_seconds + node.page_in_seconds
    return (not freedom.joules or joules <= node.joules) and (
        not freedom.seconds or seconds <= node.seconds
    )


def _rerun_is_no_worse(problem: Problem, v: int, freedom: Freedom) -> bool:
    node = problem.nodes[v]
    return (not freedom.joules or node.joules <= node.page_in_joules) and (
        not freedom.seconds or node.seconds <= node.page_in_seconds
    )
