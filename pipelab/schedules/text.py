"""Schedules as text: CSV for files and other programs, a drawn grid for people. Both are read back.

This file knows rows of slots and nothing of schedules: ``rows[r]`` is device r's row, None is an idle cell.
"""

from __future__ import annotations

import csv
import io
import operator
import reprlib
from collections.abc import Iterable, Sequence

from pipelab.errors import ConfigurationError, ScheduleParseError, shown
from pipelab.schedules.action import Action, Slot, actions_of, format_slot, parse_slot

__all__ = ["Rows", "draw_grid", "read_csv", "read_grid", "read_rows", "write_csv"]

Rows = tuple[tuple[Slot | None, ...], ...]
IDLE = "."


def _cell(slot: Slot | None, idle: str) -> str:
    return idle if slot is None else format_slot(slot)


def _require_text(text: object) -> None:
    if not isinstance(text, str):
        hint = "text.decode()" if isinstance(text, bytes) else "Path(name).read_text()"
        raise ConfigurationError(f"a table is read from text, got {type(text).__name__}; try {hint}")


def _parse_cell(token: str, row: int, column: int) -> Slot | None:
    text = token.strip()
    if text in ("", IDLE, "-"):
        return None
    try:
        return parse_slot(text)
    except ValueError as problem:
        raise ScheduleParseError(str(problem), row, column, text) from None


def _refuse_runaway_numbers(rows: Sequence[Sequence[Slot | None]]) -> None:
    """A slip of the hand such as 0F9999999 would make ten million missing micro-batches of a small table.

    So would 400F0 and 0F400 in one of two cells, each of which is no more than odd.
    """
    cells = sum(map(len, rows))
    limit, most = 1000 + cells, 20 * (1000 + cells)
    stages = microbatches = 1
    for row, slots in enumerate(rows):
        for column, slot in enumerate(slots):
            for action in actions_of(slot) if slot is not None else ():
                stages, microbatches = max(stages, action.stage + 1), max(microbatches, action.microbatch + 1)
                if max(stages, microbatches) > limit + 1 or stages * microbatches > most:
                    token = str(action)
                    raise ScheduleParseError(
                        f"'{token}' counts beyond what a table of {cells} cells can hold; stages and "
                        "micro-batches count from 0 without gaps",
                        row,
                        column,
                        token,
                    )


