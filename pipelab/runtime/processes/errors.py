"""Errors that cross from one process to another: the same type and sentence there, and where they came from."""

from __future__ import annotations

import pickle
import traceback
from dataclasses import dataclass, replace

import cloudpickle

from pipelab.errors import (
    ConfigurationError,
    LostProcessError,
    OutOfMemoryError,
    PipelabError,
    ScheduleError,
    StageError,
)
from pipelab.runtime.device.worker import stage_error
from pipelab.schedules.action import Action

__all__ = ["CarriedError", "is_known_to_all", "known_to_all"]


def known_to_all(error: BaseException) -> None:
    """Remember that all ranks have heard of ``error``."""
    error._known_to_all = True  # type: ignore[attr-defined]


def is_known_to_all(error: BaseException) -> bool:
    """Whether all ranks have heard of ``error``."""
    return getattr(error, "_known_to_all", False)


@dataclass(frozen=True)
class CarriedError:
    """An exception in a form that always pickles. ``place`` is (device, action or stage) of a StageError."""

    kind: str
    text: str
    trace: str
    pickled: bytes | None
    place: tuple[int, str | int] | None = None
    echo: bool = False
    """Whether it was heard from another process, rather than raised in this one."""

    @classmethod
    def of(cls, error: BaseException) -> CarriedError:
        """Wrap ``error``; what cannot be pickled travels as its text."""
        heard = getattr(error, "_carried", None)
        if heard is not None:
            return replace(heard, echo=True)
        place = None
        if isinstance(error, StageError) and error.__cause__ is not None:
            where = error.stage if error.microbatch is None else error.action
            place, error = (error.device, where), error.__cause__
        try:
            trace, text = "".join(traceback.format_exception(error)), str(error)
        except Exception:  # noqa: BLE001 (its own __str__ raises)
            trace = text = f"(a {type(error).__name__} that cannot be shown)"
        try:
            pickled = cloudpickle.dumps(error)
            pickle.loads(pickled)
        except Exception:  # noqa: BLE001 (anything may come out of a foreign exception's own pickling)
            pickled = None
        return cls(type(error).__name__, text, trace, pickled, place, isinstance(error, LostProcessError))

    def rebuild(self, rank: int) -> BaseException:
        """The exception of the process of device ``rank``; its notes say what the traceback was there."""
        error = self._rebuilt(rank)
        error._carried = self  # type: ignore[attr-defined]
        return error

    def _rebuilt(self, rank: int) -> BaseException:
        error: BaseException
        try:
            error = pickle.loads(self.pickled) if self.pickled is not None else self._plain()
        except Exception:  # noqa: BLE001 (a class that only the other process has)
            error = self._plain()
        if self.place is not None and isinstance(error, (Exception, SystemExit)):
            device, where = self.place
            error.add_note(f"\nIn the process of device {device}:\n{self.trace}")
            made = stage_error(error, device, where if isinstance(where, int) else Action.parse(where), self.kind)
            made.__cause__ = error
            return made
        if not isinstance(error, ConfigurationError | ScheduleError | OutOfMemoryError):
            error.add_note(f"\nIn the process of device {rank}:\n{self.trace}")
        return error

    def _plain(self) -> Exception:
        return PipelabError(f"{self.kind}: {self.text}") if self.place is None else RuntimeError(self.text)
