"""All that a model asks for and kilograd cannot compile, gathered into one error."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kilograd.errors import UnsupportedError
from kilograd.ir import Location


@dataclass(frozen=True)
class Problem:
    """One operator of the user's model: its name there, where it is, and why it cannot be
    compiled.
    """

    operator: str
    location: Location
    reason: str = "kilograd has no such operator"

    def __str__(self) -> str:
        """`aten.lstm.input in rnn (model.py:12): kilograd has no such operator`."""
        return f"{self.operator} in {self.location}: {self.reason}"


class Problems:
    """Collects problems while a front end walks on."""

    def __init__(self, found: Iterable[Problem] = ()) -> None:
        """Start with those that are known."""
        self.found: list[Problem] = list(found)

    def add(self, problem: Problem) -> None:
        """One more; the same one twice is kept once."""
        if problem not in self.found:
            self.found.append(problem)

    def check(self) -> None:
        """Raise one UnsupportedError that lists every problem, if there is any."""
        if not self.found:
            return
        count = len(self.found)
        what = "one operator" if count == 1 else f"{count} operators"
        lines = "\n".join(f"  {problem}" for problem in self.found)
        raise UnsupportedError(
            f"the model has {what} that kilograd cannot compile:\n{lines}\n"
            "Replace them in the model, or do that part outside the compiled network."
        )