def write_csv(rows: Sequence[Sequence[Slot | None]]) -> str:
    """One line per device, in order; idle cells are empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        writer.writerow([_cell(slot, "") for slot in row] or [""])  # an empty line would not count as a device
    return out.getvalue()


def read_csv(text: str) -> Rows:
    """Read what :func:`write_csv` wrote, or a person did. Blank lines around the table are ignored.

    Raises ScheduleParseError naming row (device), column and token, ConfigurationError for what is not text.
    """
    _require_text(text)
    if text.strip().endswith(".csv") and "\n" not in text.strip():
        raise ScheduleParseError(
            f"'{shown(text)}' is a file's name, and the text is wanted: Path('{shown(text)}').read_text()", 0, 0, text
        )
    lines = text.lstrip("\ufeff").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    while lines and not lines[0].strip():
        lines.pop(0)
    if not lines:
        raise ScheduleParseError("the table is empty; write one row of actions per device, such as 0F0,0B0", 0, 0, "")
    reader = csv.reader(lines)
    try:
        rows = tuple(
            tuple(_parse_cell(token, row, column) for column, token in enumerate(cells))
            for row, cells in enumerate(reader)
        )
    except csv.Error as problem:
        raise ScheduleParseError(f"this is no CSV text ({problem})", reader.line_num - 1, 0, "") from None
    _refuse_runaway_numbers(rows)
    return rows


def read_rows(rows: object) -> Rows:
    """Rows as a program makes them: one per device, each cell a slot, its text, or None for idle time.

    Raises ScheduleParseError naming row (device) and column, ConfigurationError where these are no rows at all.
    """
    shape = "a table is one row of actions per device, such as [['0F0', '0B0'], ['1F0', '1B0']]"
    if isinstance(rows, str | bytes) or not isinstance(rows, Iterable):
        raise ConfigurationError(f"{shape}; got {type(rows).__name__} {str(rows)[:60]!r}")
    read: list[tuple[Slot | None, ...]] = []
    for device, row in enumerate(rows):
        if isinstance(row, str | bytes | Action) or not isinstance(row, Iterable):
            raise ConfigurationError(f"row {device} is {type(row).__name__} {str(row)[:60]!r}, not a row; {shape}")
        read.append(tuple(_slot(cell, device, column) for column, cell in enumerate(row)))
    if not read:
        raise ConfigurationError(f"the table has no rows; {shape}")
    _refuse_runaway_numbers(read)
    return tuple(read)


def _slot(cell: object, row: int, column: int) -> Slot | None:
    if cell is None:
        return None
    if isinstance(cell, Action):
        return _whole(cell, row, column)
    if isinstance(cell, str):
        return _parse_cell(cell, row, column)
    if isinstance(cell, tuple) and cell and all(isinstance(part, Action) for part in cell):
        parts = tuple(_whole(part, row, column) for part in cell)
        return parts[0] if len(parts) == 1 else parts
    example = "an action is text such as '3F0': stage, op, micro-batch"
    raise ScheduleParseError(f"{type(cell).__name__} {str(cell)[:60]!r}; {example}", row, column, str(cell)[:60])


def _whole(action: Action, row: int, column: int) -> Action:
    """The action, if its numbers are whole and its op is text; a program may have put anything there."""
    try:
        stage, microbatch = operator.index(action.stage), operator.index(action.microbatch)
        if max(abs(stage), abs(microbatch)) < 2**63 and isinstance(action.op, str):
            return Action(stage, action.op, microbatch)
    except TypeError:
        pass
    parts = (action.stage, action.op, action.microbatch)
    huge = [isinstance(part, int) and abs(part) >= 2**63 for part in parts]
    told = f"Action({', '.join('...' if big else reprlib.repr(part) for part, big in zip(parts, huge, strict=True))})"
    raise ScheduleParseError(
        f"{told} is not an action; stage and micro-batch are whole numbers, the op is a letter: Action(3, 'F', 0)",
        row,
        column,
        told,
    )


def draw_grid(rows: Sequence[Sequence[Slot | None]]) -> str:
    """Draw rows as a grid: a header that counts time slots, one row per device, '.' where it idles."""
    columns = max((len(row) for row in rows), default=0)
    cells = [[_cell(slot, IDLE) for slot in row] + [IDLE] * (columns - len(row)) for row in rows]
    widths = [max(len(str(t)), *(len(row[t]) for row in cells)) for t in range(columns)]
    label = len(f"device {len(rows) - 1}")
    lines = [f"{'time':<{label}} | " + " ".join(f"{t:>{width}}" for t, width in enumerate(widths))]
    for device, row in enumerate(cells):
        body = " ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        lines.append(f"{f'device {device}':<{label}} | {body}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def read_grid(text: str) -> Rows:
    """Read what :func:`draw_grid` drew: the part behind '|' of each row, cells parted by blanks.

    Raises ScheduleParseError naming row (device), column (time slot) and token, ConfigurationError for what is no text.
    """
    _require_text(text)
    rows: list[tuple[Slot | None, ...]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        head, bar, body = line.partition("|")
        if not bar:
            raise ScheduleParseError(
                f"'{shown(line.strip())}' has no '|' behind the device; a row reads 'device 0 | 0F0 0B0'",
                len(rows),
                0,
                line,
            )
        if head.strip() == "time":
            continue
        if head.split() != ["device", str(len(rows))]:
            raise ScheduleParseError(
                f"'{shown(head.strip())}' stands where 'device {len(rows)}' should", len(rows), 0, head.strip()
            )
        rows.append(tuple(_parse_cell(token, len(rows), column) for column, token in enumerate(body.split())))
    _refuse_runaway_numbers(rows)
    if not rows:
        raise ScheduleParseError("the grid has no rows; a row reads 'device 0 | 0F0 0B0'", 0, 0, "")
    return tuple(rows)
