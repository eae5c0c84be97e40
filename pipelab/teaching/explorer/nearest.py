"""Why settings are impossible, or do not fit, and the nearest ones that work. Pure Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pipelab.errors import PipelabError
from pipelab.schedules.catalogue import recipes
from pipelab.teaching.explorer.figures import over_limit
from pipelab.teaching.explorer.settings import BATCH, CONTROLS, Settings
from pipelab.timeline import Timeline

__all__ = ["Offer", "Problem", "problem_of", "timelines_of"]


@dataclass(frozen=True)
class Offer:
    """A change that works: ``values`` to put into the settings, and how it reads on a button."""

    label: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """``sentence`` says what is wrong; ``offers`` are the nearest settings that work, the nearest first.

    ``possible``: there is a schedule and a picture of it, but it does not fit into the limit.
    """

    sentence: str
    offers: tuple[Offer, ...]
    possible: bool

    def to_json(self) -> dict[str, Any]:
        """For the browser."""
        offers = [{"label": offer.label, "values": dict(offer.values)} for offer in self.offers]
        return {"sentence": self.sentence, "possible": self.possible, "offers": offers}


def problem_of(settings: Settings) -> Problem | None:
    """What is wrong with ``settings``, or None."""
    return timelines_of(settings)[1]


def timelines_of(settings: Settings) -> tuple[tuple[Timeline, ...], Problem | None]:
    """The timelines of ``settings`` and of the schedule to compare with, and what is wrong.

    If one of them is impossible, there are no timelines.
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
    """Whether there is such a table (one that can be built is sound), and room for it: quicker than a timeline."""
    try:
        other = settings.other()
        return settings.fits() and (other is None or other.fits())
    except PipelabError:
        return False


def _offers(settings: Settings, tries: Iterator[Mapping[str, Any]], most: int = 3) -> tuple[Offer, ...]:
    """The first few of ``tries`` that work."""
    working = (values for values in tries if _works(replace(settings, **values)))
    return tuple(
        Offer(", ".join(_words(name, value) for name, value in values.items()), values)
        for values in islice(working, most)
    )


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
    """For an impossible table: m nearest below and above, else another batch or other devices; then 1F1B."""
    m, tried = settings.microbatches, []
    for near in _around("microbatches", m):
        if _builds(replace(settings, microbatches=near)):
            tried.append(near)
            yield {"microbatches": near}
            if len(tried) == 2:
                break
    if not tried:
        yield from list(_larger(settings)) or _other_devices(settings)
    yield {"schedule": "1f1b"}


def _larger(settings: Settings) -> Iterator[Mapping[str, Any]]:
    """Where a batch is too small for any m that the schedule knows: the nearest m, and a sequence for each."""
    m = settings.microbatches
    for near in (m, *_around("microbatches", m)):
        if _builds(replace(settings, microbatches=near, batch=near)):
            yield {"batch": near} if near == m else {"microbatches": near, "batch": near}
            return


def _other_devices(settings: Settings) -> Iterator[Mapping[str, Any]]:
    """The nearest p with which it can be built, each with the nearest m."""
    m = settings.microbatches
    for p in islice(_around("devices", settings.devices), 2):
        for near in (m, *_around("microbatches", m)):
            if _builds(replace(settings, devices=p, microbatches=near)):
                yield {"devices": p} if near == m else {"devices": p, "microbatches": near}
                break


def _builds(settings: Settings) -> bool:
    """Whether there is such a table, fit or not."""
    return _works(replace(settings, limit=None))


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
    """The nearest other m that fits.

    With a fixed micro-batch, fewer of them need less; with a fixed batch, more of them do. In each direction the end is
    tried, and if it fits, halving finds the border.
    """
    m, one = settings.microbatches, CONTROLS["microbatches"]
    ways = [range(int(one.low), m)]
    if settings.fixed == BATCH:
        ways.append(range(min(int(one.high), settings.batch), m, -1))
    found = [n for way in ways if (n := _border(settings, way)) is not None]
    return min(found, key=lambda n: (abs(n - m), n), default=None)


def _border(settings: Settings, way: range) -> int | None:
    """The last m of ``way`` that fits, if its first that can be built does."""

    def at(place: int) -> Settings:
        return replace(settings, microbatches=way[place])

    def built_from(place: int, end: int) -> int | None:
        return next((k for k in range(place, end) if _builds(at(k))), None)

    fits, beyond = built_from(0, len(way)), len(way)
    if fits is None or not _works(at(fits)):
        return None
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        built = built_from(middle, beyond)
        if built is None:  # no table from here to where none fits
            beyond = middle
        elif _works(at(built)):
            fits = built
        else:
            beyond = middle
    return way[fits]
