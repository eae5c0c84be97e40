"""What the papers' formulas give for the explorer's figures, and what they assume. Pure Python.

T is the time of one micro-batch on one device's layers, forward and backward; tR is the time to recompute it. The
formulas are those of the papers: GPipe (arXiv 1811.06965, 2.3), 1F1B and interleaved 1F1B (arXiv 2104.04473, 2.2),
looped BFS (arXiv 2211.05953), Chimera (arXiv 2107.06925, 3), ZB-H1, ZB-H2 and ZB-V (arXiv 2401.10241, 3 and 6), and
DeepSeek's of DualPipeV. A recomputation needs no gradient and delays none, so it adds to the work and not to the
bubble. All hold for messages that take no time, micro-batches of one size and the schedule's own warm-up; what else
one assumes stands beside it. For the other schedules and figures no formula is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipelab.teaching.explorer.settings import UNIT_SEQUENCES, Settings

__all__ = ["FORMULAS", "KNOWN", "Formula", "departure"]


@dataclass(frozen=True)
class Formula:
    """``text`` as it is written (``again`` with recomputation, where that differs), and its ``value``."""

    text: str
    value: Callable[[Settings], float]
    again: str = ""


def _pass(s: Settings, sequences: float) -> float:
    """T of a micro-batch of so many sequences on a device's full share: tF + tB, or tF + tI + tW where it is split."""
    times = (s.forward, *s.halves) if s.splits else (s.forward, s.backward)
    return sum(times) * sequences / UNIT_SEQUENCES + len(times) * s.overhead


def _again(s: Settings, sequences: float) -> float:
    """tR of it: a second forward, where there is recomputation."""
    return s.forward * sequences / UNIT_SEQUENCES + s.overhead if s.recompute else 0.0


def _work(s: Settings) -> float:
    b = s.sequences / s.microbatches
    return s.microbatches * (_pass(s, b) + _again(s, b))


def _idles(s: Settings, v: float = 1) -> float:
    """(p - 1)/v passes: a recomputation delays no gradient."""
    return (s.devices - 1) * _pass(s, s.sequences / s.microbatches) / v


def _filled(s: Settings, v: int = 1) -> float:
    return _work(s) + _idles(s, v)


def _idle(s: Settings, v: int = 1) -> float:
    return _idles(s, v) / _filled(s, v)


def _times(s: Settings) -> tuple[float, float, float]:
    """tF, tI and tW of one micro-batch."""
    b = s.sequences / s.microbatches / UNIT_SEQUENCES
    tI, tW = s.halves
    return s.forward * b + s.overhead, tI * b + s.overhead, tW * b + s.overhead


def _naive(s: Settings) -> float:
    """All devices in turn; of the recomputations only the last device's takes time of its own."""
    return s.devices * _pass(s, s.sequences) + _again(s, s.sequences)


def _interleaved_held(s: Settings) -> float:
    p, m, v = s.devices, s.microbatches, s.chunks
    return min(2 * (p - 1) + (v - 1) * p + 1, m * v) / v


_PLAIN = {
    "makespan": Formula("(m + p - 1) T", _filled, "m (T + tR) + (p - 1) T"),
    "bubble": Formula("(p - 1) / (m + p - 1)", _idle, "(p - 1) T / (m (T + tR) + (p - 1) T)"),
    "idle": Formula("(p - 1) T", _idles),
}
_LOOPED = {
    "makespan": Formula("(m + (p - 1) / v) T", lambda s: _filled(s, s.chunks), "m (T + tR) + (p - 1) T / v"),
    "bubble": Formula(
        "(p - 1) / (v m + p - 1)",
        lambda s: _idle(s, s.chunks),
        "(p - 1) T / (v m (T + tR) + (p - 1) T)",
    ),
    "idle": Formula("(p - 1) T / v", lambda s: _idles(s, s.chunks)),
}
_MESSAGES = Formula("2 m (p v - 1)", lambda s: 2 * s.microbatches * (s.devices * s.v - 1) if s.devices > 1 else 0)
_WHOLE_MESSAGES = Formula("2 m (p - 1)", lambda s: 2 * s.microbatches * (s.devices - 1))
_IN_A_V = Formula("4 m (p - 1)", lambda s: 4 * s.microbatches * (s.devices - 1))
_AS_1F1B = Formula("b min(p, m)", lambda s: min(s.devices, s.microbatches) * s.sequences / s.microbatches)


def _both_ways(s: Settings) -> float:
    """Each direction runs in the slots that the other leaves free, so that half of the bubble and a pass are saved."""
    return _work(s) + _idles(s, 2) - _pass(s, s.sequences / s.microbatches) / 2


