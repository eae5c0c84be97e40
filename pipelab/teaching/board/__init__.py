"""Draw your own schedule, and break one: the core of both, without a screen. A widget shows what is said here."""

from pipelab.teaching.board.board import Board, Choice, IllegalMove, Opening, Removal
from pipelab.teaching.board.breaking import Consequence, Stuck, drop, early_spots, follow, start_early, swap
from pipelab.teaching.board.history import History
from pipelab.teaching.board.puzzles import PUZZLES, Puzzle, Verdict, puzzle
from pipelab.teaching.board.reasons import BOARD_CODES
from pipelab.teaching.board.rules import Rules
from pipelab.teaching.board.score import Known, Score, bound, recognise, score

__all__ = [
    "BOARD_CODES",
    "PUZZLES",
    "Board",
    "Choice",
    "Consequence",
    "History",
    "IllegalMove",
    "Known",
    "Opening",
    "Puzzle",
    "Removal",
    "Rules",
    "Score",
    "Stuck",
    "Verdict",
    "bound",
    "drop",
    "early_spots",
    "follow",
    "puzzle",
    "recognise",
    "score",
    "start_early",
    "swap",
]
