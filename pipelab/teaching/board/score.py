"""The score of a complete board: against the shortest that can be, and against the known schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from pipelab.errors import ScheduleError
from pipelab.schedules.action import Action
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Schedule
from pipelab.simulation import Costs, simulate
from pipelab.teaching.board.board import Board
from pipelab.teaching.board.known import known_schedules, titles_of
from pipelab.teaching.board.rules import Rules
from pipelab.teaching.board.words import columns, listed, shares

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
    """Columns that every complete table under these rules needs.

    A backward that is not split is I here, and W takes nothing. The bound is the largest of three, each of which holds
    for every sound table:

    - **One micro-batch** goes up through all stages and down again, one after the other, and ends with a W:
      S (tF + tI) + tW, S = p v.
    - **One device** runs its n actions of each kind one at a time. Before its first it waits: of its stages the lowest
      is s, and no forward reaches it before s tF have passed. Its last F or I is an I of stage s or a higher one,
      because each forward is followed by its backward. After it, at least s I of that micro-batch have still to run
      below, and a W. Together: s tF + n (tF + tI) + s tI + tW. And where W fills the end, s tF + n (tF + tI + tW).
    - **One device's memory.** A micro-batch is held from the start of its F on stage s to the end of its W. In between
      it goes up to stage S - 1 and comes back, so that takes at least (S - s)(tF + tI) + tW. All that holding has to
      fit into the columns after the wait, at most c at a time. c is the device's cap in chunks. Without W, nothing of
      the device fills the wait after its last backward either.

    The cap's part is a bound, not always the optimum: the best table within a cap may be longer.
    """
    forward, down, *rest = (rules.duration(Action(0, op, 0)) for op in rules.ops)
    pair, weights = forward + down, sum(rest)
    found = rules.stages * pair + weights
    for device, capacity in enumerate(rules.capacities):
        own = [action.stage for action in rules.actions() if action.op == "F" and rules.home(action) == device]
        lowest, work = min(own, default=0), len(own) * pair
        holding = sum((rules.stages - stage) * pair + weights for stage in own)
        squeezed = 0 if capacity == math.inf else math.ceil(holding / capacity)
        last = 0 if weights else lowest * down
        busy = max(work + lowest * down + weights if own else 0, work + len(own) * weights, squeezed + last)
        found = max(found, lowest * forward + busy)
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
    costs = rules.costs()
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
        f"and no complete table of {listed(board.rules.ops)} can be shorter"
        if over == 0
        else f"{over} more than the bound of {least}"
    )
    said = [
        f"{length}.",
        f"{board.bubble_fraction:.0%} of the cells are idle.",
        f"Most micro-batches in flight on each device: {shares(board.peaks)}.",
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