def _by_times(text: str, f: int, i: int, w: int) -> Formula:
    """(p - 1) (f tF + i tI + w tW), as ``text`` says it."""
    return Formula(text, lambda s: (s.devices - 1) * sum(k * t for k, t in zip((f, i, w), _times(s), strict=True)))


def _idling(most: Formula, over: str = "", own: Formula | None = None) -> Mapping[str, Formula]:
    """Times where each device works for m T and idles for ``most`` of the makespan, or that over ``over``.

    ``own``: what the idlest device idles between its first action and its last, where it is less.
    """

    def idle(s: Settings) -> float:
        return most.value(s) / s.v if over else most.value(s)

    shown, times = (f"{most.text} / {over}", f"{over} m") if over else (most.text, "m")
    return {
        "makespan": Formula(f"m T + {shown}", lambda s: _work(s) + idle(s), f"m (T + tR) + {shown}"),
        "bubble": Formula(
            f"{most.text} / ({times} T + {most.text})",
            lambda s: idle(s) / (_work(s) + idle(s)),
            f"{most.text} / ({times} (T + tR) + {most.text})",
        ),
        "idle": own or Formula(shown, idle),
    }


_LATE = _by_times("(p - 1) (tF + tI - tW)", 1, 1, -1)
_BY_SCHEDULE: Mapping[str, Mapping[str, Formula]] = {
    "naive": {
        "makespan": Formula("p T of the whole batch", _naive, "p T + tR of the whole batch"),
        "bubble": Formula(
            "(p - 1) / p",
            lambda s: 1 - (_pass(s, s.sequences) + _again(s, s.sequences)) / _naive(s),
            "1 - (T + tR) / (p T + tR)",
        ),
        "idle": Formula("(p - 1) T of the whole batch", lambda s: (s.devices - 1) * _pass(s, s.sequences)),
        "held": Formula("b m", lambda s: float(s.sequences)),
        "messages": Formula("2 (p - 1)", lambda s: 2 * (s.devices - 1)),
    },
    "gpipe": {
        **_PLAIN,
        "held": Formula("b m", lambda s: float(s.sequences)),
        "messages": _WHOLE_MESSAGES,
    },
    "1f1b": {
        **_PLAIN,
        "held": _AS_1F1B,
        "messages": _WHOLE_MESSAGES,
    },
    "interleaved": {
        **_LOOPED,
        "held": Formula(
            "b min(2 (p - 1) + (v - 1) p + 1, m v) / v",
            lambda s: _interleaved_held(s) * s.sequences / s.microbatches,
        ),
        "messages": _MESSAGES,
    },
    "looped-bfs": {**_LOOPED, "held": Formula("b m", lambda s: float(s.sequences)), "messages": _MESSAGES},
    "chimera": {
        "makespan": Formula("(m + (p - 2) / 2) T", _both_ways, "m (T + tR) + (p - 2) T / 2"),
        "bubble": Formula(
            "(p - 2) / (2 m + p - 2)",
            lambda s: 1 - _work(s) / _both_ways(s),
            "(p - 2) T / (2 m (T + tR) + (p - 2) T)",
        ),
        "idle": Formula("(p - 2) T / 2", lambda s: _both_ways(s) - _work(s)),
        "held": Formula("b p", lambda s: s.devices * s.sequences / s.microbatches),
        "messages": _WHOLE_MESSAGES,
    },
    "zb-h1": {**_idling(_LATE), "held": _AS_1F1B, "messages": _WHOLE_MESSAGES},
    "zb-h2": {
        **_idling(_by_times("(p - 1) tF", 1, 0, 0), own=_by_times("(p - 1) (tF + tI - 2 tW)", 1, 1, -2)),
        "held": Formula("b (2 p - 1)", lambda s: (2 * s.devices - 1) * s.sequences / s.microbatches),
        "messages": _WHOLE_MESSAGES,
    },
    "interleaved-zb": {**_idling(_LATE, "v"), "held": _AS_1F1B, "messages": _MESSAGES},
    "zb-v": {
        **_idling(_by_times("(p - 1) tF", 1, 0, 0), "2", Formula("0", lambda s: 0.0)),
        "held": _AS_1F1B,
        "messages": _IN_A_V,
    },
    "dualpipev": {
        **_idling(_by_times("(p - 1) (tF + 2 tI - tW)", 1, 2, -1), "2"),
        "held": Formula("b (2 p + 1) / 2", lambda s: (2 * s.devices + 1) / 2 * s.sequences / s.microbatches),
        "messages": _IN_A_V,
    },
    "v-half": {"messages": _IN_A_V},
    "v-min": {"messages": _IN_A_V},
}


