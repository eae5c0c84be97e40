"""What the six exercises share: an answer is (figures, verdict), and each of the two is a part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipelab.teaching.exercises.definition import Case, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, close, kind_of, numbers
from pipelab.teaching.exercises.lesson_09.mistakes import shown, the_only

__all__ = ["EVIDENCE", "PARTS", "VERDICT", "Known", "both_parts", "judge_by"]

EVIDENCE, VERDICT = "evidence", "verdict"
PARTS = {EVIDENCE: 2, VERDICT: 1}
Known = Sequence[tuple[Sequence[float], str]]
"""Figures that a mistake leads to, and why they are wrong."""


def both_parts(given: Sequence[dict[str, Any]]) -> list[Case]:
    """A case of each part for each of ``given``."""
    return [Case(part, one) for part in PARTS for one in given]


def judge_by(
    name: str,
    truth: Callable[[Case], list[float]],
    holds: Callable[[Case, Sequence[float]], bool],
    known: Callable[[Case, list[float]], Known],
    rule: str,
    tolerance: float = 1e-6,
) -> Callable[[Case, Any], Finding | None]:
    """The judge of an exercise.

    ``truth`` are the figures of a case, and ``holds`` says whether they make the claim true. ``known`` are figures that
    mistakes lead to, ``rule`` the sentence that says how the verdict follows.
    """

    def right(given: Sequence[float], wanted: Sequence[float]) -> bool:
        return all(close(a, b, tolerance) for a, b in zip(given, wanted, strict=True))

    def judge(case: Case, data: Any) -> Finding | None:
        what = f"{case.words}: {name}"
        wanted = truth(case)
        pair = as_lists(data)
        if not isinstance(pair, list) or len(pair) != 2:
            raise Refused(f"{what} should return two things, the figures and the verdict; it returned {kind_of(data)}")
        if case.part == EVIDENCE:
            given = numbers(pair[0], f"{what}: the list of figures", len(wanted))
            if right(given, wanted):
                return None
            start = f"{what}: your figures are {shown(given)} instead of {shown(wanted)}. "
            return Finding(
                f"{start}{the_only((right(given, other), why) for other, why in known(case, wanted))}".rstrip()
            )
        said, verdict = pair[1], holds(case, wanted)
        if not isinstance(said, bool):
            raise Refused(f"{what}: the verdict should be True or False, it is {kind_of(said)}")
        if said == verdict:
            return None
        return Finding(f"{what}: your verdict is {said}. {rule} The figures are {shown(wanted)}, so it is {verdict}.")

    return judge
