"""A question of an examination: settings that are drawn, words, the answer by the package; judged as an exercise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pipelab.schedules.reserved import reserve_also, reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import kind_of, read_number, read_whole

__all__ = ["PART", "Answer", "Given", "Question", "Slip"]

Given = Mapping[str, Any]
Answer = float | str
Slip = tuple[Answer, str]
"""A wrong answer, and the sentence that says what was overlooked."""
PART = "answer"


@dataclass(frozen=True)
class Question:
    """A template.

    ``draw`` gives settings as plain data; it asks no catalogue, because it runs beside the learner's code too. ``ask``
    puts them into words. ``truth`` computes the answer, ``why`` explains it in a sentence, and ``slips`` are the usual
    wrong answers. ``digits``: decimals of a number, None for a whole one. ``options``: what a choice is among. ``good``
    says of another answer whether it is as good.
    """

    name: str
    lesson: str
    title: str
    points: int
    minutes: int
    draw: Callable[[Random], Given]
    ask: Callable[[Given], str]
    truth: Callable[[Given], Answer]
    why: Callable[[Given], str]
    slips: Callable[[Given], Sequence[Slip]] = field(default=lambda given: ())
    digits: int | None = None
    options: Callable[[Given], Sequence[str]] = field(default=lambda given: ())
    good: Callable[[Given, Any], bool] = field(default=lambda given, answer: False)

    def __post_init__(self) -> None:
        for name in ("truth", "why", "slips"):  # they know the answer
            object.__setattr__(self, name, reserved(getattr(self, name)))

    def form(self, given: Given) -> str:
        """What the answer should be, in words."""
        if options := self.options(given):
            return f"One of: {', '.join(options)}"
        return (
            "A whole number" if self.digits is None else f"A number, to {self.digits} decimal{'s'[: self.digits - 1]}"
        )

    def shown(self, answer: Answer) -> str:
        """An answer as text, with its decimals."""
        if isinstance(answer, str):
            return answer
        return f"{answer:.0f}" if self.digits is None else f"{answer:.{self.digits}f}"

    def exercise(self, name: str, lesson: str, number: int, given: Given) -> Exercise:
        """The question with these settings, as an exercise whose function returns the answer."""
        function = f"answer_{number}"
        return Exercise(
            name=name,
            lesson=lesson,
            title=f"{number}. {self.title}",
            answers=(function,),
            parts={PART: self.points},
            visible=[Case(PART, dict(given))],
            ask=lambda call, case: _ask(call, function),
            judge=lambda case, data: self._judge(case, data, function),
        )

    def _judge(self, case: Case, data: Any, function: str) -> Finding | None:
        given, truth = case.given, self.truth(case.given)
        answer = self._read(case, data, function)
        if self._same(answer, truth) or self.good(given, answer):
            return None
        slip = next((why for value, why in self.slips(given) if self._same(answer, value)), "")
        said = f"{case.words}: {function} is {self.shown(answer)}, it should be {self.shown(truth)}."
        return Finding(" ".join(filter(None, (said, slip, self.why(given)))))

    def _read(self, case: Case, data: Any, function: str) -> Answer:
        what = f"{case.words}: {function}"
        if options := self.options(case.given):
            if not isinstance(data, str) or data.strip().casefold() not in {one.casefold() for one in options}:
                raise Refused(f"{what} should be one of {', '.join(options)}; it is {kind_of(data)}")
            return next(one for one in options if one.casefold() == data.strip().casefold())
        return read_whole(data, what) if self.digits is None else read_number(data, what)

    def _same(self, answer: Answer, other: Answer) -> bool:
        if isinstance(answer, str) or isinstance(other, str):
            return answer == other
        return abs(answer - other) <= 0.501 * 10.0 ** -(self.digits or 0) if self.digits else round(other) == answer


def _ask(call: Call, function: str) -> Any:
    with reserve_also("simulate", "check_schedule"):
        return call(function)