def _without_flush(versions: Formula) -> Mapping[str, Formula]:
    """n steps are shown, with one filling and one draining: in between nothing idles."""
    return {
        "makespan": Formula("(n m + p - 1) T", _steps_filled, "n m (T + tR) + (p - 1) T"),
        "bubble": Formula(
            "(p - 1) / (n m + p - 1)",
            lambda s: (s.devices - 1) * _pass(s, s.sequences / s.microbatches) / _steps_filled(s),
            "(p - 1) T / (n m (T + tR) + (p - 1) T)",
        ),
        "idle": _PLAIN["idle"],
        "long run": Formula("0", lambda s: 0.0),
        "held": Formula("b p", lambda s: s.devices * s.sequences / s.microbatches),
        "messages": _WHOLE_MESSAGES,
        "versions": versions,
    }


def _steps_filled(s: Settings) -> float:
    b = s.sequences / s.microbatches
    return s.steps * s.microbatches * (_pass(s, b) + _again(s, b)) + (s.devices - 1) * _pass(s, b)


def _every_step(known: Mapping[str, Formula]) -> Mapping[str, Formula]:
    """With a flush each step has its bubble."""
    return {"long run": known["bubble"]} if "bubble" in known else {}


KNOWN: Mapping[str, Mapping[str, Formula]] = {
    **{
        name: {**known, **_every_step(known), "versions": Formula("1", lambda s: 1.0)}
        for name, known in _BY_SCHEDULE.items()
    },
    "pipedream": _without_flush(Formula("p", lambda s: float(s.devices))),
    "vertical-sync": _without_flush(Formula("p", lambda s: float(s.devices))),
    "2bw": _without_flush(Formula("2", lambda s: 2.0)),
}
_ALL = [one for known in KNOWN.values() for one in known.values()]
FORMULAS = tuple(sorted({text for one in _ALL for text in (one.text, one.again) if text}))


Condition = tuple[str, Callable[[Settings], bool]]

_IN_GROUPS: Condition = ("m a multiple of p", lambda s: s.microbatches % s.devices == 0)
_FILLED: Condition = ("m of at least p", lambda s: s.microbatches >= s.devices)
_FILLED_TWICE: Condition = ("m of at least 2 p", lambda s: s.microbatches >= 2 * s.devices)
_SHORT_W: Condition = ("tW of at most tF and tI", lambda s: s.halves[1] <= min(s.forward, s.halves[0]))
_LONG_W: Condition = ("tW of at least tI / 2", lambda s: s.halves[0] <= 2 * s.halves[1])
_EQUAL: Condition = ("tF = tI = tW", lambda s: s.halves == (s.forward, s.forward))
_ONE_SUM: Condition = ("tB = tI + tW", lambda s: abs(s.backward - sum(s.halves)) <= 1e-9 * s.backward)
_AS_LONG: Condition = ("tF = tI", lambda s: s.halves[0] == s.forward)

# What the formulas of a schedule assume: all of them, and those of times.
_SIZES: Mapping[str, tuple[Condition, ...]] = {
    "interleaved": (_IN_GROUPS,),
    "interleaved-zb": (_IN_GROUPS,),
    "looped-bfs": (_FILLED,),
    "zb-h1": (_FILLED,),
    "zb-v": (_FILLED_TWICE,),
}
_COSTS: Mapping[str, tuple[Condition, ...]] = {
    "chimera": (("tF = tB", lambda s: s.forward == s.backward),),
    "interleaved-zb": (_SHORT_W,),
    "zb-h1": (_SHORT_W,),
    "zb-h2": (_SHORT_W, _LONG_W),
    "zb-v": (_EQUAL,),
    "dualpipev": (
        _AS_LONG,
        _SHORT_W,
        _ONE_SUM,
        ("no fixed cost", lambda s: not s.overhead),
        ("no recomputation", lambda s: not s.recompute),
    ),
}
_ANY: tuple[Condition, ...] = (
    ("a warm-up of p - 1 - r", lambda s: not s.warmup or s.schedule != "1f1b"),
    ("micro-batches of one size", lambda s: not s.sequences % s.microbatches or s.schedule == "naive"),
)
_TIMES = ("makespan", "bubble", "long run", "idle")


def departure(name: str, settings: Settings) -> str:
    """What the formula of figure ``name`` assumes and the settings do not keep, in words."""
    conditions = [*_ANY, *_SIZES.get(settings.schedule, ())]
    if name in _TIMES:
        conditions += [*_COSTS.get(settings.schedule, ()), ("messages that take no time", lambda s: not s.latency)]
    if name == "long run":
        conditions.append(("no recomputation", lambda s: not s.recompute or s.recipe.updating is None))
    reasons = [words for words, holds in conditions if not holds(settings)]
    return f"the formula assumes {' and '.join(reasons)}" if reasons else ""
