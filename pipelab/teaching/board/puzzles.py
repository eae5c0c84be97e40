"""A ladder of small puzzles: from the first forward to a V without a bubble, each a board with a goal.

A goal is data: all actions placed, within so many columns, under the rules' memory cap, which the board itself keeps.
One puzzle also asks for all forwards before all backwards, two for devices that never idle on the way. A solution that
differs from the hints counts too.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from itertools import pairwise

from pipelab.errors import ConfigurationError
from pipelab.teaching.board.board import Board
from pipelab.teaching.board.rules import Rules
from pipelab.teaching.board.score import bound, recognise, score
from pipelab.teaching.board.words import columns, counted

__all__ = ["PUZZLES", "Puzzle", "Verdict", "puzzle"]


@dataclass(frozen=True)
class Verdict:
    """Whether a puzzle is solved, and in a sentence or two what is missing, or what the solution shows."""

    done: bool
    sentence: str


@dataclass(frozen=True)
class Puzzle:
    """A board with a goal.

    ``text`` says what is asked, ``goal`` the goal in one sentence. ``target`` is the most columns that a solution may
    take. With ``forwards_first`` each device also runs all its forwards before its first backward; with ``gapless`` it
    never idles between its first action and its last. ``hints`` are a nudge, an approach and nearly the answer.
    ``learnt`` says what a solution shows.
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
    gapless: bool = False

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
        problem = self._out_of_order(board) or self._unfinished(board) or self._too_long(board) or self._gap(board)
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
                    f"Here all forwards come first, but on device {self.rules.home(first[1])} {first[1]} comes before "
                    f"{late}."
                )
        return None

    def _unfinished(self, board: Board) -> str | None:
        if board.complete:
            return None
        total = counted(len(self.rules.actions()), "action")
        if not board.starts:
            return f"The board is empty. There are {total} to place, and {board.missing[0]} needs no input."
        there = f"{len(board.starts)} of {total} placed."
        if board.dead_end is not None:
            return f"{there} It cannot be finished like this: {board.dead_end}."
        if board.makespan > self.target:
            there += f" The table already reaches t = {board.makespan}, and the goal is {columns(self.target)}."
        first = board.ready_anywhere()[0]
        return f"{there} {first.action} could be next, on device {first.device} at t = {first.time}."

    def _too_long(self, board: Board) -> str | None:
        if board.makespan <= self.target:
            return None
        over = board.makespan - self.target
        said = f"All actions are placed, in {columns(board.makespan)}: {over} more than the goal of {self.target}."
        tightest = Board.from_schedule(board.schedule(), self.rules).makespan
        if tightest <= self.target:
            return f"{said} The order is right. It takes {tightest} if every action starts as early as it can."
        if tightest < board.makespan:
            return f"{said} This order needs only {tightest}. For fewer columns the order has to change."
        return f"{said} In this order nothing can start earlier, so the order has to change."

    def _gap(self, board: Board) -> str | None:
        if not self.gapless:
            return None
        gaps = (
            (end, r) for r, row in enumerate(board.rows) for (_, end, _), (start, _, _) in pairwise(row) if start > end
        )
        first = min(gaps, default=None)
        if first is None:
            return None
        time, device = first
        return (
            f"All actions are placed, in {columns(board.makespan)}. But device {device} idles at t = {time}, and here "
            "no device may idle between its first action and its last."
        )


def _name(board: Board) -> str:
    title = recognise(board)
    return f": this is {title}" if title else ""


