"""``break_schedule``: drop, swap or start early in a sound schedule, and see what follows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelab.errors import ConfigurationError
from pipelab.schedules.action import format_slot
from pipelab.schedules.catalogue import build_schedule
from pipelab.schedules.checker import require_sound
from pipelab.schedules.schedule import Schedule, TimeTable
from pipelab.schedules.text import write_csv
from pipelab.simulation.simulate import simulate
from pipelab.teaching.board.breaking import Consequence, drop, early_spots, follow, start_early, swap
from pipelab.teaching.running.running_widget import RunningWidget
from pipelab.view import words
from pipelab.view.picture import Picture
from pipelab.view.table import places_of, plot_table
from pipelab.view.widgets.saving import PICTURES, unknown, unused
from pipelab.view.widgets.scene import scene

if TYPE_CHECKING:
    from pipelab.teaching.design.trial import Trial

__all__ = ["Breaker", "break_schedule"]

_WAYS: dict[str, Callable[[Schedule, int, int], Schedule | TimeTable]] = {
    "drop": drop,
    "swap": swap,
    "early": start_early,
}
_STEPS = 2


class Breaker(RunningWidget):
    """What :func:`break_schedule` returns: ``table`` was made of the sound ``schedule``.

    ``consequence`` is what follows from it.

    ``drop``, ``swap`` and ``start_early`` break it from Python, each time the sound schedule anew.
    """

    def __init__(self, schedule: Schedule) -> None:
        require_sound(schedule)
        self.schedule: Schedule = schedule
        self.table: Schedule | TimeTable = schedule
        self.consequence: Consequence = follow(schedule, schedule)
        self.trial: Trial | None = None
        self._said = ""
        self._place: tuple[int, int] | None = None
        super().__init__("breaker", self._view())

    def __repr__(self) -> str:
        return f"Breaker({self.schedule.name}: {' '.join(self.consequence.sentences)})"

    def drop(self, device: int, position: int) -> Breaker:
        """Leave out the slot at ``position`` of ``device``."""
        return self._break("drop", device, position)

    def swap(self, device: int, position: int) -> Breaker:
        """Swap it with the next one on its device."""
        return self._break("swap", device, position)

    def start_early(self, device: int, position: int) -> Breaker:
        """Start it one column before its input is there."""
        return self._break("early", device, position)

    def reset(self) -> Breaker:
        """The sound schedule again."""
        return self._show(self.schedule, None, "This is the sound schedule again.")

    def run(self, *, wait: bool = True) -> Trial | None:
        """Run the broken table for real: the runtime refuses what the checker refuses, and trains with the rest."""
        self._start()
        if wait:
            self._wait()
        return self.trial

    def save(self, kind: str = "csv") -> Path:
        """Write the table as it is now beside the notebook: "csv", "picture" (PNG) or "svg"."""
        if kind in PICTURES:
            return self.picture().save(unused(f"broken-{self.schedule.name}{PICTURES[kind]}"))
        if kind != "csv":
            raise unknown(kind, ("csv", *PICTURES))
        rows = self.table.programs if isinstance(self.table, Schedule) else self.table.rows
        path = unused(f"broken-{self.schedule.name}.csv")
        path.write_text(write_csv(rows), encoding="utf-8")
        return path

    def picture(self) -> Picture:
        """The table as a static picture, with what the checker refuses framed."""
        marked = places_of(self.table, self.consequence.violations)
        note = " ".join(self.consequence.sentences)
        return plot_table(self.table, title=self._title(), marked=marked, note=note)

    def _commands(self) -> dict[str, Callable[[dict[str, Any]], str | None]]:
        return super()._commands() | {"break": self._ask_break, "reset": self._ask_reset}

    def _ask_reset(self, message: dict[str, Any]) -> None:
        self.reset()

    def _ask_break(self, message: dict[str, Any]) -> None:
        way = str(message.get("way"))
        if way not in _WAYS:
            raise ConfigurationError(f"there is no way '{way}' to break it; there are {', '.join(_WAYS)}")
        self._break(way, int(message["device"]), int(message["position"]))

    def _break(self, way: str, device: int, position: int) -> Breaker:
        table = _WAYS[way](self.schedule, device, position)
        slot = format_slot(self.schedule.programs[device][position])
        program = self.schedule.programs[device]
        behind = format_slot(program[position + 1]) if position + 1 < len(program) else ""
        told = {
            "drop": f"{slot} is left out",
            "swap": f"{slot} and {behind} have changed places",
            "early": f"{slot} now starts one column early",
        }
        return self._show(table, (device, position), f"{told[way]} on device {device}.")

    def _show(self, table: Schedule | TimeTable, place: tuple[int, int] | None, said: str) -> Breaker:
        with self._lock:  # a run that ends meanwhile waits, and is not shown any more
            self.table, self._place, self._said = table, place, said
            self.trial = None
            self._leave_run("The table has changed, so the run was stopped.")
            self.consequence = follow(table, self.schedule)
            self.show(self._view())
        return self

    def _start(self) -> None:
        with self._lock:
            if self.consequence.violations:
                first = self.consequence.violations[0]
                raise ConfigurationError(f"refused before anything starts, because {first.message}")
            table = self.table if isinstance(self.table, Schedule) else self.table.schedule(name=self.schedule.name)
            self._begin(partial(_train, table), _STEPS + 1, self._finish)
            self.trial = None

    def _finish(self, trial: Trial) -> str:
        self.trial = trial
        return " ".join(str(trial).splitlines())

    def _title(self) -> str:
        title = words.schedule_title(self.schedule)
        if isinstance(self.table, Schedule):
            return self.table.name.replace(self.schedule.name, title, 1)
        return f"{title}, one action too early"

    def _view(self) -> dict[str, Any]:
        found = self.consequence
        whole = self.table is self.schedule
        scenes = [scene(simulate(self.schedule, check=False), title=f"{words.schedule_title(self.schedule)}, sound")]
        if not whole and isinstance(self.table, Schedule):
            what = "as far as it runs" if found.hangs else "as it runs"
            scenes.append(scene(found.ran, title=f"{self._title()}, {what}"))
            if found.hangs:  # a step that never ends has no makespan
                slots = sum(map(len, self.table.programs))
                done = len(found.ran.spans) + len(found.ran.updates)
                scenes[-1]["figures"] = f"stops at t = {found.ran.end:g}: {done} of {slots} actions ran"
        early = set(early_spots(self.schedule))
        return {
            "actions": [
                [[format_slot(slot), (r, k) in early, k + 1 < len(program)] for k, slot in enumerate(program)]
                for r, program in enumerate(self.schedule.programs)
            ],
            "place": self._place,
            "said": self._said,
            "whole": whole,
            "sound": found.sound,
            "hangs": found.hangs,
            "sentences": [sentence[0].upper() + sentence[1:] for sentence in found.sentences],
            "violations": [violation.message for violation in found.violations[:6]],
            "more": max(len(found.violations) - 6, 0),
            "scenes": scenes,
        }


def _train(schedule: Schedule, progress: Callable[[str], None]) -> Trial:
    from pipelab.teaching.design.trial import try_schedule  # torch is loaded in the run's own thread

    return try_schedule(schedule, steps=_STEPS, progress=progress)


def break_schedule(
    schedule: str | Schedule = "1f1b", devices: int = 4, microbatches: int = 4, *, chunks: int | None = None
) -> Breaker:
    """Drop an action of a sound schedule, swap two, or start one early. Read what follows, and run what still can run.

    ``schedule`` is a name in the catalogue or a Schedule. Raises ConfigurationError or ScheduleError for one that is
    not sound to begin with.

    >>> break_schedule("1f1b", devices=3, microbatches=3)
    """
    if isinstance(schedule, Schedule):
        return Breaker(schedule)
    return Breaker(build_schedule(schedule, devices, microbatches, chunks))
