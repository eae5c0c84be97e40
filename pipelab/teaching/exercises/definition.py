"""What an exercise is: cases, what is asked of the learner's function, and how the outcome is judged.

::

    where the learner's code runs             where it is judged (the same process for a visible check,
                                              a fresh one that never saw the learner's code for a grade)
    case -> ask(call, case) -> plain data ->  judge(case, data) -> Finding, or None if right
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pipelab.view import Picture

__all__ = ["Call", "Case", "Exercise", "Finding"]


class Call(Protocol):
    """Calls a learner's function by name: guarded, timed, and with what it returned as plain data."""

    def __call__(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """See :class:`pipelab.teaching.grading.asking.Caller`."""
        ...


@dataclass(frozen=True)
class Case:
    """One thing to try. ``part`` is the part of the exercise that it decides; ``given`` is plain data (JSON)."""

    part: str
    given: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.given[name]

    @property
    def words(self) -> str:
        """``"p = 3, m = 5"``: how a message begins. ``_words`` among what is given replaces it; ``_`` hides a value."""
        return self.given.get("_words") or ", ".join(
            f"{name} = {value}" for name, value in self.given.items() if not name.startswith("_")
        )


@dataclass(frozen=True)
class Finding:
    """Why an answer is refused: a message that teaches, and a picture where that helps."""

    message: str
    picture: Callable[[], Picture] | None = None


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    ``answers`` names the functions that a learner writes. ``parts`` maps each part to its points. ``visible`` cases are
    what the check cell tries, the smallest first; ``drawn(random)`` adds those of a grade. ``ask`` runs beside the
    learner's code and returns plain data; ``judge`` compares that with the truth. ``seconds`` limits one call.
    """

    name: str
    lesson: str
    title: str
    answers: tuple[str, ...]
    parts: Mapping[str, int]
    visible: Sequence[Case]
    ask: Callable[[Call, Case], Any]
    judge: Callable[[Case, Any], Finding | None]
    drawn: Callable[[Random], Sequence[Case]] = field(default=lambda random: ())
    seconds: float = 5.0

    def __post_init__(self) -> None:
        strange = {case.part for case in self.visible} ^ set(self.parts)
        if strange:
            raise ValueError(f"exercise {self.name}: visible cases and parts differ in {sorted(strange)}")

    @property
    def points(self) -> int:
        """All points."""
        return sum(self.parts.values())

    def cases(self, seed: int | None) -> list[Case]:
        """The visible cases, and with a ``seed`` those drawn from it: all of what a grade tries."""
        return [*self.visible, *(self.drawn(Random(seed)) if seed is not None else ())]

    def verdict(self, case: Case, answer: Mapping[str, Any]) -> Finding | None:
        """What ``answer`` (see :mod:`pipelab.teaching.grading.asking`) is worth; None if it is right."""
        refused = answer.get("refused")
        if refused is not None:
            return Finding(str(refused)[:2000])
        if "data" not in answer:
            return Finding("nothing came back for this case")
        try:
            return self.judge(case, answer["data"])
        except Refused as refusal:
            return Finding(str(refusal))


class Refused(Exception):
    """An answer that cannot be judged further, with the sentence that the learner reads."""


class Late(Refused):
    """A call that did not end in time: the other cases of its part are not tried."""
