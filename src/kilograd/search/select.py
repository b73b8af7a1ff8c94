"""The scheme of the largest summed contributions that fits, with a proof or a gap.

    select(contributions, model, Limits(sram_bytes=192 * 1024)) -> Selection

An integer program chooses k, the depth of the biases, and a ratio for each layer. Its rows are
lower bounds of arena and state that hold for any order and allocation (`kilograd.search.rows`), and
of what a training step takes (`kilograd.search.costs`), so its optimum is an upper bound of the
gain. The compiler then plans that scheme. If it fits, it is optimal. If not, the scheme and those
that train all of it and more are cut off, and the program is solved again. The stack and other
static data are known after linking only; `reserve_bytes` are kept for them, and the answer is
linked and checked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

from kilograd.errors import InfeasibleError, InputError
from kilograd.planning.costs import Estimate
from kilograd.planning.step_limits import StepLimit
from kilograd.search.integer import SLACK, TOLERANCE, Answer, SchemeProgram
from kilograd.search.limits import Limits, fits, head_takes, step_fits, too_much
from kilograd.search.resources import ResourceModel
from kilograd.search.rows import Row
from kilograd.search.scheme import Scheme
from kilograd.search.table import Contributions

_REPAIRS = 1


@dataclass(frozen=True)
class Selection:
    """A scheme that fits, and how good it is.

    `gain` is the sum of its contributions; no scheme that fits has more than `bound`, and `proven`
    says that they are the same. `bound` may rest on `assumptions`, a line each, which held for
    every program that was planned and fits the SRAM; `sure_bound` rests on none. `static_bytes`:
    arena and state. `step`: what a training step takes. `sram_bytes` and `flash_bytes` are of the
    linked program, None where it was not linked. `reserve_bytes`: what was kept for stack and other
    data; the proof is for programs that need as much of it. `compiles`: programs that were planned
    for it; `refuted`: those of them whose true need was above their bound and the limit.
    """

    scheme: Scheme
    gain: float
    bound: float
    sure_bound: float
    budget_bytes: int
    static_bytes: int
    step: Estimate
    sram_bytes: int | None
    flash_bytes: int | None
    reserve_bytes: int
    compiles: int
    refuted: int
    assumptions: tuple[str, ...]
    seconds: float

    @property
    def gap(self) -> float:
        """How much more a scheme that fits could gain at most."""
        return max(0.0, self.bound - self.gain)

    @property
    def proven(self) -> bool:
        """True where no scheme that fits gains more."""
        return self.gap <= 10 * TOLERANCE


def select(
    contributions: Contributions,
    model: ResourceModel,
    limits: Limits,
    *,
    seconds: float = 60.0,
    link: bool = True,
    reserve_bytes: int | None = None,
) -> Selection:
    """The scheme of the largest gain within the limits.

    Args:
        contributions: of the model's layers, at ratios that the model has.
        model: bounds and true needs of schemes; keeps what it compiled for the next call.
        limits: at least the SRAM.
        seconds: after so long the best scheme that was found is returned with its gap.
        link: whether the answer is linked, and its SRAM and flash checked.
        reserve_bytes: SRAM kept for stack and other static data; what the program that trains the
            head alone needs by default.

    Raises:
        InfeasibleError: even training the head alone does not fit; says what it needs.
        InputError: the contributions are of other layers or ratios, or the device has no estimate
            of what is limited.
    """
    start = time.perf_counter()
    _check(contributions, model)
    head = Scheme(0)
    before = model.compiles
    if reserve_bytes is None:
        measured = model.linked(head)
        reserve_bytes = measured.data_bytes + measured.stack_bytes
    if link and too_much(model.linked(head).flash_bytes, limits.flash_bytes):
        raise InfeasibleError(_flash(model.linked(head).flash_bytes, limits.flash_bytes))
    search = _Search(contributions, model, limits, reserve_bytes, start + seconds)
    search.require(head)
    while True:
        best, bound = search.run()
        if not link:
            break
        measured = model.linked(best)
        if measured.sram_bytes > limits.sram_bytes and best != head:
            needed = measured.sram_bytes - model.static_bytes(best)
            search = _Search(contributions, model, limits, needed, start + seconds)
        elif too_much(measured.flash_bytes, limits.flash_bytes):
            search.banned.add(best)
        else:
            break
    return Selection(
        scheme=best,
        gain=best.gain(contributions),
        bound=bound,
        sure_bound=search.sure_bound,
        budget_bytes=limits.sram_bytes,
        static_bytes=model.static_bytes(best),
        step=model.step(best),
        sram_bytes=measured.sram_bytes if link else None,
        flash_bytes=measured.flash_bytes if link else None,
        reserve_bytes=search.reserve_bytes,
        compiles=model.compiles - before,
        refuted=search.refuted,
        assumptions=search.assumptions,
        seconds=time.perf_counter() - start,
    )


def front(
    contributions: Contributions,
    model: ResourceModel,
    budgets: Iterable[int],
    *,
    seconds: float = 60.0,
    link: bool = True,
    reserve_bytes: int | None = None,
) -> tuple[Selection, ...]:
    """The best scheme for each SRAM budget in bytes, ascending; budgets below the need of the head
    alone are left out. `seconds` for each. The other arguments are those of `select`.
    """
    found = []
    for budget in sorted(set(budgets), reverse=True):
        try:
            found.append(
                select(
                    contributions,
                    model,
                    Limits(sram_bytes=budget),
                    seconds=seconds,
                    link=link,
                    reserve_bytes=reserve_bytes,
                )
            )
        except InfeasibleError:
            break
    return tuple(reversed(found))


def _flash(needed: int, most: int | None) -> str:
    return (
        f"training the head alone needs {needed:,} bytes of flash, more than the {most or 0:,} "
        "there are.\nWhat helps: a narrower network, or a device with more flash."
    )


def _check(contributions: Contributions, model: ResourceModel) -> None:
    paths = model.layers.paths
    if contributions.layers != paths:
        missing = [path for path in paths if path not in contributions.layers]
        extra = [path for path in contributions.layers if path not in paths]
        raise InputError(
            f"the contributions are of another network than the one to select for: they lack "
            f"{', '.join(missing[:4]) or 'none'} and have {', '.join(extra[:4]) or 'none'} beside "
            "its layers"
        )
    unknown = sorted({ratio for _, ratio in contributions.weights} - set(model.ratios))
    if unknown:
        raise InputError(
            f"the contributions have the ratios {', '.join(map(str, unknown))}, which the "
            f"model has not; it has {', '.join(map(str, model.ratios))}"
        )


class _Search:
    """The search under one reserve for the stack."""

    def __init__(
        self,
        contributions: Contributions,
        model: ResourceModel,
        limits: Limits,
        reserve_bytes: int,
        deadline: float,
    ) -> None:
        self.reserve_bytes = reserve_bytes
        self.banned: set[Scheme] = set()
        self.refuted = 0
        self.sure_bound = math.inf
        self.assumptions: tuple[str, ...] = ()
        self._gains, self._model, self._limits = contributions, model, limits
        self._most_bytes = limits.sram_bytes - reserve_bytes
        self._deadline = deadline

    def fits(self, scheme: Scheme) -> bool:
        """Whether the scheme's planned program is within the limits."""
        return fits(scheme, self._model, self._limits, self.reserve_bytes)

    def require(self, head: Scheme) -> None:
        """Raise InfeasibleError where training the head alone is too much."""
        needed = self._model.static_bytes(head) + self.reserve_bytes
        if needed > self._limits.sram_bytes:
            raise InfeasibleError(
                f"training the head alone needs {needed:,} bytes of SRAM, "
                f"{needed - self._limits.sram_bytes:,} more than the {self._limits.sram_bytes:,} "
                "of the budget.\nWhat helps: a smaller input, a narrower network, "
                "kg.SGD(atomic=False), or a larger device."
            )
        for step in self._limits.step:
            amount = step.known(self._model.step(head), self._model.compiler.device)
            if amount > step.most:
                raise InfeasibleError(head_takes(step, amount))

    def run(self) -> tuple[Scheme, float]:
        """The best scheme that fits and is not banned, and an upper bound of the gain."""
        best = max(
            (s for s in (Scheme(0), *self._model.planned) if s not in self.banned and self.fits(s)),
            key=self._gain,
        )
        bound = self.sure_bound = math.inf
        assume = False
        while (left := self._deadline - time.perf_counter()) > 0:
            answer, assumptions = self._solve(best, left, assume)
            if not assume:
                self.sure_bound = answer.bound
            if not set(self.assumptions) <= set(assumptions):  # some were refuted
                bound, self.assumptions = self.sure_bound, ()
            if answer.bound < bound:
                bound, self.assumptions = answer.bound, assumptions
            if answer.scheme is not None and self.fits(answer.scheme):
                best = max(answer.scheme, best, key=self._gain)
            if answer.scheme is None or bound <= self._gain(best) + TOLERANCE:
                break
            if not self.fits(answer.scheme):
                self.refuted += 1
                if self._model.static_bytes(answer.scheme) > self._most_bytes:
                    self._model.learn(answer.scheme)
                assume = True
                others = [*self._repairs(answer.scheme), *self._smaller(answer.scheme, best)]
                best = max([best, *filter(self.fits, others)], key=self._gain)
        self.sure_bound = max(self.sure_bound, self._gain(best))
        return best, max(bound, self._gain(best))

    def _gain(self, scheme: Scheme) -> float:
        return scheme.gain(self._gains)

    def _repairs(self, scheme: Scheme) -> list[Scheme]:
        """The schemes with one ratio less, or one layer less, the best first."""
        weights, result = dict(scheme.weights), []
        for layer, ratio in scheme.weights:
            rest = {other: share for other, share in weights.items() if other != layer}
            result.append(Scheme.of(scheme.biases, rest))
            result += [
                Scheme.of(scheme.biases, {**rest, layer: smaller})
                for smaller in self._gains.ratios(layer)
                if smaller < ratio
            ]
        most = self._most_bytes
        fitting = [s for s in result if self._model.rows.least_bytes(s) <= most and self._quick(s)]
        return sorted(fitting, key=self._gain, reverse=True)[:_REPAIRS]

    def _smaller(self, scheme: Scheme, best: Scheme) -> list[Scheme]:
        """The best scheme if every one needed as much more than its bound as this one needs more
        than there is; none where that is no better than `best`.
        """
        excess = self._model.static_bytes(scheme) - self._most_bytes
        left = self._deadline - time.perf_counter()
        if excess <= 0 or left <= 0:
            return []
        found = self._solve(best, left, assume=True, spare_bytes=excess)[0].scheme
        return [found] if found and self._gain(found) > self._gain(best) + TOLERANCE else []

    def _quick(self, scheme: Scheme) -> bool:
        """Whether a step is within its limits as far as one can tell without planning it."""
        return all(
            (self._model.costs(limit.quantity).expected.value(scheme) or 0.0) <= limit.most
            for limit in self._limits.step
        )

    def _step_rows(self, assume: bool) -> list[tuple[Row, StepLimit]]:
        """The rows of what a step takes, with those that hold for every planned program where one
        may assume them.
        """
        rows = []
        for limit in self._limits.step:
            costs = self._model.costs(limit.quantity)
            rows.append((costs.least, limit))
            if assume and costs.expected.unless:
                row = self._model.expected(limit.quantity, self._most_bytes)
                rows.append((row, limit))
        return rows

    def _solve(
        self, best: Scheme, seconds: float, assume: bool, spare_bytes: int = 0
    ) -> tuple[Answer, tuple[str, ...]]:
        """The answer of the integer program, and what it assumes: what the planned programs taught,
        where one may assume it. `spare_bytes` of the SRAM are left.
        """
        rows, assumptions = self._model.rows, list[str]()
        program = SchemeProgram(self._gains, self._model)
        for row in (*rows.arena, None):
            program.at_most(row, self._most_bytes - spare_bytes)
        steps = self._step_rows(assume)
        for row, limit in steps:
            program.at_most_cost(row, limit.most)
        assumptions += [row.name for row, _ in steps if row.unless]
        for scheme in self.banned:
            program.cut_off(scheme, with_larger=False)
        learned = self._model.learned if assume else ()
        for row in learned:
            program.at_most(row, self._most_bytes - spare_bytes)
            assumptions.append(row.name)
        for scheme in self._model.planned if assume else ():
            arena = max((row.value(scheme) or 0 for row in learned), default=0)
            least = max(rows.least_bytes(scheme), rows.state_bytes(scheme) + arena)
            told = all(
                (row.value(scheme) or 0.0) <= limit.most * (1 + 2 * SLACK) for row, limit in steps
            )
            too_large = least <= self._most_bytes < self._model.static_bytes(scheme)
            too_slow = told and not step_fits(scheme, self._model, self._limits)
            if too_large or too_slow:
                program.cut_off(scheme, with_larger=True)
                assumptions.append(f"what trains all of it, or more, does not fit either: {scheme}")
        return program.solve(seconds, best), tuple(assumptions)
