"""A learner's own leaderboard: schedules kept in ``work/leaderboard/``, beside the catalogue, on hidden settings."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from functools import cache
from html import escape
from pathlib import Path
from random import Random
from statistics import mean
from typing import TYPE_CHECKING

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.quantities import render_table
from pipelab.simulation import Costs
from pipelab.teaching.design.goal import Goal, Rating
from pipelab.teaching.design.paper import html_table, keep, shown
from pipelab.teaching.design.standing import Standing
from pipelab.teaching.guesses import Ledger

if TYPE_CHECKING:
    from pipelab.view.picture import Picture

__all__ = ["FOLDER", "Leaderboard", "hidden_goals"]

FOLDER = "leaderboard"
DEVICES, MICROBATCHES, CHUNKS = 4, 8, 2
HEADS = ("", "schedule", "time, % of 1F1B", "worst setting", "micro-batches held", "messages", "best for its memory")
_SETTINGS, _SEED = 6, "leaderboard"


@cache
def hidden_goals() -> tuple[Goal, ...]:
    """The settings: what F, B, I, W and a message cost. They are the same on every machine, and no page shows them."""
    random, found = Random(_SEED), []
    for _ in range(_SETTINGS):
        forward, down, weights, cut, latency = (random.random() for _ in range(5))
        i, w = 0.8 + 0.6 * down, 0.6 + 0.6 * weights
        whole = (i + w) * (1 - 0.15 * cut)  # a whole backward takes less than its halves
        costs = Costs(0.8 + 0.4 * forward, whole, input_gradient=i, weight_gradient=w, latency=0.5 * latency**2)
        found.append(Goal(DEVICES, MICROBATCHES, CHUNKS, costs, memory_limit=math.inf))
    return tuple(found)


def _standing(ratings: Iterable[Rating], own: bool) -> Standing:
    each = list(ratings)
    times = tuple(one.makespan / base for one, base in zip(each, _one_f_one_b(), strict=True))
    return Standing(each[0].schedule.name, own, times, max(each[0].held), each[0].timeline.message_count)


@cache
def _one_f_one_b() -> tuple[float, ...]:
    return tuple(next(one.makespan for one in g.catalogue if one.schedule.name == "1F1B") for g in hidden_goals())


@cache
def _rivals() -> tuple[Standing, ...]:
    named = [{one.schedule.name: one for one in goal.catalogue} for goal in hidden_goals()]
    return tuple(_standing((ratings[name] for ratings in named), own=False) for name in named[0])


class Leaderboard:
    """The schedules in ``folder``, a CSV file each. A notebook shows them as a table and as a picture.

    All are for p = 4 and m = 8, with at most two stages on a device. Their figures are worked out anew each time. What
    is in the folder is never changed: a file that cannot be read is named below the table, and stays as it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def here(cls) -> Leaderboard:
        """That of the work folder around this notebook, or else one in this folder."""
        return cls(Ledger.here().path.parent / FOLDER)

    def enter(self, schedule: object, name: str = "mine") -> Path:
        """Keep a schedule under ``name``; returns its file. What it may be, see :meth:`Goal.rate`.

        Where the name is taken by another schedule, this one gets a number. Raises ConfigurationError or ScheduleError
        for what cannot be on this leaderboard.
        """
        if not isinstance(name, str) or not re.search(r"\w", name) or len(name) > 100:
            raise ConfigurationError(f"a schedule needs a name on the leaderboard, got {str(name)[:20]!r}; try 'mine'")
        table = hidden_goals()[0].rate(schedule, name).schedule
        return keep(table.to_csv(), f"{name}.csv", self.folder)

    def read(self) -> tuple[list[Standing], list[str]]:
        """All that can be read, and the catalogue's, the fastest first; and a sentence for each other file."""
        found, problems = [*_rivals()], []
        for path in sorted(self.folder.glob("*.csv")):
            try:
                text = path.read_text(encoding="utf-8")
                found.append(_standing((goal.rate(text, path.stem) for goal in hidden_goals()), own=True))
            except (PipelabError, OSError, UnicodeDecodeError) as error:
                why = str(error).splitlines()[0].rstrip(".:")
                problems.append(f"{self.folder.name}/{path.name} is not shown, and stays as it is: {why}.")
        return sorted(found, key=lambda one: (one.time, one.held, not one.own)), problems

    @property
    def bound(self) -> float:
        """No order takes less on average, as a fraction of 1F1B, with each stage on one device."""
        return mean(goal.bound / base for goal, base in zip(hidden_goals(), _one_f_one_b(), strict=True))

    def _told(self) -> tuple[list[Standing], list[tuple[str, ...]], list[str]]:
        """All schedules, a row for each with a cell for each of ``HEADS``, and what stands below."""
        standings, problems = self.read()
        rows = [_row(number, one, standings) for number, one in enumerate(standings, 1)]
        least = f"no order takes less than {100 * self.bound:.1f} % with each stage on one device"
        said = f"Mean of {len(hidden_goals())} hidden settings; {least}, dealt in turn or in a V."
        if not any(one.own for one in standings):
            problems.insert(0, "None of yours yet: enter(schedule, name) adds one.")
        return standings, rows, [said, *problems]

    def __str__(self) -> str:
        _, rows, below = self._told()
        return "\n".join([render_table(HEADS, rows), *below])

    __repr__ = __str__

    def picture(self) -> Picture:
        """Time over memory: where less of one costs more of the other."""
        from pipelab.teaching.design.pareto import plot_standings

        return plot_standings(self.read()[0], self.bound)

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        standings, rows, below = self._told()
        own = [number for number, one in enumerate(standings) if one.own]
        html = html_table(HEADS, rows, own) + "".join(f"<p>{escape(said)}</p>" for said in below)
        return shown("\n".join([render_table(HEADS, rows), *below]), self.picture(), include, exclude, html)


def _row(number: int, one: Standing, standings: Iterable[Standing]) -> tuple[str, ...]:
    name = f"{one.name} (yours)" if one.own else one.name
    times = (f"{100 * one.time:.1f}", f"{100 * max(one.times):.1f}")
    best = "" if any(one.beaten_by(other) for other in standings) else "*"
    return (str(number), name, *times, f"{one.held:g}", str(one.messages), best)
