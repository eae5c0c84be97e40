"""Beside the learner's code: call their functions with a case, and bring back plain data or a sentence."""

from __future__ import annotations

import contextlib
import copy
import io
import linecache
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelab.schedules.reserved import ReservedError, reserve
from pipelab.teaching.exercises.definition import Case, Exercise, Late, Refused
from pipelab.teaching.grading.plain import plain
from pipelab.teaching.grading.stub import NotWritten

__all__ = ["Caller", "ask_case"]


def ask_case(exercise: Exercise, answers: Mapping[str, Any], case: Case) -> dict[str, Any]:
    """``{"data": plain data}`` or ``{"refused": sentence}``, whatever the learner's functions do.

    A call that did not end in time says ``"late": True`` as well.
    """
    try:
        return {"data": plain(exercise.ask(Caller(exercise, answers), case))}
    except Refused as refusal:
        return {"refused": str(refusal)} | ({"late": True} if isinstance(refusal, Late) else {})
    except ValueError as problem:
        return {"refused": f"{case.words}: {problem}"}


class OutOfTime(BaseException):
    """Raised into a call that takes too long; not an Exception, so that ``except Exception`` does not swallow it."""


class Caller:
    """Calls a learner's function as a check does.

    During the call, the catalogue and the references refuse, and printed output is held back. The arguments must come
    back unchanged. None, an exception, and a call that does not end get a sentence. Raises Refused.
    """

    def __init__(self, exercise: Exercise, answers: Mapping[str, Any]) -> None:
        self._exercise, self._answers = exercise, answers

    def __call__(
        self, name: str, /, *args: Any, _none: bool = False, _keep: bool = True, _plain: bool = True, **kwargs: Any
    ) -> Any:
        """What ``name(*args, **kwargs)`` returned, as plain data.

        ``_none``: the function may return None. ``_keep``: its arguments must be left as they are. ``_plain=False``:
        the value itself (for what an exercise goes on to use).
        """
        function = self._function(name)
        shown = _shown_call(name, args, kwargs)
        given = _copy((args, kwargs)) if _keep else None  # what a call changes must not come into the next case
        called, named = given or (args, kwargs)
        printed = io.StringIO()
        try:
            with (
                reserve(f"this exercise asks you to write it ({self._exercise.title})"),
                contextlib.redirect_stdout(printed),
                _at_most(self._exercise.seconds),
            ):
                value = function(*called, **named)
                found = plain(value) if _plain else value  # a generator runs here
        except OutOfTime:
            raise Late(
                f"{shown} did not return within {self._exercise.seconds:g} s: is there a loop that never ends, or that "
                "takes many small steps?"
            ) from None
        except NotWritten:
            raise Refused(
                f"{name} is not written yet. Replace the line that raises NotWritten, run that cell, then this one."
            ) from None
        except NotImplementedError as error:
            if type(error).__name__ == "StdinNotImplementedError":
                raise Refused(f"{shown} called input(): a function gets what it needs as arguments") from None
            raise Refused(f"{name} is not written yet: {shown} raised NotImplementedError {error}".rstrip()) from None
        except ReservedError as error:
            raise Refused(f"{shown}: {error}") from None
        except (Exception, SystemExit, GeneratorExit) as error:  # noqa: BLE001 - whatever a learner does
            raise Refused(f"{shown} raised {_told(error)}") from None
        if value is None and not _none:
            hint = "it printed its answer; return it instead" if printed.getvalue().strip() else "is a return missing?"
            raise Refused(f"{shown} returned None: {hint}")
        if given is not None and not _same(given, (args, kwargs)):
            raise Refused(f"{shown} changed its arguments: copy a list before you append to it or sort it")
        return found

    def _function(self, name: str) -> Callable[..., Any]:
        if name not in self._answers:
            raise Refused(f"there is no {name}: run the cell that defines it, and keep its name")
        function = self._answers[name]
        if not callable(function):
            raise Refused(
                f"{name} is {type(function).__name__} {str(function)[:60]!r}; it should be the function {name}"
            )
        return function


def _shown_call(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    shown = [_short(value) for value in args] + [f"{key}={_short(value)}" for key, value in kwargs.items()]
    return f"{name}({', '.join(shown)})"


def _short(value: Any) -> str:
    if isinstance(value, int | float | str | bool | list | tuple | dict) or value is None:
        text = " ".join(repr(value).split())  # tensors in a list take several lines
        return text if len(text) <= 60 else text[:57] + "..."
    return f"<{type(value).__name__}>"


def _told(error: BaseException) -> str:
    """The exception and the learner's own line that raised it."""
    try:
        said = str(error).encode("utf-8", "replace").decode()
    except Exception:  # noqa: BLE001 - a learner's __str__ may do anything
        said = ""
    told = f"{type(error).__name__}: {said}"[:400].rstrip(": ")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if "ipykernel" in frame.filename or frame.filename.startswith("<ipython"):
            line = linecache.getline(frame.filename, frame.lineno or 0).strip()
            return f"{told}, at line {frame.lineno} of its cell" + (f": {line}" if line else "")
    return told


def _copy(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - what cannot be copied cannot be compared
        return None


def _same(before: Any, after: Any) -> bool:
    try:
        return before is None or bool(plain(before) == plain(after))
    except ValueError:
        return True


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise OutOfTime inside after ``seconds``, where the system has timers (and only in the main thread).

    It keeps raising: a bare ``except`` in a loop swallows the first.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
