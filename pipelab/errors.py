"""The package's own exceptions. Every message says what was given, what is allowed and the nearest thing that works."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

__all__ = [
    "ConfigurationError",
    "DeadlockError",
    "FlowError",
    "LostProcessError",
    "NonFiniteError",
    "OutOfMemoryError",
    "PipelabError",
    "ScheduleError",
    "ScheduleParseError",
    "StageError",
    "TimeLimitError",
    "shown",
    "whole_number",
]


class PipelabError(Exception):
    """Base of everything that pipelab raises on purpose."""


class ConfigurationError(PipelabError, ValueError):
    """A setting that cannot work: found before anything starts."""


class ScheduleError(PipelabError, ValueError):
    """A schedule that is not sound. ``violations`` holds everything that the checker found, each with its sentence."""

    def __init__(self, message: str, violations: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)

    @classmethod
    def refuse(cls, name: str, violations: Sequence[object], shown: int = 8) -> ScheduleError:
        """The error for a schedule that the checker refused: the first few reasons, and how many more there are."""
        lines = [f"  {violation}" for violation in violations[:shown]]
        if len(violations) > shown:
            lines.append(f"  ... and {len(violations) - shown} more (check_schedule lists all)")
        count = "1 violation" if len(violations) == 1 else f"{len(violations)} violations"
        return cls("\n".join([f"schedule '{name}' cannot run, the checker found {count}:", *lines]), violations)


class ScheduleParseError(ScheduleError):
    """A schedule's text that cannot be read. ``row`` (= device) and ``column`` count from 0, ``token`` is the text."""

    def __init__(self, message: str, row: int, column: int, token: str) -> None:
        super().__init__(f"row {row}, column {column}: {message}")
        self.row, self.column, self.token = row, column, token
        self._given = (message, row, column, token)

    def __reduce__(self) -> tuple[type[ScheduleParseError], tuple[str, int, int, str]]:
        return (type(self), self._given)


class StageError(PipelabError, RuntimeError):
    """Something raised while a stage was running. ``__cause__`` is the original exception with its own traceback.

    ``action`` and ``microbatch`` say where; they are "update" and None where it was the optimizer.
    """

    device: int
    stage: int
    action: str
    microbatch: int | None


class DeadlockError(PipelabError, RuntimeError):
    """Devices wait for one another, and none can go on. ``ring``: the devices, each waiting for the next."""

    ring: tuple[int, ...] = ()


class FlowError(PipelabError, RuntimeError):
    """A job of a flow failed: that of ``stage`` with this ``index``. ``__cause__`` is the original exception."""

    stage: str | None = None
    index: int | None = None

    @classmethod
    def at(cls, stage: str, index: int, reason: str) -> FlowError:
        """The error of one job."""
        made = cls(f"'{stage}' {index} failed: {reason}; the flow has stopped, and nothing of it runs on")
        made.stage, made.index = stage, index
        return made


class TimeLimitError(PipelabError, TimeoutError):
    """A step took longer than its time limit. ``stuck``: the devices whose thread could not be ended."""

    stuck: tuple[int, ...] = ()


class LostProcessError(PipelabError, RuntimeError):
    """A process of the pipeline has ended, or cannot be reached.

    ``device``: whose it was; ``stage``, ``action``, ``microbatch``: the last action that it began. None: not known.
    """

    device: int | None = None
    stage: int | None = None
    action: str | None = None
    microbatch: int | None = None


class NonFiniteError(PipelabError, ArithmeticError):
    """A loss, an activation or a gradient is nan or infinite (``Pipeline(check_finite=True)``)."""


class OutOfMemoryError(StageError, MemoryError):
    """A step would cross the memory limit of a device; it has stopped, nothing stays held. All figures in bytes.

    ``needed``: what the action would have brought the device to; ``allowed``: its limit; ``model_states``: the part of
    ``needed`` that is weights, gradients and optimizer state, the rest being activations.
    """

    needed: int
    allowed: int
    model_states: int


def whole_number(name: str, symbol: str, value: object) -> int:
    """``value`` as an int of at least 1.

    Raises ConfigurationError for anything else (bools and fractions included).
    """
    try:
        number: object = value if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        called = f"{name} ({symbol})" if symbol else name
        raise ConfigurationError(
            f"{called} must be a whole number of at least 1, got {number!r}; try {_nearest_whole(number)}"
        )
    return number


def _nearest_whole(value: object) -> int:
    try:
        return max(1, round(float(value)))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return 1


def shown(text: str, most: int = 60) -> str:
    """``text`` for a message: what fits on its line, and no control characters."""
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    return cut if cut.isprintable() else repr(cut)[1:-1]
