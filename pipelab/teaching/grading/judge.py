"""``python -m pipelab.teaching.grading.judge``: judges plain data, in a process that never saw the submission.

Reads one JSON object from standard input: ``exercise``, ``cases`` ([part, given] pairs), ``answers`` (as far as they
came), ``ended`` and ``raised`` (see ``sandbox.Outcome``), ``pictures``. Writes a verdict per part to standard output,
``{"message", "cases", "picture", "alt"}``; a part without a message is right.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from typing import Any

from pipelab.teaching.course.exam.drawn import find_exercise
from pipelab.teaching.exercises.definition import Case, Exercise, Finding

__all__ = ["judge"]

ENDED = {
    "time": "it did not finish within the time limit: is there a loop that never ends?",
    "kernel": "the kernel ended while this exercise ran: does a cell call quit(), exit() or os._exit(), "
    "or does it need more memory than there is?",
    "start": "no kernel could be started for it: is the machine out of memory? Grade it again",
    "silent": "there is no result, although the cells ran: does a cell replace or silence what the grader runs?",
}
ALONE = " No cell of the notebook defines this name. Put everything that the answer needs into its own cell."


def judge(request: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """One verdict for each part."""
    exercise = find_exercise(request["exercise"])
    verdicts: dict[str, dict[str, Any]] = {part: {"message": "", "cases": 0} for part in exercise.parts}
    answers = request["answers"]
    for k, (part, given) in enumerate(request["cases"]):
        verdict = verdicts[part]
        if verdict["message"]:
            continue
        finding = _finding(exercise, Case(part, given), answers[k] if k < len(answers) else None, request)
        if finding is None:
            verdict["cases"] += 1
            continue
        verdict["message"] = _explained(finding.message, request)
        if request.get("pictures") and finding.picture is not None:
            verdict["picture"] = base64.b64encode(finding.picture().png()).decode()
            verdict["alt"] = finding.picture().alt
    return verdicts


def _finding(
    exercise: Exercise, case: Case, answer: Mapping[str, Any] | None, request: Mapping[str, Any]
) -> Finding | None:
    if answer is None:
        return Finding(f"{case.words}: {ENDED[request['ended'] or 'silent']}")
    return exercise.verdict(case, answer)


def _explained(message: str, request: Mapping[str, Any]) -> str:
    if request.get("raised") and message.startswith("there is no "):
        return f"{message} (running it raised {request['raised']})"
    return message + ALONE if "NameError" in message else message


if __name__ == "__main__":
    json.dump(judge(json.load(sys.stdin)), sys.stdout)