def _further(board: Board) -> str:
    """What is left to win: where a known schedule within the cap takes fewer columns."""
    shorter = [known for known in score(board).known if known.fits and known.makespan < board.makespan]
    if not shorter:
        return ""
    least = shorter[0].makespan
    none = ", and not in fewer" if least == bound(board.rules) else ""
    return f" It can be done in {least}{none}. Do you see how?"


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
            "While device 1 works on micro-batch 0, device 0 does not have to wait for it.",
            "Begin with both forwards on device 0. Device 1 follows one column later.",
            "Device 0 runs 0F0 and 0F1 at t = 0 and 1, and its two backwards at the very end. Device 1 has no gap.",
        ),
        learnt=(
            "An action can run when its input is there and its device is free. One micro-batch keeps only one device "
            "busy at a time; two keep both busy. The idle time while the pipeline fills and drains is the bubble."
        ),
    ),
    Puzzle(
        name="gpipe",
        title="GPipe",
        text=(
            "There are three devices, four micro-batches and one rule: each device runs all its forwards before its "
            "first backward. Watch how many micro-batches each device holds."
        ),
        rules=Rules(devices=3, microbatches=4),
        goal="Place all forwards, then all backwards, within 12 columns.",
        target=12,
        forwards_first=True,
        hints=(
            "Every stage has the same row of forwards, one column later than the stage before.",
            "The last device has no gap in the middle: its first backward directly follows its last forward.",
            "2F3 ends at t = 6, and 2B0 follows at once. When can device 1 run its first backward, and when device 0?",
        ),
        learnt=(
            "Filling and draining leave (p - 1)/(m + p - 1) = 2/6 of the cells idle. And at one moment each device "
            "holds all m micro-batches, 4 here. That is the price of running all forwards first."
        ),
    ),
    Puzzle(
        name="memory-wall",
        title="The memory wall",
        text=(
            "There are two devices and four micro-batches, and each device has room for only two of them. A "
            "micro-batch takes up room from the start of its forward to the end of its backward. All forwards first no "
            "longer fits."
        ),
        rules=Rules(devices=2, microbatches=4, limit=2),
        goal="Place all 16 actions within 12 columns, with at most 2 micro-batches in flight on each device.",
        target=12,
        hints=(
            "What frees room on a device?",
            "Once two micro-batches are under way, run a backward before the next forward.",
            "Device 1 runs 1B0 right after 1F0. At t = 4 device 0 has finished 0B0, so it may start 0F2.",
        ),
        learnt=(
            "A backward frees the room that its forward took. A device that runs backwards early needs room for only "
            "a few micro-batches, no matter how many the batch has."
        ),
    ),
    Puzzle(
        name="1f1b",
        title="One forward, one backward",
        text=(
            "There are three devices and four micro-batches. Device 0 has room for three of them, device 1 for two, "
            "device 2 for one. Still take no more time than GPipe."
        ),
        rules=Rules(devices=3, microbatches=4, limit=(3, 2, 1)),
        goal="Place all 24 actions within 12 columns, with at most 3, 2 and 1 micro-batches in flight.",
        target=12,
        hints=(
            "Begin with the last device. With room for one micro-batch only one order is possible there.",
            "Each device first runs as many forwards as there are devices behind it. Then forwards and backwards "
            "alternate.",
            "Device 0 runs two forwards first, device 1 runs one, and device 2 none. Then each runs pairs of a forward "
            "and a backward as soon as their inputs come. What is left at the end of each row?",
        ),
        learnt=(
            "The table is as short as GPipe's, and device r holds min(p - r, m) micro-batches instead of m. The "
            "warm-up of p - 1 - r forwards is just deep enough: a gradient is back when the device would have to wait."
        ),
    ),
    Puzzle(
        name="tight-memory",
        title="Memory paid in time",
        text=(
            "As before there are three devices and four micro-batches, but now no device has room for more than two. "
            "The first device would need three to stay busy."
        ),
        rules=Rules(devices=3, microbatches=4, limit=2),
        goal="Place all 24 actions within 14 columns, with at most 2 micro-batches in flight on each device.",
        target=14,
        hints=(
            "Device 0 cannot start a third micro-batch before the first is back. Bring the first back as early as you "
            "can.",
            "Two micro-batches are under way at a time. When the second comes back, device 1 has no new forward to "
            "run. Run its backward at once.",
            "On device 0 forwards and backwards alternate after the first two forwards. On device 2 they alternate "
            "from the start. Device 1 runs two forwards, then two backwards, and so on.",
        ),
        learnt=(
            "Less room than p - r micro-batches on device r costs time. Here it costs 2 columns: with whole backwards "
            "no table within this cap takes fewer than 14. 1F1B's pattern with a shorter warm-up takes 16. The best "
            "next action depends on what is ready."
        ),
    ),
    Puzzle(
        name="b-is-2f",
        title="A backward takes two",
        text=(
            "In real models a backward costs about as much as two forwards, so here B takes two columns. There are two "
            "devices and three micro-batches. Device 0 has room for two of them, device 1 for one."
        ),
        rules=Rules(devices=2, microbatches=3, backward=2, limit=(2, 1)),
        goal="Place all 12 actions within 12 columns, with at most 2 and 1 micro-batches in flight.",
        target=12,
        hints=(
            "The durations change, but the order does not have to.",
            "Keep the last device busy without a gap. It has 9 columns of work, 1 idle column before and 2 after it.",
            "On device 1 forwards and backwards alternate from the start. On device 0 they alternate after the first "
            "two forwards.",
        ),
        learnt=(
            "Filling costs (p - 1) tF and draining costs (p - 1) tB. With longer backwards the bubble has more "
            "columns, but its fraction is still (p - 1)/(m + p - 1) = 1/4. The idle columns move, and the order stays "
            "good."
        ),
    ),
    Puzzle(
        name="interleaved",
        title="Interleaved",
        text=(
            "There are four stages on two devices. Device 0 holds stages 0 and 2, device 1 holds stages 1 and 3. So "
            "each micro-batch passes every device twice. A stage is half of a device's share, and counts half in "
            "memory: 2 micro-batches fit on device 0, one and a half on device 1."
        ),
        rules=Rules(devices=2, microbatches=2, chunks=2, limit=(2, 1.5)),
        goal="Place all 16 actions within 10 columns, with at most 2 and 1.5 micro-batches in flight.",
        target=10,
        hints=(
            "Device 1 can start after one short stage. That is the gain. Keep it busy from t = 1 to t = 9.",
            "Both micro-batches go through stage 0, then both through stage 2, with no gap on device 0.",
            "Device 0 runs 0F0, 0F1, 2F0, 2F1 first. Device 1 begins with 1F0, 1F1, 3F0, 3B0. What can it run next "
            "without going over its limit?",
        ),
        learnt=(
            "With v stages on a device the pipeline fills in steps of 1/v. The bubble is 1/5 here. It would be 1/3 if "
            "each device held one stage of twice the length. The price is more messages, and more in flight on the "
            "last device."
        ),
    ),
    Puzzle(
        name="fill-the-bubble",
        title="Fill the bubble",
        text=(
            "A backward has two halves. I is the gradient of the input, and the device before waits for it. W is the "
            "gradient of the weights, and nobody waits for it. There are three devices, each with room for three of "
            "the four micro-batches. A micro-batch takes up room until its W ends. With whole backwards of two columns "
            "1F1B takes 18 columns."
        ),
        rules=Rules(devices=3, microbatches=4, backward=(1, 1), limit=3),
        goal="Place all 36 actions within 14 columns, with at most 3 micro-batches in flight on each device.",
        target=14,
        hints=(
            "Nobody waits for a W. So when is a device free to run one?",
            "Run F and I in 1F1B's order, and put off W. Each device keeps some of them for the end, when it would "
            "have to wait for gradients.",
            "Device r puts off W by r backwards. Device 0 runs 0W0 right behind 0I0, device 1 runs 1W0 behind 1I1, "
            "and device 2 runs 2W0 behind 2I2.",
        ),
        learnt=(
            "Each W waits until its device has nothing more urgent. The bubble falls from (p - 1)(tF + tI + tW) = 6 "
            "columns to (p - 1)(tF + tI - tW) = 2. The price: what waits for its W takes up room, so that every device "
            "holds as much as 1F1B's first one."
        ),
    ),
    Puzzle(
        name="no-bubble",
        title="No bubble at all",
        text=(
            "Even with W in the bubble, device 0 waits for its first gradient. Here no device may idle on the way. In "
            "return each of the two devices has room for three of the four micro-batches: 1F1B needs two."
        ),
        rules=Rules(devices=2, microbatches=4, backward=(1, 1), limit=3),
        goal=(
            "Place all 24 actions within 13 columns, with at most 3 micro-batches in flight on each device, and no "
            "idle column between a device's first action and its last."
        ),
        target=13,
        gapless=True,
        hints=(
            "Device 0 has 0I0 only at t = 3. What can it run until then?",
            "Begin with 2(p - r) - 1 forwards on device r: three on device 0, one on device 1. Device 0 is then full, "
            "so that it has to run a W before its next forward.",
            "Device 1 runs F and I in turn until three micro-batches wait there for their W. It runs 1W0 then, and its "
            "other W at the end.",
        ),
        learnt=(
            "With 2p - 1 micro-batches in flight in place of p, no device waits on the way. The table is not shorter: "
            "device 1 still begins one column later, and so ends one column later. Over many steps that costs nothing, "
            "if each device goes on to its next step by itself."
        ),
    ),
    Puzzle(
        name="v-shape",
        title="Down and back up",
        text=(
            "No bubble and 1F1B's memory, both at once. There are four stages on two devices, in a V: device 0 holds "
            "stages 0 and 3, device 1 holds stages 1 and 2. So the loss is on device 0. A stage is half of a device's "
            "share, and counts half in memory."
        ),
        rules=Rules(devices=2, microbatches=3, chunks=2, backward=(1, 1), limit=2, layout="v"),
        goal=(
            "Place all 36 actions within 19 columns, with at most 2 micro-batches in flight on each device, and no "
            "idle column between a device's first action and its last."
        ),
        target=19,
        gapless=True,
        hints=(
            "Where the V turns, nothing has to be sent. Which action can follow 3F0 at once?",
            "Device 0 runs three forwards of stage 0 until micro-batch 0 is back. Then it runs F, I and W of stage 3 "
            "in a row, which frees room.",
            "Device 0 begins with 0F0, 0F1, 0F2, 3F0, 3I0, 3W0, then 3F1, 3I1, 3W1. Device 1 begins with 1F0, 2F0, "
            "1F1, 2F1, 2I0, 2W0. From then on run what has its input, and keep W of device 1 for the end.",
        ),
        learnt=(
            "The first and the last stage share a device, so the first gradient is back there at once. All devices "
            "hold the same, p micro-batches, and none idles on the way. The price is messages: each micro-batch passes "
            "every device twice."
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
