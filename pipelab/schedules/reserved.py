"""What an exercise asks a learner to write cannot be fetched while the learner's function runs."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from pipelab.errors import PipelabError

__all__ = ["EVERYWHERE", "ReservedError", "close", "reservable", "reserve", "reserve_also", "reserved"]

P = ParamSpec("P")
T = TypeVar("T")

EVERYWHERE = "PIPELAB_RESERVED"  # in the environment: the reason, for processes started here

_reason: ContextVar[str] = ContextVar("pipelab_reserved", default="")
_closed: list[str] = []  # the reason, for all threads of this process, from :func:`close` on
_also: ContextVar[frozenset[str]] = ContextVar("pipelab_reserved_also", default=frozenset())


class ReservedError(PipelabError, RuntimeError):
    """A catalogue or a reference was asked for the answer to the exercise that is being checked."""


@contextmanager
def reserve(reason: str) -> Iterator[None]:
    """Inside, every function that is :func:`reserved` raises ReservedError, which ends with ``reason``."""
    token = _reason.set(reason)
    try:
        yield
    finally:
        _reason.reset(token)


def close(reason: str) -> None:
    """From here on every function that is :func:`reserved` refuses, in all threads and in processes started here."""
    _closed.append(reason)
    os.environ[EVERYWHERE] = reason


def reserved(function: Callable[P, T]) -> Callable[P, T]:
    """``function``, which refuses to answer inside :func:`reserve` and after :func:`close`."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        reason = _reason.get() or (_closed[-1] if _closed else os.environ.get(EVERYWHERE))
        if reason:
            raise ReservedError(f"{function.__name__} does not answer here: {reason}")
        return function(*args, **kwargs)

    del guarded.__wrapped__  # not within easy reach; someone who studies this module gets past it
    guarded.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # for help()
    return guarded


@contextmanager
def reserve_also(*names: str) -> Iterator[None]:
    """Inside, the :func:`reservable` functions of these names refuse as well while a learner's function runs."""
    token = _also.set(_also.get() | set(names))
    try:
        yield
    finally:
        _also.reset(token)


def reservable(function: Callable[P, T]) -> Callable[P, T]:
    """``function``, which answers inside :func:`reserve` too, unless :func:`reserve_also` names it."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        if function.__qualname__ in _also.get() and _reason.get():
            raise ReservedError(f"{function.__qualname__} does not answer here: {_reason.get()}")
        return function(*args, **kwargs)

    return guarded
