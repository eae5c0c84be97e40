"""``draw_schedule`` and ``puzzles``: the drawing board in a notebook. What it says comes from the board."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.schedules.action import Action
from pipelab.schedules.catalogue import recipes
from pipelab.schedules.schedule import Schedule, TimeTable
from pipelab.teaching.board.board import Board, IllegalMove
from pipelab.teaching.board.drawings import FOLDER, drawing_name, keep_drawing, kept_drawing
from pipelab.teaching.board.history import History
from pipelab.teaching.board.puzzles import PUZZLES, Puzzle, puzzle
from pipelab.teaching.board.rules import Limit, Rules
from pipelab.teaching.board.score import score
from pipelab.teaching.board.words import listed, sentence, shares
from pipelab.teaching.running.running_widget import RunningWidget
from pipelab.view import palette
from pipelab.view.picture import Picture
from pipelab.view.table import plot_table
from pipelab.view.timeline import plot_timeline
from pipelab.view.widgets.animation import Animation, plot_animation
from pipelab.view.widgets.saving import MOVING, unknown, unused
from pipelab.view.widgets.scene import scene

if TYPE_CHECKING:
    from pipelab.teaching.design.trial import Trial

__all__ = ["DrawingBoard", "draw_schedule", "puzzles"]

LAYERS = 48  # of the model that a drawn schedule trains
_STEPS = 2
_ROOM = 3  # empty columns behind what stands on the board


class DrawingBoard(RunningWidget):
    """What :func:`draw_schedule` and :func:`puzzles` return.

    ``board`` is what stands on it, ``puzzle`` the puzzle that is played (None where one draws freely), ``trial`` the
    result of *Run it*. ``place`` and ``take`` are moves from Python; ``load`` puts another grid in.
    """

    def __init__(self, board: Board, *, now: Puzzle | None = None, name: str = "drawing", said: str = "") -> None:
        self.puzzle, self._name = now, name
        self._history = History(board)
        self._said = said
        self._solved: set[str] = set()
        self.trial: Trial | None = None
        if now is not None:
            self._solved = {
                one.name for one in PUZZLES if one.verdict(kept_drawing(f"puzzle-{one.name}", one.rules)[0]).done
            }
        super().__init__("board", self._view())

    def __repr__(self) -> str:
        return f"DrawingBoard({self.board})"

    # ---- from Python -----------------------------------------------------------------------------------------------

    @property
    def board(self) -> Board:
        """What stands on it."""
        return self._history.board

    def place(self, device: int, time: int, action: Action | str) -> DrawingBoard:
        """Place an action. Raises IllegalMove, which says why not."""
        what = _action(action)
        self._do(self.board.place(device, time, what), f"{what} is on device {device} at t = {time}.")
        return self

    def take(self, action: Action | str) -> DrawingBoard:
        """Take an action away, with what leans on it."""
        removal = self.board.removal(_action(action))
        self._do(removal.board, removal.sentence + ".")
        return self

    def undo(self) -> DrawingBoard:
        """Back to the board before the last move."""
        return self._go(self._history.undo(), "Undone.")

    def redo(self) -> DrawingBoard:
        """Forward to what was undone last."""
        return self._go(self._history.redo(), "Redone.")

    def load(self, csv: str) -> DrawingBoard:
        """Put the grid in ``csv`` on the board: text as :meth:`save` wrote it, half-finished ones too.

        Raises ScheduleParseError or ConfigurationError for what is no grid of these rules; the board stays as it was.
        """
        self._do(Board.from_csv(csv, self.board.rules), "Loaded.")
        return self

    def save(self, kind: str = "csv") -> Path:
        """Write it beside the notebook: "csv", which loads again, "picture" (PNG), "svg" or "gif" (it moves).

        Nothing is overwritten.
        """
        if kind in MOVING:
            shown = self.animation() if kind == "gif" else self.picture()
            return shown.save(unused(f"{self._name}{MOVING[kind]}"))
        if kind != "csv":
            raise unknown(kind, ("csv", *MOVING))
        path = unused(f"{self._name}.csv")
        path.write_text(self.board.to_csv(), encoding="utf-8")
        return path

    def run(self, *, wait: bool = True) -> Trial | None:
        """Train the 48-layer model by this board; what *Run it* does. Raises ConfigurationError if it is not ready."""
        self._start()
        if wait:
            self._wait()
        return self.trial

    def picture(self) -> Picture:
        """The board as a static picture."""
        title = self.puzzle.title if self.puzzle is not None else "Draw your own"
        if self.board.starts:
            return plot_timeline(self.board.timeline(), title=f"{title}: {self.board}", phases=False)
        empty = TimeTable(((None,) * self._view()["columns"],) * self.board.rules.devices)
        asked = f"{self.puzzle.text} {self.puzzle.goal}" if self.puzzle is not None else sentence(str(self.board.rules))
        return plot_table(empty, title=title, note=asked, cells=True)

    def animation(self) -> Animation:
        """The run, or what stands on the board, as an animated picture."""
        if not self.board.starts:
            raise ConfigurationError("an empty board has nothing that moves; place an action first")
        ran = None if self.trial is None else self.trial.timeline
        return plot_animation(self.board.timeline() if ran is None else ran)

    # ---- from the browser ------------------------------------------------------------------------------------------

    def _commands(self) -> dict[str, Callable[[dict[str, Any]], str | None]]:
        return super()._commands() | {
            "look": self._ask_look,
            "place": self._ask_place,
            "take": self._ask_take,
            "undo": lambda message: self._quietly(self.undo),
            "redo": lambda message: self._quietly(self.redo),
            "clear": self._ask_clear,
            "load": self._ask_load,
            "puzzle": self._ask_puzzle,
        }

    def _quietly(self, work: Callable[[], object]) -> None:
        work()
        self._keep()

    def _ask_look(self, message: dict[str, Any]) -> None:
        """What could be placed in a cell, and why the rest cannot."""
        device, time = int(message["device"]), int(message["time"])
        rules = self.board.rules
        if not (0 <= device < rules.devices and 0 <= time < rules.columns):
            raise ConfigurationError(f"the board has devices 0..{rules.devices - 1} and columns 0..{rules.columns - 1}")
        here = self.board.at(device, time)
        found = [] if here is not None else self.board.choices(device, time)
        choices = [[str(choice.action), choice.legal, choice.reason or ""] for choice in found]
        choices.sort(key=lambda choice: not choice[1])
        self.send({"cell": [device, time], "here": None if here is None else str(here), "choices": choices})

    def _ask_place(self, message: dict[str, Any]) -> None:
        try:
            self.place(int(message["device"]), int(message["time"]), str(message["action"]))
        except IllegalMove as refused:
            raise ConfigurationError(sentence(str(refused))) from None
        self._keep()

    def _ask_take(self, message: dict[str, Any]) -> None:
        self.take(str(message["action"]))
        self._keep()

    def _ask_clear(self, message: dict[str, Any]) -> None:
        self._do(Board.empty(self.board.rules), "The board is empty again. Undo brings everything back.")
        self._keep()

    def _ask_load(self, message: dict[str, Any]) -> str | None:
        try:
            self.load(str(message.get("text", "")))
        except PipelabError as error:
            name, why = message.get("name", "that file"), sentence(str(error))
            return f"{name} was not loaded, and the board has not changed. {why}"
        self._keep()
        return None

    def _ask_puzzle(self, message: dict[str, Any]) -> None:
        now = puzzle(str(message.get("name")))
        self.puzzle, self._name = now, f"puzzle-{now.name}"
        self.trial = None
        self._leave_run("Another puzzle is on the board, so the run was stopped.")
        board, self._said = _kept(now)
        self._history = History(board)
        self.show(self._view())

    # ---- what happens ----------------------------------------------------------------------------------------------

    def _do(self, board: Board, said: str) -> None:
        self._go(self._history.do(board), said)

    def _go(self, history: History, said: str) -> DrawingBoard:
        with self._lock:  # a run that ends meanwhile waits, and is not shown any more
            if history.board != self._history.board:
                self.trial = None
                self._leave_run("The board has changed, so the run was stopped.")
            self._history, self._said = history, said
            if self.puzzle is not None and self.puzzle.verdict(self.board).done:
                self._solved.add(self.puzzle.name)
            self.show(self._view())
        return self

    def _keep(self) -> None:
        """A learner's grid outlives the kernel: it is written down after each move made in the browser."""
        try:
            keep_drawing(self.board, self._name)
        except OSError as error:
            self._said = f"{self._said} (It could not be kept in {FOLDER}/: {error.strerror}.)"
            self.show(self._view())

    def _start(self) -> None:
        with self._lock:
            board, rules = self.board, self.board.rules
            wrong = board.violations()
            if board.missing:
                first = ", ".join(map(str, board.missing[:3]))
                more = " and more" if len(board.missing) > 3 else ""
                raise ConfigurationError(
                    f"the board must be complete before it can run: {first}{more} are still missing"
                )
            if wrong:
                raise ConfigurationError(f"this board cannot run: {wrong[0].message}")
            if rules.stages > LAYERS:
                raise ConfigurationError(f"the model has only {LAYERS} layers, too few for {rules.stages} stages")
            self._begin(partial(_train, board.schedule(), rules), _STEPS + 1, self._finish)
            self.trial = None

    def _finish(self, trial: Trial) -> str:
        self.trial = trial
        self.show(self._view())
        return " ".join(str(trial).splitlines())

    # ---- what the browser draws ------------------------------------------------------------------------------------

    def _view(self) -> dict[str, Any]:
        board, rules = self.board, self.board.rules
        wrong: dict[Action | None, str] = {v.action: v.message for v in board.violations()}
        columns = min(max(board.makespan + _ROOM, self.puzzle.target + 1 if self.puzzle else 8), rules.columns)
        now = self.puzzle
        return {
            "puzzle": None if now is None else now.name,
            "title": "Draw your own schedule" if now is None else now.title,
            "text": "" if now is None else now.text,
            "goal": "" if now is None else now.goal,
            "hints": [] if now is None else list(now.hints),
            "ladder": [[one.name, one.title, one.name in self._solved] for one in PUZZLES] if now else [],
            "rules": sentence(
                str(rules if now is None else replace(rules, limit=None))
            ),  # a puzzle's goal names the cap
            "devices": rules.devices,
            "ops": rules.ops,
            "stages": [list(rules.stages_on(r)) for r in range(rules.devices)],
            "columns": columns,
            "target": None if now is None else now.target,
            "actions": [_drawn(board, action, start, wrong) for action, start in sorted(board.starts.items())],
            "openings": [[o.device, o.time, str(o.action), rules.duration(o.action)] for o in board.ready_anywhere()],
            "held": [[_short(value) for value in board.held(r)] for r in range(rules.devices)],
            "limits": [None if limit == math.inf else _short(limit) for limit in rules.limits],
            "done": [len(board.starts), len(rules.actions())],
            "said": self._said,
            "status": self._status(board),
            "score": self._score(board),
            "undo": self._history.can_undo,
            "redo": self._history.can_redo,
            "trial": None if self.trial is None or self.trial.timeline is None else [scene(self.trial.timeline)],
        }

    def _status(self, board: Board) -> dict[str, Any]:
        """Where the board stands, in a sentence."""
        if self.puzzle is not None:
            verdict = self.puzzle.verdict(board)
            return {"done": verdict.done, "sentence": verdict.sentence}
        wrong = board.violations()
        if wrong:
            return {"done": False, "sentence": f"This board breaks the rules: {wrong[0].message}."}
        if board.dead_end is not None:
            return {"done": False, "sentence": f"It cannot be finished like this: {board.dead_end}."}
        if board.missing:
            total = len(board.rules.actions())
            return {"done": False, "sentence": f"{len(board.starts)} of {total} actions placed."}
        return {"done": True, "sentence": f"Complete. {score(board).sentence}"}

    def _score(self, board: Board) -> dict[str, Any] | None:
        """The board beside the bound and the known schedules, once it is complete."""
        if board.missing or board.violations():
            return None
        found = score(board)
        rows = [["yours", found.makespan, shares(found.peaks), "yes"]]
        taught = {recipe.title for recipe in recipes().values()} if self.puzzle else set()
        rows += [
            [known.title, known.makespan, shares(known.peaks), "yes" if known.fits else "no"]
            for known in found.known
            if not taught or known.title in taught or known.title in (found.recognised or "")
        ]
        rows.append([f"no table of {listed(board.rules.ops)} is shorter than", found.bound, "", ""])
        return {"rows": rows, "sentence": found.sentence}


