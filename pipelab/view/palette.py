"""Colours: six ops that differ in hue for colour-blind readers and in lightness in print, and calm greys.

After Okabe and Ito (Color Universal Design, 2008), moved apart in lightness: W, F, B, R, I, U from light to dark, at
least 10 steps of L* from one to the next. Forwards are blue, backwards are warm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from pipelab.schedules.action import Action
from pipelab.schedules.schedule import Schedule

__all__ = [
    "CAPTION",
    "IDLE",
    "IDLE_HATCH",
    "INK",
    "MEMORY",
    "MEMORY_LINE",
    "MESSAGES",
    "OPS",
    "PHASES",
    "chunk_shades",
    "look",
    "shade",
    "stage_looks",
    "text_colour",
]

OPS: Final[Mapping[str, str]] = MappingProxyType(
    {"F": "#74C3F0", "B": "#D4631A", "I": "#7B1F50", "W": "#F2DC4E", "R": "#165F9E", "U": "#1C1C1C"}
)
PHASES: Final[Mapping[str, str]] = MappingProxyType({"warm-up": "#E6E6E6", "steady": "#C6C6C6", "cool-down": "#A0A0A0"})
IDLE: Final = "#F7F7F7"
IDLE_HATCH: Final = "#D0D0D0"
MEMORY: Final = "#D3DCE6"
MEMORY_LINE: Final = "#56677A"
MESSAGES: Final[Mapping[str, str]] = MappingProxyType(
    {"activation": "#4E93BC", "gradient": "#C58A62", "sum of gradients": "#6F9A6A"}
)
INK: Final = "#1A1A1A"
CAPTION: Final = "#4D4D4D"

# How far the first chunk is moved to white, and the last to black: F stays lighter than B in print.
_RANGE: Final[Mapping[str, tuple[float, float]]] = MappingProxyType({"F": (0.36, 0.12), "B": (0.16, 0.26)})
_OTHERS: Final = (0.18, 0.18)
_STAGES: Final = "FBWIR"
"""Whose colours stages with names get, in turn."""


def shade(op: str, chunk: int = 0, chunks: int = 1) -> str:
    """The colour of ``op`` on the given chunk of a device that holds ``chunks``: later chunks are darker."""
    colour = OPS[op]
    if chunks < 2:
        return colour
    lighten, darken = _RANGE.get(op, _OTHERS)
    move = lighten - (lighten + darken) * min(chunk, chunks - 1) / (chunks - 1)
    towards, amount = (255, move) if move > 0 else (0, -move)
    return "#" + "".join(f"{round(part + (towards - part) * amount):02X}" for part in _channels(colour))


def chunk_shades(schedules: Sequence[Schedule]) -> list[tuple[str, list[str]]]:
    """What the shades of a device's stages mean, and that of each op: of all chunks, or of the first and the last.

    Where each stage lives on several devices, those of a device are no chunks of its share.
    """
    chunks = max((schedule.chunks for schedule in schedules if not schedule.words.stages), default=1)
    if chunks < 2:
        return []
    shown = range(chunks) if chunks <= 4 else (0, chunks - 1)
    names = {c: f"chunk {c}" for c in shown}
    if all(schedule.share >= 1 for schedule in schedules):
        names = {0: "lowest stage of a device", chunks - 1: "highest"}
    ops = [op for op in OPS if op != "U" and any(op in schedule.ops for schedule in schedules)]
    return [(name, [shade(op, c, chunks) for op in ops]) for c, name in names.items()]


def stage_looks(schedule: Schedule) -> list[tuple[str, str, str]]:
    """(letter, name, colour) of each stage that has a name of its own; none where ops are drawn."""
    words = schedule.words
    rounds = -(-len(words.stages) // len(_STAGES))
    colours = [shade(_STAGES[s % len(_STAGES)], s // len(_STAGES), rounds) for s in range(len(words.stages))]
    return list(zip(words.letters, words.stages, colours, strict=True))


def look(schedule: Schedule, action: Action, chunk: int) -> tuple[str, str]:
    """(letter, colour) of an action's block, on the given chunk of its device."""
    if schedule.words.stages:
        letter, _, colour = stage_looks(schedule)[action.stage]
        return letter, colour
    return action.op, shade(action.op, chunk, schedule.chunks)


def text_colour(background: str) -> str:
    """White or black, whichever is read better on ``background``: at least 4.5 : 1 (WCAG 2.1, 1.4.3) on any colour."""
    return max(("#FFFFFF", "#000000"), key=lambda colour: contrast(colour, background))


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.1, relative luminance)."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of "#RRGGBB", 0 to 1."""
    parts = [part / 255 for part in _channels(colour)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
