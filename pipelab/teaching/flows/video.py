"""A small video coder: motion estimation, block transform, quantisation, and the decoder that gives back references.

::

    frame ----> motion --> transform --> quantise --> packet (bytes)
                  ^                         |
                  +------ decode <----------+    a decoded frame is the reference of others

An I frame is coded by itself, a P frame from one decoded frame before it, a B frame from one before and one behind it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Coding",
    "Decoded",
    "Frame",
    "Packet",
    "coding_order",
    "decode",
    "decode_video",
    "estimate_motion",
    "make_scene",
    "psnr",
    "quantise",
    "transform",
]

BLOCK, CELL = 16, 8
"""Pixels along the side of a block that moves, and of one that is transformed."""
STEPS, TRIES = (2.0, 128.0), 6
"""The finest and the coarsest step of the rounding, and how often the range between them is halved."""
BUDGET = {"I": 16_000, "P": 10_000, "B": 4_000}
"""Bytes of a frame's rounded waves, by kind."""

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float32]
Shifts = npt.NDArray[np.int8]

_WAVES = np.cos((2 * np.arange(CELL) + 1) * np.arange(CELL)[:, None] * np.pi / (2 * CELL))
_DCT = (_WAVES * np.where(np.arange(CELL)[:, None], np.sqrt(2 / CELL), np.sqrt(1 / CELL))).astype(np.float32)


# ---- a scene, and the order in which its frames are coded ------------------------------------------------------------


def make_scene(frames: int, height: int = 288, width: int = 352, seed: int = 0) -> Pixels:
    """Brightness of ``frames`` pictures: a camera pans over a textured ground, a ball crosses it, and there is noise.

    The shape is (frames, height, width). Height and width are multiples of 16.
    """
    random = np.random.default_rng(seed)
    ground, ball = (_texture(random, height + 4 * frames, width + 4 * frames) for _ in range(2))
    rows, columns = np.mgrid[:height, :width]
    shots = []
    for t in range(frames):
        shot = _window(ground, 0.5 * t, 1.2 * t, height, width)
        inside = np.hypot(rows - 0.4 * height - 0.8 * t, columns - 0.7 * width + 2 * t) < height / 5
        shot = np.where(inside, 255 - _window(ball, 0.8 * (frames - t), 2 * t, height, width), shot)
        shots.append(shot + random.normal(0, 2, shot.shape))
    return np.clip(np.round(shots), 0, 255).astype(np.uint8)


