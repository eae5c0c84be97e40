"""Undo and redo: the boards before and after this one."""

from __future__ import annotations

from dataclasses import dataclass

from pipelab.teaching.board.board import Board

__all__ = ["History"]


@dataclass(frozen=True)
class History:
    """``board`` as it is, what it was before (``past``, oldest first) and what was undone (``future``, next first).

    A History never changes: each step makes a new one. A step that is not there (undo at the beginning, redo at the
    end) leaves it as it is, like a button pressed in vain.
    """

    board: Board
    past: tuple[Board, ...] = ()
    future: tuple[Board, ...] = ()

    @property
    def can_undo(self) -> bool:
        """Whether there is a board before this one."""
        return bool(self.past)

    @property
    def can_redo(self) -> bool:
        """Whether something was undone and nothing done since."""
        return bool(self.future)

    def do(self, board: Board) -> History:
        """Go on to ``board``; what had been undone is forgotten. The same board again is no step."""
        return self if board == self.board else History(board, (*self.past, self.board))

    def undo(self) -> History:
        """Back to the board before."""
        return History(self.past[-1], self.past[:-1], (self.board, *self.future)) if self.past else self

    def redo(self) -> History:
        """Forward to what was undone last."""
        return History(self.future[0], (*self.past, self.board), self.future[1:]) if self.future else self
