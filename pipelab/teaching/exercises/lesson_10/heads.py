"""Which heads a rank has of an attention's weights, read from the numbers in its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, kind_of, numbers

__all__ = ["judge_heads"]

_KINDS = ("q", "k", "v")


@reserved
def judge_heads(words: str, data: Any, ranks: int, heads: int, size: int) -> Finding | None:
    """What is wrong with parts of w_qkv and w_out. Their numbers say where they were: 1, 2, 3, ... row by row."""
    wide, each = heads * size, heads // ranks
    data = as_lists(data)
    if not isinstance(data, list) or len(data) != ranks:
        raise Refused(f"{words}: cut_attention should return a list of {ranks} pairs, it returned {kind_of(data)}")
    lines = [tuple(float(1 + n * wide + k) for k in range(wide)) for n in range(4 * wide)]  # w_qkv, then w_out
    known_rows = {row: n for n, row in enumerate(lines[: 3 * wide])}
    known_columns = {column: n for n, column in enumerate(zip(*lines[3 * wide :], strict=True))}
    of_ranks: list[list[int]] = []
    for rank, pair in enumerate(data):
        if not isinstance(pair, list) or len(pair) != 2:
            raise Refused(f"{words}: rank {rank} should have two tensors, its parts of w_qkv and w_out")
        qkv = _matrix(pair[0], f"{words}: rank {rank}'s part of w_qkv", (3 * each * size, wide))
        out = _matrix(pair[1], f"{words}: rank {rank}'s part of w_out", (wide, each * size))
        rows = [_line(row, known_rows, f"{words}: a row of rank {rank}'s part of w_qkv") for row in qkv]
        columns = [
            _line(column, known_columns, f"{words}: a column of rank {rank}'s part of w_out")
            for column in zip(*out, strict=True)
        ]
        mine: list[list[int]] = []
        for number, kind in enumerate(_KINDS):
            block = rows[number * each * size : (number + 1) * each * size]
            strange = next((row for row in block if row // wide != number), None)
            if strange is not None:
                return Finding(
                    f"{words}: rank {rank} takes for its {kind} a row of {_KINDS[strange // wide]}. w_qkv has q of all "
                    "heads, then k of all heads, then v. Of each of the three a rank has its share, in this order."
                )
            mine.append(_whole(block, number * wide, size, f"{words}: rank {rank}'s rows of {kind}"))
        mine.append(_whole(columns, 0, size, f"{words}: rank {rank}'s columns of w_out"))
        for what, found in zip(("k", "v", "w_out"), mine[1:], strict=True):
            if found != mine[0]:
                return Finding(
                    f"{words}: rank {rank} has q of heads {mine[0]}, and of {what} it has heads {found}. A head needs "
                    "its own q, k, v and columns of w_out on one rank, in the same order."
                )
        of_ranks.append(mine[0])
    all_heads = [head for found in of_ranks for head in found]
    twice = next((head for head in all_heads if all_heads.count(head) > 1), None)
    return None if twice is None else Finding(f"{words}: head {twice} is held twice. Each head belongs to one rank.")


def _matrix(data: Any, what: str, shape: tuple[int, int]) -> list[list[float]]:
    if not isinstance(data, list) or not all(isinstance(row, list) for row in data):
        raise Refused(f"{what} should be a matrix, it is {kind_of(data)}")
    rows = [numbers(row, what) for row in data]
    found = [len(rows), max(map(len, rows), default=0)]
    if found != list(shape) or len({len(row) for row in rows}) > 1:
        raise Refused(
            f"{what} has shape {found} instead of {list(shape)}. Each rank computes an equal share of the heads. Its "
            "output has the numbers of its heads, and w_out takes these in."
        )
    return rows


def _line(line: Sequence[float], known: Mapping[tuple[float, ...], int], what: str) -> int:
    """Which row or column it was. Raises Refused if it is none as a whole."""
    if tuple(line) not in known:
        raise Refused(f"{what} is none of those that were given. Cut the weights, and change none.")
    return known[tuple(line)]


def _whole(lines: Sequence[int], before: int, size: int, what: str) -> list[int]:
    """The heads of rows or columns. Raises Refused if one is there in part."""
    found = []
    for k in range(0, len(lines), size):
        head, rest = divmod(lines[k] - before, size)
        if rest or list(lines[k : k + size]) != list(range(lines[k], lines[k] + size)):
            raise Refused(
                f"{what} cut a head into pieces. Scores are sums over all numbers of a head, so a head stays whole, "
                "with its numbers in order."
            )
        found.append(head)
    return found