def _texture(random: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float64]:
    """Noise of several sizes, the coarse ones strongest: from 20 to 235."""
    total = np.zeros((height, width))
    for size in (64, 32, 16, 8, 4):
        knots = random.normal(size=(height // size + 2, width // size + 2))
        along = np.stack([np.interp(np.arange(width) / size, np.arange(len(row)), row) for row in knots])
        total += size * np.stack([np.interp(np.arange(height) / size, np.arange(len(c)), c) for c in along.T], axis=1)
    low, high = total.min(), total.max()
    return 20 + 215 * (total - low) / (high - low)


def _window(
    picture: npt.NDArray[np.float64], top: float, left: float, height: int, width: int
) -> npt.NDArray[np.float64]:
    """A part of ``picture`` that may begin between two pixels."""
    y, x = int(top), int(left)
    part = picture[y : y + height + 1, x : x + width + 1]
    part = part[:-1] * (1 - (top - y)) + part[1:] * (top - y)
    return part[:, :-1] * (1 - (left - x)) + part[:, 1:] * (left - x)


@dataclass(frozen=True)
class Frame:
    """One picture in the plan: its place in the display, its kind, and the frames it is predicted from."""

    shown: int
    kind: str
    references: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}{self.shown}"


def coding_order(frames: int, between: int, ahead: int = 0) -> list[Frame]:
    """The frames in the order of coding, with ``between`` B frames between two references.

    The B frames of a gap come as soon as both of its references are coded, or ``ahead`` references later.

    >>> print(*coding_order(5, between=1)), print(*coding_order(5, between=1, ahead=1))
    I0 P2 B1 P4 B3
    I0 P2 P4 B1 B3
    """
    anchors = [*range(0, frames - 1, between + 1), frames - 1]
    order: list[Frame] = []
    for j in range(len(anchors) + ahead):
        if j < len(anchors):
            order.append(Frame(anchors[j], "P", (anchors[j - 1],)) if j else Frame(0, "I"))
        if 0 < j - ahead < len(anchors):
            pair = anchors[j - ahead - 1], anchors[j - ahead]
            order += [Frame(d, "B", pair) for d in range(pair[0] + 1, pair[1])]
    return order


# ---- the stages ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packet:
    """What is stored of a frame: where its blocks come from, and the compressed numbers of its difference."""

    frame: Frame
    step: float = 0.0
    shifts: tuple[Shifts, ...] = ()
    """For each reference (dy, dx) of each block."""
    choice: Shifts | None = None
    """For each block of a B frame: 0 and 1 are its references, 2 is the mean of both."""
    levels: bytes = b""

    @property
    def size(self) -> int:
        """Bytes."""
        motion = b"".join(part.tobytes() for part in (*self.shifts, self.choice) if part is not None)
        return len(self.levels) + len(zlib.compress(motion))


@dataclass(frozen=True)
class Coding:
    """A frame on its way through the stages: its packet as far as it is, what was predicted, and the difference."""

    packet: Packet
    predicted: Pixels
    numbers: Numbers


class Decoded(NamedTuple):
    """What is stored of a frame, and the frame that a decoder makes of it."""

    packet: Packet
    pixels: Pixels


def estimate_motion(frame: Frame, pixels: Pixels, *references: Pixels, reach: int = 6) -> Coding:
    """Predict ``pixels`` block by block from the decoded ``references``, and keep the difference."""
    shifts = tuple(_search(pixels, reference, reach) for reference in references)
    ways = _ways(shifts, references, pixels.shape)
    choice = None
    if len(ways) > 1:
        errors = np.stack([_blocks(np.abs(way.astype(np.int16) - pixels)) for way in ways])
        choice = errors.argmin(axis=0).astype(np.int8)
    predicted = _chosen(ways, choice)
    return Coding(Packet(frame, 0, shifts, choice), predicted, pixels.astype(np.float32) - predicted)


def transform(coding: Coding) -> Coding:
    """The difference as waves: a discrete cosine transform (DCT) of each cell, by two matrix products."""
    return replace(coding, numbers=_cells(coding.numbers, _DCT))


def quantise(coding: Coding, budget: Mapping[str, int] = BUDGET) -> Coding:
    """Round each wave to a multiple of a step, and compress: with the finest step that fits into the frame's budget."""
    fine, coarse = STEPS
    levels = _rounded(coding.numbers, coarse)
    for _ in range(TRIES):
        step = float(np.sqrt(fine * coarse))
        tried = _rounded(coding.numbers, step)
        if len(tried) <= budget[coding.packet.frame.kind]:
            coarse, levels = step, tried
        else:
            fine = step
    return replace(coding, packet=replace(coding.packet, step=coarse, levels=levels))


def decode(coding: Coding) -> Decoded:
    """The frame as every decoder will have it."""
    return Decoded(coding.packet, _rebuild(coding.packet, coding.predicted))


def decode_video(packets: Sequence[Packet], height: int, width: int) -> Mapping[int, Pixels]:
    """A decoder that has packets only, in the order of coding: place in the display -> frame."""
    done: dict[int, Pixels] = {}
    for packet in packets:
        ways = _ways(packet.shifts, [done[shown] for shown in packet.frame.references], (height, width))
        done[packet.frame.shown] = _rebuild(packet, _chosen(ways, packet.choice))
    return done


def psnr(pixels: Pixels, decoded: Pixels) -> float:
    """Peak signal to noise, in dB: 10 log10(255² / mean squared error)."""
    return float(10 * np.log10(255**2 / np.mean((pixels.astype(np.float64) - decoded) ** 2)))


# ---- what they are made of -------------------------------------------------------------------------------------------


def _search(pixels: Pixels, reference: Pixels, reach: int) -> Shifts:
    """For each block the shift with the least sum of absolute differences, of all up to ``reach``. Short ones first."""
    height, width = pixels.shape
    wide, own = np.pad(reference, reach, mode="edge").astype(np.int16), pixels.astype(np.int16)
    shifts = np.zeros((height // BLOCK, width // BLOCK, 2), np.int8)
    least = np.full(shifts.shape[:2], np.iinfo(np.int32).max)
    steps = range(-reach, reach + 1)
    for dy, dx in sorted(((dy, dx) for dy in steps for dx in steps), key=lambda shift: np.hypot(*shift)):
        moved = wide[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
        error = _blocks(np.abs(moved - own))
        better = error < least
        least[better], shifts[better] = error[better], (dy, dx)
    return shifts


def _blocks(errors: npt.NDArray[np.int16]) -> npt.NDArray[np.int32]:
    """The sum over each block."""
    height, width = errors.shape
    rows = errors.reshape(height // BLOCK, BLOCK, width).sum(axis=1, dtype=np.int32)
    return rows.reshape(height // BLOCK, width // BLOCK, BLOCK).sum(axis=2, dtype=np.int32)


def _ways(shifts: Sequence[Shifts], references: Sequence[Pixels], shape: tuple[int, ...]) -> list[Pixels]:
    """The predictions to choose from: each reference moved, and the mean of two. Without references a grey picture."""
    ways = [_moved(reference, shift) for reference, shift in zip(references, shifts, strict=True)]
    if len(ways) == 2:
        ways.append(((ways[0].astype(np.uint16) + ways[1] + 1) // 2).astype(np.uint8))
    return ways or [np.full(shape, 128, np.uint8)]


def _moved(reference: Pixels, shifts: Shifts) -> Pixels:
    """Each block taken from its shifted place; beyond the edge the edge goes on."""
    height, width = reference.shape
    each = shifts.astype(np.intp).repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
    rows, columns = np.arange(height)[:, None] + each[..., 0], np.arange(width) + each[..., 1]
    moved: Pixels = reference[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return moved


def _chosen(ways: Sequence[Pixels], choice: Shifts | None) -> Pixels:
    """For each block the way that was chosen."""
    if choice is None:
        return ways[0]
    each = choice.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
    chosen: Pixels = np.choose(each, ways)
    return chosen


def _rounded(waves: Numbers, step: float) -> bytes:
    return zlib.compress(np.round(waves / step).astype(np.int16).tobytes())


def _rebuild(packet: Packet, predicted: Pixels) -> Pixels:
    levels = np.frombuffer(zlib.decompress(packet.levels), np.int16).reshape(predicted.shape)
    difference = _cells(levels * np.float32(packet.step), _DCT.T)
    return np.clip(np.round(predicted + difference), 0, 255).astype(np.uint8)


def _cells(numbers: Numbers, matrix: Numbers) -> Numbers:
    """``matrix @ cell @ matrix.T`` for each cell of 8 x 8."""
    height, width = numbers.shape
    down = matrix @ numbers.reshape(height // CELL, CELL, width)
    across = down.reshape(-1, CELL) @ matrix.T
    return across.reshape(height, width).astype(np.float32, copy=False)
