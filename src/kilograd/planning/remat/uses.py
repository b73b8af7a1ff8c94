"""Where a tensor could be used: the stages between which it matters whether it stays in RAM.

    stages      ...  t1 ........... t2 ............. t3 ...
    tensor v    -keep[v,0]-|-keep[v,1]-|--keep[v,2]--|

v is used at the first runs of its readers, and at the stages in which a reader may run again. A
reader may run again at its own points of use. So a point has a depth: how many nodes of a chain
run again to make it one. `depth` caps the chain; None does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from kilograd.planning.remat.problem import Node, Problem


@dataclass(frozen=True)
class Freedom:
    """What a plan may do: run nodes again, page, and chains of how many nodes run again.

    `joules` and `seconds` say whether the energy and the time of a plan matter. `anywhere` makes
    every stage up to the last reader a point of use. That matters where a node runs again earlier
    than it has to, because an input leaves RAM, and it costs the square of the number of nodes.
    """

    recompute: bool = True
    page: bool = True
    depth: int | None = None
    joules: bool = True
    seconds: bool = True
    anywhere: bool = False

    def may_rerun(self, node: Node) -> bool:
        """Whether plans may run the node again, as far as the problem allows it."""
        return self.page if node.loads else self.recompute


@dataclass(frozen=True)
class Uses:
    """For each node: its points of use in order, where it may run again, whether it may be paged.

    `rerun[v]` holds the points of use of v at which v itself may run again; at those in `loose[v]`
    without its inputs, which makes the problem easier than it is.
    """

    points: tuple[tuple[int, ...], ...]
    rerun: tuple[frozenset[int], ...]
    pageable: tuple[bool, ...]
    loose: tuple[frozenset[int], ...]

    @classmethod
    def of(
        cls,
        problem: Problem,
        freedom: Freedom,
        *,
        most: int | None = None,
        relaxed: bool = False,
    ) -> Uses | None:
        """Find them; None where there are more than `most`.

        A depth of `freedom` rules out plans that recompute deeper. `relaxed` lets the last nodes of
        a chain run without their inputs instead, so that every plan remains possible and some
        that are none become so: the optimum of a relaxed formulation is a bound.

        Running again is ruled out where paging costs no more of anything that matters, and paging
        where a node without inputs costs no more to run again.
        """
        found = cls._found(problem, freedom, most, relaxed=relaxed)
        if found is None and relaxed and freedom.depth is not None:
            found = cls._found(problem, freedom, most, relaxed=False)
            if found is not None:
                may_run = [_may_run(problem, v, freedom, p) for v, p in enumerate(found.pageable)]
                free = tuple(
                    frozenset(points) if may else frozenset[int]()
                    for points, may in zip(found.points, may_run, strict=True)
                )
                return cls(found.points, free, found.pageable, free)
        return found

    @classmethod
    def _found(
        cls, problem: Problem, freedom: Freedom, most: int | None, *, relaxed: bool
    ) -> Uses | None:
        """Readers before their inputs."""
        nodes, deepest = problem.nodes, freedom.depth
        pageable = [freedom.page and n.pageable and not n.resident for n in nodes]
        rerun: list[frozenset[int]] = [frozenset()] * len(nodes)
        depths: list[dict[int, int]] = [{} for _ in nodes]
        followed = None if relaxed else deepest
        total = 0
        for v in reversed(range(len(nodes))):
            node, own = nodes[v], depths[v]
            if freedom.anywhere and own:
                for t in range(v + 1, max(own)):
                    own.setdefault(t, 0)
            if _may_run(problem, v, freedom, pageable[v]):
                last = problem.last_rerun[v]
                rerun[v] = frozenset(
                    t for t, d in own.items() if t <= last and (followed is None or d < followed)
                )
            if (
                rerun[v]
                and not node.inputs
                and not node.saved
                and _rerun_is_no_worse(node, freedom)
            ):
                pageable[v] = pageable[v] and not rerun[v].issuperset(own)
            for u in node.inputs:
                depths[u][v] = 0
                for t in rerun[v]:
                    depths[u][t] = min(depths[u].get(t, own[t] + 1), own[t] + 1)
            total += len(own)
            if most is not None and total > most:
                return None
        if relaxed and deepest is not None:
            return cls._cut(depths, rerun, pageable, deepest)
        points = tuple(tuple(sorted(own)) for own in depths)
        return cls(points, tuple(rerun), tuple(pageable), (frozenset[int](),) * len(nodes))

    @classmethod
    def _cut(
        cls,
        depths: list[dict[int, int]],
        rerun: list[frozenset[int]],
        pageable: list[bool],
        deepest: int,
    ) -> Uses:
        """Without the points of greater depth. What could have run again at one of those may do so
        at the next that is left, and needs no inputs there.
        """
        points, runs, loose = [], [], []
        for own, again in zip(depths, rerun, strict=True):
            left = tuple(t for t in sorted(own) if own[t] <= deepest)
            free: set[int] = set()
            cut = sorted(t for t in again if own[t] > deepest)
            for t in left:
                passed = bool(cut) and cut[0] < t
                cut = [p for p in cut if p > t]
                if passed or (t in again and own[t] == deepest):
                    free.add(t)
            points.append(left)
            runs.append(again.intersection(left) | free)
            loose.append(frozenset(free))
        return cls(tuple(points), tuple(runs), tuple(pageable), tuple(loose))


def _may_run(problem: Problem, v: int, freedom: Freedom, pageable: bool) -> bool:
    node = problem.nodes[v]
    if not freedom.may_rerun(node) or node.resident:
        return False
    return not (pageable and _paging_is_no_worse(problem, v, freedom))


def _paging_is_no_worse(problem: Problem, v: int, freedom: Freedom) -> bool:
    """Writing it once and reading it costs no more than one more run, in all that matters; with all
    other outputs of its operator that may run again, which may share the run.
    """
    node, joules, seconds = problem.nodes[v], 0.0, 0.0
    for w in problem.operator_of(v):
        part = problem.nodes[w]
        if w != v and (part.resident or not freedom.may_rerun(part)):
            continue
        if not part.pageable:
            return False
        joules += part.page_in_joules + (0.0 if part.saved else part.page_out_joules)
        seconds += part.page_in_seconds + (0.0 if part.saved else part.page_out_seconds)
    return (not freedom.joules or joules <= node.joules) and (
        not freedom.seconds or seconds <= node.seconds
    )


def _rerun_is_no_worse(node: Node, freedom: Freedom) -> bool:
    """Inputs and scratch would make the run need more RAM than the page."""
    cheap = not freedom.joules or node.joules <= node.page_in_joules
    quick = not freedom.seconds or node.seconds <= node.page_in_seconds
    return not node.inputs and node.scratch_bytes == 0 and cheap and quick
