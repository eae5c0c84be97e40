"""The settings of an explorer as the line of Python that opens it again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from pipelab.teaching.explorer.curves import AGAINST
from pipelab.teaching.explorer.settings import CONTROLS, Settings

__all__ = ["CURVE", "axis_of", "line"]

CURVE = "bubble"  # the figure that is drawn unless another one is asked for


def axis_of(free: Iterable[str] | None) -> str:
    """The number against which a curve is drawn unless another one is asked for: the first that is free, else m."""
    numbers = [name for name in free or () if name in AGAINST]
    return numbers[0] if numbers else "microbatches"


def line(settings: Settings, free: Iterable[str] | None, figure: str, against: str) -> str:
    """``explore(...)`` with all that is not as usual. ``free``: names of what can be changed, None for everything."""
    usual = Settings()
    given = [repr(settings.schedule)]
    for name in (field.name for field in fields(Settings) if field.name != "schedule"):
        value = getattr(settings, name)
        if value != getattr(usual, name):
            plain = int(value) if isinstance(value, float) and value.is_integer() else value
            given.append(f"{_short(name)}={plain!r}")
    if free is not None:
        names = list(free)
        told = [name for name in names if name != "fixed" or "microbatches" not in names]
        given.append(f"free=[{', '.join(repr(_short(name)) for name in told)}]")
    if figure != CURVE:
        given.append(f"curve={figure!r}")
    if against != axis_of(free):
        given.append(f"against={_short(against)!r}")
    return f"explore({', '.join(given)})".replace("'", '"')


def _short(name: str) -> str:
    return CONTROLS[name].symbol or name