def _train(schedule: Schedule, rules: Rules, progress: Callable[[str], None]) -> Trial:
    from pipelab.teaching.design.trial import try_schedule  # torch is loaded in the run's own thread

    return try_schedule(schedule, steps=_STEPS, costs=rules.costs(), progress=progress)


def _kept(one: Puzzle) -> tuple[Board, str]:
    return kept_drawing(f"puzzle-{one.name}", one.rules)


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _action(action: Action | str) -> Action:
    if isinstance(action, Action):
        return action
    try:
        return Action.parse(action)
    except ValueError as problem:
        raise ConfigurationError(str(problem)) from None


def _drawn(board: Board, action: Action, start: int, wrong: Mapping[Action | None, str]) -> list[Any]:
    """[text, device, column, columns, colour, ink, what is wrong with it]."""
    device = board.rules.home(action)
    stages = board.rules.stages_on(device)
    colour = palette.shade(action.op, stages.index(action.stage), len(stages))
    why = wrong.get(action, "")
    duration = board.rules.duration(action)
    return [str(action), device, start, duration, colour, palette.text_colour(colour), why]


def draw_schedule(
    devices: int = 4,
    microbatches: int = 4,
    *,
    chunks: int = 1,
    forward: int = 1,
    backward: int | tuple[int, int] = 1,
    limit: Limit = None,
    layout: str = "loop",
    csv: str | None = None,
    name: str = "",
) -> DrawingBoard:
    """An empty board of p devices and m micro-batches: draw a schedule of your own, then run it.

    ``chunks`` is v, the stages on each device. ``forward`` and ``backward`` are the columns of time that an F and a B
    of a stage take; a pair such as (1, 1) puts I and W in place of B. ``layout`` says where stages live: "loop" (stage
    s on device s mod p), "v" (down and back up, with ``chunks=2``) or "two-way" (two directions). ``limit`` is the most
    micro-batches in flight on a device. ``csv`` is a grid to begin with, as text
    that the board saved. Without ``csv`` the board shows what was last drawn here under this ``name`` (by default a
    name made from the rules). Raises ConfigurationError or ScheduleParseError for what is not possible.

    >>> draw_schedule(devices=2, microbatches=3)
    """
    rules = Rules(devices, microbatches, chunks, forward, backward, limit, layout)
    if rules.devices > 16 or rules.microbatches > 64 or len(rules.actions()) > 1024:
        raise ConfigurationError(
            f"a board of {len(rules.actions())} actions is too large to draw by hand; try p of at most 8 and m of at "
            "most 16"
        )
    if not isinstance(name, str):
        raise ConfigurationError(f"name must be text, got {name!r}; try name='mine'")
    stem = name or drawing_name(rules)
    if any(part in stem for part in "/\\") or stem.startswith("."):
        raise ConfigurationError(f"name must be a file's name without a folder, got {name!r}")
    board, said = kept_drawing(stem, rules) if csv is None else (Board.from_csv(csv, rules), "")
    return DrawingBoard(board, name=stem, said=said)


def puzzles(start: str = "first-steps") -> DrawingBoard:
    """Small puzzles, from the first forward to a V without a bubble. It opens at ``start``; a menu has the others.

    Names: first-steps, gpipe, memory-wall, 1f1b, tight-memory, b-is-2f, interleaved, fill-the-bubble, no-bubble,
    v-shape. Your drawings are kept beside the
    notebook, in ``drawings/``, and are there again next time. Raises ConfigurationError for an unknown name.

    >>> puzzles("1f1b")
    """
    now = puzzle(start)
    board, said = _kept(now)
    return DrawingBoard(board, now=now, name=f"puzzle-{now.name}", said=said)
