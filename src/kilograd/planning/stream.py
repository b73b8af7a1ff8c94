"""Chooses which chains of int8 convolutions are computed some rows at a time, and how many.

Streaming takes intermediate results out of the arena and costs a little work for every band, so it
is used only as far as the arena gets smaller. The smallest peak that any choice reaches is found
first; then every chain takes the cheapest choice under that peak: plain operators where they fit,
else few long bands.

A chain is cut into segments, each a plain operator or a streamed chain. What is alive while a
segment runs besides its own image, result and scratch does not depend on the cuts, so the best cut
is a shortest path over the places between stages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kilograd.ir import Graph, Node
from kilograd.ops.conv_geometry import Geometry
from kilograd.ops.q_depthwise import QDepthwiseConv2d
from kilograd.ops.q_stream import Stage, layout
from kilograd.planning.lifetimes import Lifetimes, aligned, measure
from kilograd.transforms.stream import chains, join

MAX_STAGES = 9
"""A streamed chain has at most so many stages: the bands of all are alive at the same time."""


def plan_streams(graphs: Sequence[Graph]) -> tuple[Graph, ...]:
    """Ordered programs that take turns in one arena, with chains streamed as far as it gets smaller
    for that.
    """
    limit = max(measure(narrow(graph)).peak_bytes for graph in graphs)
    return tuple(_joined(graph, [c.cheapest(limit) for c in _chains(graph)]) for graph in graphs)


def narrow(graph: Graph) -> Graph:
    """The ordered program in the form of the smallest peak, whatever the work."""
    return _joined(graph, [chain.narrowest() for chain in _chains(graph)])


@dataclass(frozen=True)
class _Option:
    """A way to compute the stages [begin, end) of a chain: `rows` at a time, 0 for a plain
    operator; `instructions` are those beyond the plain ones.
    """

    begin: int
    end: int
    rows: int
    alive_bytes: int
    instructions: float = 0.0


def _joined(graph: Graph, plans: Sequence[tuple[_Chain, Sequence[_Option]]]) -> Graph:
    chosen = [
        (range(chain.start + option.begin, chain.start + option.end), option.rows)
        for chain, options in plans
        for option in options
        if option.rows
    ]
    return join(graph, chosen) if chosen else graph


def _chains(graph: Graph) -> list[_Chain]:
    found = chains(graph)
    if not found:
        return []
    lives = measure(graph)
    return [_Chain(graph, chain, lives) for chain in found]


@dataclass(frozen=True)
class _Stage:
    """What the choice has to know of an operator of a chain."""

    geometry: Geometry
    channels: int
    depthwise: bool
    scratch_bytes: int
    row_bytes: int

    @staticmethod
    def of(node: Node) -> _Stage:
        types = tuple(value.type for value in node.inputs)
        assert isinstance(node.op, Stage)
        return _Stage(
            node.op.geometry(*types),
            types[0].shape[3],
            isinstance(node.op, QDepthwiseConv2d),
            node.op.cost(*types).scratch_bytes,
            math.prod(node.outputs[0].type.shape[2:]),
        )

    def band_instructions(self) -> float:
        """What each further band costs on a Cortex-M7, fitted to kernels of 3 and 7: rows that move
        or are spread again, and the taps of depthwise kernels.
        """
        g = self.geometry
        kept = max(0, (g.kernel[0] - 1) * g.dilation[0] + 1 - g.stride[0]) * g.size_in[1]
        if self.depthwise:
            return 150 + self.channels * (100 + 4.3 * math.prod(g.kernel) + 4.6 * kept)
        return 150 + self.channels * 2.3 * kept


class _Chain:
    """The options of one chain of an ordered program, which begins at node `start`."""

    def __init__(self, graph: Graph, chain: range, lives: Lifetimes) -> None:
        nodes = graph.nodes[chain.start : chain.stop]
        images = [nodes[0].inputs[0], *(node.outputs[0] for node in nodes)]
        self.start = chain.start
        self._stages = [_Stage.of(node) for node in nodes]
        self._image_bytes = [aligned(image.type.bytes) for image in images]
        own = (images[1].name, lives.scratch.get(chain.start))
        alive = [b for b in lives.buffers if b.first <= chain.start < b.last and b.name not in own]
        x = lives.root[images[0]].name
        if not any(b.name == x and b.last == chain.start + 1 for b in alive):
            self._image_bytes[0] = 0  # read again later: counted with the others
        self._base_bytes = sum(aligned(b.size_bytes) for b in alive if b.last > chain.start + 1)

    def narrowest(self) -> tuple[_Chain, list[_Option]]:
        """The segments whose largest need is smallest."""
        options = {
            (i, j): self._plain(i) if j == i + 1 else self._streamed(i, j, 1)
            for i, j in self._segments()
        }
        return self, self._path(options, lambda cost, option: max(cost, option.alive_bytes))

    def cheapest(self, limit_bytes: int) -> tuple[_Chain, list[_Option]]:
        """The segments with the least work under a limit that the narrowest keep, too."""
        options = {(i, i + 1): self._plain(i) for i in range(len(self._stages))}
        if all(option.alive_bytes <= limit_bytes for option in options.values()):
            return self, list(options.values())
        fitting = {}
        for i, j in self._segments():
            ways = iter((options[i, j],)) if j == i + 1 else self._by_work(i, j)
            found = next((way for way in ways if way.alive_bytes <= limit_bytes), None)
            if found:
                fitting[i, j] = found
        return self, self._path(fitting, lambda cost, option: cost + option.instructions)

    def _segments(self) -> Iterator[tuple[int, int]]:
        for end in range(1, len(self._stages) + 1):
            for begin in range(end - 1, max(-1, end - 1 - MAX_STAGES), -1):
                yield begin, end

    def _plain(self, i: int) -> _Option:
        return _Option(i, i + 1, 0, self._alive(i, i + 1) + aligned(self._stages[i].scratch_bytes))

    def _by_work(self, begin: int, end: int) -> Iterator[_Option]:
        """Streamed, from two bands to one for each row."""
        height = self._stages[end - 1].geometry.size_out[0]
        for rows in dict.fromkeys(-(-height // bands) for bands in range(2, height + 1)):
            yield self._streamed(begin, end, rows)

    def _streamed(self, begin: int, end: int, rows: int) -> _Option:
        stages = self._stages[begin:end]
        geometries = tuple(stage.geometry for stage in stages)
        _, room = layout(geometries, [stage.row_bytes for stage in stages[:-1]], rows)
        scratch = room + max(stage.scratch_bytes for stage in stages)
        further = -(-geometries[-1].size_out[0] // rows) - 1
        work = further * sum(stage.band_instructions() for stage in stages)
        return _Option(begin, end, rows, self._alive(begin, end) + aligned(scratch), work)

    def _alive(self, begin: int, end: int) -> int:
        return self._base_bytes + self._image_bytes[begin] + self._image_bytes[end]

    def _path(
        self,
        options: Mapping[tuple[int, int], _Option],
        weigh: Callable[[float, _Option], float],
    ) -> list[_Option]:
        """The segments from end to end of the smallest weight; ties have fewer stages a segment."""
        best: dict[int, tuple[float, list[_Option]]] = {0: (0.0, [])}
        for (begin, end), option in options.items():
            if begin in best:
                weight, path = best[begin]
                candidate = weigh(weight, option)
                if end not in best or candidate < best[end][0]:
                    best[end] = candidate, [*path, option]
        return best[len(self._stages)][1]
