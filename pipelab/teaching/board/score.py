"""The score of a complete board: against the shortest that can be, and against the known schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from pipelab.errors import ScheduleError
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Schedule
from pipelab.simulation import Costs, simulate
from pipelab.teaching.board.board import Board
from pipelab.teaching.board.known import known_schedules, titles_of
from pipelab.teaching.board.rules import Rules
from pipelab.teaching.board.words import columns, listed

__all__ = ["Known", "Score", "bound", "recognise", "score"]


@dataclass(frozen=True)
class Known:
    """A known schedule under the rules of a board: its columns, the micro-batches in flight on each device.

    ``fits`` says whether these are within the rules' memory cap.
    """

    title: str
    makespan: int
    peaks: tuple[float, ...]
    fits: bool


@dataclass(frozen=True)
class Score:
    """A complete board in figures.

    ``makespan`` and ``bound`` are in columns, ``peaks`` micro-batches in flight on each device in full shares.
    ``known`` are the known schedules of these sizes, the shortest first. ``recognised`` names what this board is, if it
    is known. ``sentence`` says all that in words.
    """

    makespan: int
    bound: int
    bubble_fraction: float
    peaks: tuple[float, ...]
    known: tuple[Known, ...]
    recognised: str | None
    sentence: str


def bound(rules: Rules) -> int:
    """Columns that every complete table of F and B needs.

    A backward counts as one block here; a table that splits it into I and W may be shorter (arXiv 2401.10241). The
    bound is the largest of three, each of which holds for every sound table:

    - **One micro-batch** goes up through all stages and down again, one after the other: S (tF + tB), S = p v.
    - **One device** has m v forwards and m v backwards to run, one at a time. Before its first it waits: of its stages
      the lowest is s = r, and no forward reaches it before s tF have passed. Its last is a backward of stage s or a
      higher one, because each forward is followed by its backward. After it, at least s backwards of that micro-batch
      have still to run below. Together: s tF + m v (tF + tB) + s tB; for the last device (p - 1 + m v) (tF + tB).
    - **One device's memory.** A micro-batch is held from the start of its F on stage s to the end of its B. In between
      it goes up to stage S - 1 and comes back, so that takes at least (S - s)(tF + tB). All that holding has to fit
      into the columns between the wait before and the wait after, at most c at a time. c is the device's cap in chunks.

    The cap's part is a bound, not always the optimum: the best table within a cap may be longer.
    """
    pair = rules.forward + rules.backward
    found = rules.stages * pair
    for device, capacity in enumerate(rules.capacities):
        stages = rules.stages_on(device)
        work = rules.microbatches * rules.chunks * pair
        holding = rules.microbatches * sum(rules.stages - stage for stage in stages) * pair
        squeezed = 0 if capacity == math.inf else math.ceil(holding / capacity)
        found = max(found, stages[0] * pair + max(work, squeezed))
    return found


def recognise(board: Board) -> str | None:
    """The title of the known schedule whose order this board has on every device, or None.

    Micro-batches may have other names, and idle columns do not count. Where several are the same for these sizes (for
    one micro-batch nearly all), their titles are joined by " and ". Raises ScheduleError unless the board is complete.
    """
    return " and ".join(titles_of(board.schedule(), board.rules)) or None


def score(board: Board) -> Score:
    """The figures of a complete, sound board. Raises ScheduleError for any other, and names what is wrong first."""
    own = board.schedule()
    if board.violations():
        raise ScheduleError.refuse("yours", board.violations())
    known, titles, least = _known(board.rules), titles_of(own, board.rules), bound(board.rules)
    return Score(
        makespan=board.makespan,
        bound=least,
        bubble_fraction=board.bubble_fraction,
        peaks=board.peaks,
        known=known,
        recognised=" and ".join(titles) or None,
        sentence=_sentence(board, known, titles, least),
    )


@reserved
def _known(rules: Rules) -> tuple[Known, ...]:
    return _measured_once(rules)


@cache
def _measured_once(rules: Rules) -> tuple[Known, ...]:
    costs = Costs(forward=(rules.forward,) * rules.stages, backward=(rules.backward,) * rules.stages)
    found = (_measured(title, schedule, rules, costs) for title, schedule in known_schedules(rules))
    return tuple(sorted(found, key=lambda known: known.makespan))


def _measured(title: str, schedule: Schedule, rules: Rules, costs: Costs) -> Known:
    timeline = simulate(schedule, costs, check=False)
    peaks = timeline.peak_microbatches
    fits = all(peak <= limit + 1e-9 for peak, limit in zip(peaks, rules.limits, strict=True))
    return Known(title, round(timeline.makespan), peaks, fits)


def _sentence(board: Board, known: tuple[Known, ...], titles: tuple[str, ...], least: int) -> str:
    over = board.makespan - least
    length = f"{columns(board.makespan)}, " + (
        "and no complete table of F and B can be shorter" if over == 0 else f"{over} more than the bound of {least}"
    )
    peaks = ", ".join(f"{peak:.3g}" for peak in board.peaks)
    said = [
        f"{length}.",
        f"{board.bubble_fraction:.0%} of the cells are idle.",
        f"Most micro-batches in flight on each device: {peaks}.",
        _compared(board, known, titles),
    ]
    return " ".join(filter(None, said))


def _compared(board: Board, known: tuple[Known, ...], titles: tuple[str, ...]) -> str:
    if titles:
        shortest = min(one.makespan for one in known if one.title in titles)
        name = " and ".join(titles)
        if board.makespan == shortest:
            return f"This is {name}."
        return f"This is the order of {name}. It takes {columns(shortest)} if every action starts as early as it can."
    fitting = [one for one in known if one.fits]
    if not fitting:
        return "No known schedule stays within this memory cap."
    best = [one.title for one in fitting if one.makespan == fitting[0].makespan]
    takes = f"{listed(best)} {'take' if len(best) > 1 else 'takes'} {columns(fitting[0].makespan)}"
    within = " within this memory cap" if math.isfinite(min(board.rules.limits)) else ""
    if board.makespan < fitting[0].makespan:
        those = "those within this memory cap" if within else "all of them"
        return f"It is none of the known schedules, and shorter than {those}: {takes}."
    return f"It is none of the known schedules: {takes}{within}."
