"""What is wrong with a setting that cannot be, or does not fit, and the nearest ones that do. Pure Python."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipelab.errors import PipelabError
from pipelab.explorer.figures import over_limit
from pipelab.explorer.settings import CONTROLS, Settings
from pipelab.schedules.catalogue import recipes
from pipelab.timeline import Timeline

_PATIENCE = 0.4  # seconds of looking for a way out: large tables take long to try

__all__ = ["Offer", "Problem", "problem_of", "timelines_of"]


@dataclass(frozen=True)
class Offer:
    """A change that works: ``values`` to put into the settings, and how it reads on a button."""

    label: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """``sentence`` says what is wrong, ``offers`` are the nearest settings without it, the nearest first.

    ``possible``: there is a schedule and a picture of it, but something about it is not allowed (it does not fit).
    """

    sentence: str
    offers: tuple[Offer, ...]
    possible: bool


def problem_of(settings: Settings) -> Problem | None:
    """What is wrong with ``settings``, or None."""
    return timelines_of(settings)[1]


def timelines_of(settings: Settings) -> tuple[tuple[Timeline, ...], Problem | None]:
    """The timelines of ``settings``, that of the schedule to compare with behind it, and what is wrong.

    There are no timelines where one of them is impossible.
    """
    found: list[Timeline] = []
    unfit = ""
    for one in (settings, settings.other()):
        if one is None:
            continue
        try:
            found.append(one.timeline())
        except PipelabError as error:
            offers = _offers(settings, _neighbours(settings))
            return (), Problem(_sentence(str(error)), offers, possible=False)
        unfit = f"{unfit} {over_limit(one, found[-1])}".strip()
    return tuple(found), Problem(unfit, _offers(settings, _slimmer(settings)), possible=True) if unfit else None


def _sentence(text: str) -> str:
    text = text[0].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def _works(settings: Settings) -> bool:
    if settings.limit is None:
        return _builds(settings)  # what can be built is sound
    for one in (settings, settings.other()):
        try:
            if one is not None and over_limit(one, one.timeline()):
                return False
        except PipelabError:
            return False
    return True


def _offers(settings: Settings, tries: Iterator[Mapping[str, Any]], most: int = 3) -> tuple[Offer, ...]:
    """The first few of ``tries`` that work."""
    found: list[Offer] = []
    began = time.perf_counter()
    for values in tries:
        if len(found) == most or (settings.limit is not None and time.perf_counter() - began > _PATIENCE):
            break
        if _works(replace(settings, **values)):
            found.append(Offer(", ".join(_words(name, value) for name, value in values.items()), values))
    return tuple(found)


def _words(name: str, value: Any) -> str:
    one = CONTROLS[name]
    if name == "schedule":
        return recipes()[value].title
    if name == "recompute":
        return "with recomputation"
    return f"{one.symbol or one.label} = {value:g}"


def _around(name: str, value: int, most: int = 130) -> Iterator[int]:
    """Whole numbers near ``value`` within a control's range, the nearest first."""
    one = CONTROLS[name]
    for distance in range(1, most):
        for near in (value - distance, value + distance):
            if one.low <= near <= one.high:
                yield near


def _neighbours(settings: Settings) -> Iterator[Mapping[str, Any]]:
    """For an impossible table: m nearest below and above, then 1F1B."""
    m, tried = settings.microbatches, []
    for near in _around("microbatches", m):
        if _builds(replace(settings, microbatches=near)):
            tried.append(near)
            yield {"microbatches": near}
            if len(tried) == 2:
                break
    if not tried:
        yield from _larger(settings)
    yield {"schedule": "1f1b"}


def _larger(settings: Settings) -> Iterator[Mapping[str, Any]]:
    """Where a batch is too small for any m that the schedule knows: the nearest m, and a sequence for each."""
    m = settings.microbatches
    for near in (m, *_around("microbatches", m)):
        if _builds(replace(settings, microbatches=near, batch=near)):
            yield {"batch": near} if near == m else {"microbatches": near, "batch": near}
            return


def _builds(settings: Settings) -> bool:
    """Whether there is such a table: quicker than a timeline."""
    try:
        for one in (settings, settings.other()):
            if one is not None:
                one.build()
    except PipelabError:
        return False
    return True


def _slimmer(settings: Settings) -> Iterator[Mapping[str, Any]]:
    """For what does not fit: the nearest m that does, recomputation, 1F1B; two of them where one is not enough."""
    nearest = _nearest_m(settings)
    if nearest is not None:
        yield {"microbatches": nearest}
    if not settings.recompute:
        yield {"recompute": True}
    if settings.schedule != "1f1b":
        yield {"schedule": "1f1b"}
    if not settings.recompute and nearest is None and not _works(replace(settings, recompute=True)):
        again = _nearest_m(replace(settings, recompute=True))
        if again is not None:
            yield {"recompute": True, "microbatches": again}
    if settings.schedule != "1f1b":
        finer = _nearest_m(replace(settings, schedule="1f1b"))
        if finer is not None:
            yield {"schedule": "1f1b", "microbatches": finer}
        if not settings.recompute:
            yield {"schedule": "1f1b", "recompute": True}


def _nearest_m(settings: Settings) -> int | None:
    """The nearest other m that fits, as far as one is found in a moment."""
    began = time.perf_counter()
    m, one = settings.microbatches, CONTROLS["microbatches"]
    nearer = sorted(range(int(one.low), int(one.high) + 1), key=lambda n: (abs(n - m), n))
    for n in nearer[1:]:
        if time.perf_counter() - began > _PATIENCE / 2:
            return None
        if settings.sequences_at(n) >= n and _works(replace(settings, microbatches=n)):
            return n
    return None
