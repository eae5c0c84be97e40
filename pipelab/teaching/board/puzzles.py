"""A ladder of small puzzles: from the first forward to interleaving, each a board with a goal.

A goal is data: all actions placed, within so many columns, under the rules' memory cap, which the board itself keeps;
one puzzle also asks for all forwards before all backwards. Whoever meets it another way than the hints has met it too.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from pipelab.errors import ConfigurationError
from pipelab.teaching.board.board import Board
from pipelab.teaching.board.rules import Rules
from pipelab.teaching.board.score import bound, recognise, score
from pipelab.teaching.board.words import columns, counted

__all__ = ["PUZZLES", "Puzzle", "Verdict", "puzzle"]


@dataclass(frozen=True)
class Verdict:
    """Whether a puzzle is solved, and in a sentence or two what is missing, or what has been learnt."""

    done: bool
    sentence: str


@dataclass(frozen=True)
class Puzzle:
    """A board with a goal.

    ``text`` says what is asked, ``goal`` the goal in one sentence. ``target`` is the most columns that a solution may
    take; with ``forwards_first`` each device also runs all its forwards before its first backward. ``hints`` are a
    nudge, an approach and nearly the answer. ``learnt`` is what a solution has shown.
    """

    name: str
    title: str
    text: str
    rules: Rules
    goal: str
    target: int
    hints: tuple[str, str, str]
    learnt: str
    forwards_first: bool = False

    def empty(self) -> Board:
        """The board to begin with."""
        return Board.empty(self.rules)

    def verdict(self, board: Board) -> Verdict:
        """Whether ``board`` solves this puzzle, and what to look at if not.

        Raises ConfigurationError for a board with other rules.
        """
        if board.rules != self.rules:
            raise ConfigurationError(
                f"this board is not one of puzzle '{self.name}': it has {board.rules}; the puzzle has {self.rules}; "
                f"begin with puzzle('{self.name}').empty()"
            )
        broken = board.violations()
        if broken:
            return Verdict(False, f"This board breaks the rules: {broken[0].message}.")
        problem = self._out_of_order(board) or self._unfinished(board) or self._too_long(board)
        if problem is not None:
            return Verdict(False, problem)
        return Verdict(True, f"Solved, in {columns(board.makespan)}{_name(board)}. {self.learnt}{_further(board)}")

    def _out_of_order(self, board: Board) -> str | None:
        if not self.forwards_first:
            return None
        for stage in range(self.rules.stages):
            starts = [(board.starts[a], a) for a in board.starts if a.stage == stage]
            first = min((pair for pair in starts if pair[1].op == "B"), default=None)
            last = max((pair for pair in starts if pair[1].op == "F"), default=None)
            waiting = next((a for a in board.missing if (a.stage, a.op) == (stage, "F")), None)
            if first is None:
                continue
            late = waiting or (last[1] if last is not None and last > first else None)
            if late is not None:
                return (
                    f"All forwards come first here, and on device {self.rules.home(stage)} {first[1]} stands before "
                    f"{late} has run."
                )
        return None

    def _unfinished(self, board: Board) -> str | None:
        if board.complete:
            return None
        total = counted(len(self.rules.actions()), "action")
        if not board.starts:
            return f"The board is empty: {total} to place, and {board.missing[0]} waits for nothing."
        there = f"{len(board.starts)} of {total} placed."
        if board.dead_end is not None:
            return f"{there} It cannot be finished like this: {board.dead_end}."
        if board.makespan > self.target:
            there += f" They reach to t = {board.makespan} already, and the goal is {columns(self.target)}."
        first = board.ready_anywhere()[0]
        return f"{there} {first.action} could be next, on device {first.device} at t = {first.time}."

    def _too_long(self, board: Board) -> str | None:
        if board.makespan <= self.target:
            return None
        over = board.makespan - self.target
        said = f"All is placed, in {columns(board.makespan)}, {over} more than the {self.target} of the goal."
        tightest = Board.from_schedule(board.schedule(), self.rules).makespan
        if tightest <= self.target:
            return f"{said} The order is right: with nothing later than it must be it takes {tightest}."
        if tightest < board.makespan:
            return f"{said} In this order {tightest} would do; for fewer the order has to change."
        return f"{said} Nothing in this order could start earlier: the order has to change."


def _name(board: Board) -> str:
    title = recognise(board)
    return f": this is {title}" if title else ""


def _further(board: Board) -> str:
    """What is left to win: where a known schedule within the cap takes fewer columns."""
    shorter = [known for known in score(board).known if known.fits and known.makespan < board.makespan]
    if not shorter:
        return ""
    least = shorter[0].makespan
    none = ", and fewer are impossible" if least == bound(board.rules) else ""
    return f" It can be done in {least}{none}: do you see how?"


PUZZLES: tuple[Puzzle, ...] = (
    Puzzle(
        name="first-steps",
        title="First steps",
        text=(
            "A model is cut into two stages, one on each device. Send two micro-batches forward through both stages "
            "and backward again. Both devices can work at once, on different micro-batches."
        ),
        rules=Rules(devices=2, microbatches=2),
        goal="Place all 8 actions within 6 columns.",
        target=6,
        hints=(
            "While device 1 works on micro-batch 0, device 0 need not wait for it to come back.",
            "Begin with both forwards on device 0; device 1 follows one column behind.",
            "Device 0: 0F0 and 0F1 at t = 0 and 1, 0B0 and 0B1 at the very end, t = 4 and 5. Device 1 has no gap.",
        ),
        learnt=(
            "An action runs when its input is there and its device is free. Two micro-batches keep both devices busy "
            "where one would keep only one; what stays idle, while the pipeline fills and drains, is the bubble."
        ),
    ),
    Puzzle(
        name="gpipe",
        title="GPipe",
        text=(
            "Three devices, four micro-batches, and one simple rule: each device runs all its forwards before its "
            "first backward. Watch how many micro-batches each device holds."
        ),
        rules=Rules(devices=3, microbatches=4),
        goal="All forwards, then all backwards, within 12 columns.",
        target=12,
        forwards_first=True,
        hints=(
            "Stage by stage the same row of forwards, each one column later than the stage before.",
            "The last device turns round without a gap: its first backward follows its last forward.",
            "2F3 ends at t = 6. Then 2B0 .. 2B3 follow at once, and each lower device runs them one column later.",
        ),
        learnt=(
            "Filling and draining leave (p - 1)/(m + p - 1) = 2/6 of the cells idle. And each device comes to hold all "
            "m micro-batches at once, 4 here: that is the price of running all forwards first."
        ),
    ),
    Puzzle(
        name="memory-wall",
        title="The memory wall",
        text=(
            "Two devices, four micro-batches, and room for only two of them on each device. A micro-batch takes its "
            "room from the start of its forward to the end of its backward. All forwards first does not fit any more."
        ),
        rules=Rules(devices=2, microbatches=4, limit=2),
        goal="Place all 16 actions within 12 columns, with at most 2 micro-batches in flight on each device.",
        target=12,
        hints=(
            "What makes room again on a device?",
            "Once two micro-batches are under way, let a backward run before the next forward.",
            "Device 1 runs 1B0 right after 1F0. At t = 4 device 0 has 0B0 behind it, and may start 0F2.",
        ),
        learnt=(
            "A backward gives back the room that its forward took. Whoever runs backwards early needs room for a few "
            "micro-batches only, however many there are in the batch."
        ),
    ),
    Puzzle(
        name="1f1b",
        title="One forward, one backward",
        text=(
            "Three devices, four micro-batches; device 0 has room for three of them, device 1 for two, device 2 for "
            "one. Lose no time against GPipe all the same."
        ),
        rules=Rules(devices=3, microbatches=4, limit=(3, 2, 1)),
        goal="Place all 24 actions within 12 columns, with at most 3, 2 and 1 micro-batches in flight.",
        target=12,
        hints=(
            "Begin with the last device: with room for one micro-batch there is only one order for it.",
            "Each device warms up with as many forwards as there are devices behind it, then takes turns.",
            "Device 0: two forwards, then pairs of a forward and a backward as their inputs come, then two backwards. "
            "Device 1: one forward, then pairs, then one backward. Device 2: pairs only.",
        ),
        learnt=(
            "As short as GPipe, with min(p - r, m) micro-batches on device r in place of m. The warm-up of p - 1 - r "
            "forwards is just deep enough that a gradient is back when the device would have to wait."
        ),
    ),
    Puzzle(
        name="tight-memory",
        title="Memory paid in time",
        text=(
            "As before, three devices and four micro-batches, but now no device has room for more than two. The first "
            "device would need three to stay busy."
        ),
        rules=Rules(devices=3, microbatches=4, limit=2),
        goal="Place all 24 actions within 14 columns, with at most 2 micro-batches in flight on each device.",
        target=14,
        hints=(
            "Device 0 cannot start a third micro-batch before the first is back. Bring it back as early as you can.",
            "Two micro-batches are under way at a time. Device 1 has nothing new to run forward when the second comes "
            "back: let it go backward at once.",
            "Device 0: 0F0, 0F1, 0B0, 0F2, 0B1, 0F3, 0B2, 0B3. Device 1: 1F0, 1F1, 1B0, 1B1, 1F2, 1F3, 1B2, 1B3. "
            "Device 2 takes turns.",
        ),
        learnt=(
            "Less room than p - r micro-batches on device r costs time: 2 columns here, and no table within this cap "
            "takes fewer than 14. 1F1B's pattern with a shorter warm-up takes 16: what to run next depends on what is "
            "there."
        ),
    ),
    Puzzle(
        name="b-is-2f",
        title="A backward takes two",
        text=(
            "In real models a backward costs about two forwards, so here B takes two columns. Two devices, three "
            "micro-batches, room for two of them on device 0 and for one on device 1."
        ),
        rules=Rules(devices=2, microbatches=3, backward=2, limit=(2, 1)),
        goal="Place all 12 actions within 12 columns, with at most 2 and 1 micro-batches in flight.",
        target=12,
        hints=(
            "The order need not change because the durations do.",
            "Keep the last device busy without a gap: it has 9 columns of work, and 1 to wait before it, 2 after.",
            "Device 1 takes turns: 1F0, 1B0, 1F1, 1B1, 1F2, 1B2. Device 0 has two forwards ahead: 0F0, 0F1, 0B0, 0F2, "
            "0B1, 0B2.",
        ),
        learnt=(
            "Filling costs (p - 1) F and draining (p - 1) B, so with longer backwards the bubble grows in columns; its "
            "fraction stays (p - 1)/(m + p - 1) = 1/4. Idle columns move, the order stays good."
        ),
    ),
    Puzzle(
        name="interleaved",
        title="Interleaved",
        text=(
            "Four stages on two devices: device 0 holds stages 0 and 2, device 1 stages 1 and 3, so each micro-batch "
            "passes every device twice. A stage is half a device's share, and counts half in memory: 2 micro-batches "
            "fit on device 0, one and a half on device 1."
        ),
        rules=Rules(devices=2, microbatches=2, chunks=2, limit=(2, 1.5)),
        goal="Place all 16 actions within 10 columns, with at most 2 and 1.5 micro-batches in flight.",
        target=10,
        hints=(
            "Device 1 can start after one short stage: that is what is won. Keep it busy from t = 1 to t = 9.",
            "Both micro-batches go through stage 0, then both through stage 2, with no gap on device 0.",
            "Device 0 runs 0F0, 0F1, 2F0, 2F1. Device 1 runs 1F0, 1F1, 3F0, 3B0, and then 3F1, 3B1, 1B0, 1B1.",
        ),
        learnt=(
            "With v stages on a device the pipeline fills in steps of 1/v: the bubble is 1/5 here, and would be 1/3 if "
            "each device held one stage of twice the length. The price: more messages, and more in flight on the last "
            "device."
        ),
    ),
)


def puzzle(name: str) -> Puzzle:
    """The puzzle of that name. Raises ConfigurationError, which offers the nearest."""
    names = {one.name: one for one in PUZZLES}
    found = names.get(name.lower()) if isinstance(name, str) else None
    if found is None:
        close = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.3)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ConfigurationError(f"there is no puzzle '{name}'; there are {', '.join(names)}{hint}")
    return found
