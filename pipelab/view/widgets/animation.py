"""A timeline that is played, for pages without widgets: an animated GIF made of its scene and its still picture.

::

    t = 5.3 units                       the time that the picture has got to
    [device 0] - o - [device 1] - ...   what each device runs and holds, and the messages on their way
    the still picture                   pale where its time has not come yet

The first and the last frame are the finished picture: it stands where nothing moves.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from pipelab.errors import ConfigurationError
from pipelab.timeline import Timeline
from pipelab.view import palette
from pipelab.view.picture import FORMATS, Picture, bundled
from pipelab.view.timeline import plot_timeline
from pipelab.view.widgets.scene import scene

__all__ = ["Animation", "plot_animation"]

_FRAME, _REST = 100, 2500  # milliseconds: a frame, and the finished picture
_MOST, _LEAST, _EACH = 90, 40, 5  # frames, and frames from one moment of the run to the next
_ROUNDS = 3  # then it rests: what moves for ever beside a text cannot be read past
_VEIL = 0.8  # of white over what is still to come
_FLASH = 3  # frames in which a message is seen that takes no time
_COLOURS = 48
_HIGH, _LANE, _BOX = 124, 21, 54  # pixels: the strip of devices, the room for messages, a box
_FINE = 2  # pixels drawn for each that is shown, so that edges are smooth


class Animation:
    """``picture`` and the timelines in it, as ``scenes``, on one clock. ``names`` stand beside several of them.

    Shown in a notebook it moves, a few times over; readers who asked their system for less motion see the finished
    picture. ``alt`` says in words what it shows.
    """

    def __init__(self, picture: Picture, scenes: Sequence[dict[str, Any]], names: Sequence[str] = ()) -> None:
        self.picture, self.scenes, self.names = picture, tuple(scenes), tuple(names)
        self.alt = f"Animation, from t = 0 to the end of the step. {picture.alt}"

    def save(self, path: str | Path) -> Path:
        """Save it as GIF; with another suffix its still picture. Returns the path.

        Raises ConfigurationError for a suffix that there is not.
        """
        path = Path(path)
        if path.suffix.lower() != ".gif":
            if path.suffix.lower().removeprefix(".") in FORMATS:
                return self.picture.save(path)
            raise ConfigurationError(f"animations are saved as .gif; '{path.name}' is not; try '{path.stem}.gif'")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.gif)
        return path

    @property
    def times(self) -> tuple[float, ...]:
        """The time that each frame shows: the end, then from 0 to the end."""
        end = max(one["extent"] for one in self.scenes)
        moments = max(len(one["blocks"]["moments"]) for one in self.scenes)
        count = min(max(_EACH * (moments - 1), _LEAST), _MOST)
        return (end, *(end * k / count for k in range(count + 1)))

    @cached_property
    def gif(self) -> bytes:
        """The file."""
        frames = list(self._frames())
        rests = [_REST if k in (0, len(frames) - 1) else _FRAME for k in range(len(frames))]
        out = io.BytesIO()
        frames[0].save(
            *(out, "gif"),
            save_all=True,
            append_images=frames[1:],
            duration=rests,
            loop=_ROUNDS - 1,
            palette=bytes(frames[0].getpalette() or ()),  # one for all frames
            optimize=True,  # what stays as it was is left out
        )
        return out.getvalue()

    def _frames(self) -> Iterator[Image.Image]:
        still = self.picture.pixels()
        assert self.picture.rows is not None, "a picture of timelines has rows"
        edges = zip(self.picture.rows, (still.width, still.height) * 2, strict=True)
        left, top, right, bottom = (round(part * whole) for part, whole in edges)
        times, end = self.times, self.times[0]
        flash = _FLASH * end / (len(times) - 2)
        devices = [_Devices(one, still.width, flash, name) for one, name in self._named()]
        pale = still.copy()
        rows = (left - 2, top - 4, still.width, bottom + 2)
        pale.paste(Image.blend(still, Image.new("RGB", still.size, "white"), _VEIL).crop(rows), rows[:2])
        drawn = [[one.draw(time) for one in devices] for time in times]
        flat = _palette([still, pale, *itertools.chain(*drawn[:: max(len(drawn) // 6, 1)])])
        still, pale, line = (_flat(one, flat) for one in (still, pale, Image.new("RGB", (1, 1), palette.INK)))
        ink = line.getpixel((0, 0))
        head = max(top - 10, 0)
        for time, strips in zip(times, drawn, strict=True):
            frame = Image.new("P", (still.width, still.height + len(strips) * _HIGH))
            frame.putpalette(flat.getpalette() or [])
            frame.paste(still.crop((0, 0, still.width, head)), (0, 0))
            for k, strip in enumerate(strips):
                frame.paste(_flat(strip, flat), (0, head + k * _HIGH))
            now = left + round((right - left) * time / end) if end else right
            shown = still if time == end else pale.copy()
            if time < end:
                shown.paste(still.crop((0, 0, now, still.height)), (0, 0))
                ImageDraw.Draw(shown).line((now, top - 3, now, bottom), fill=ink)
            frame.paste(shown.crop((0, head, still.width, still.height)), (0, head + len(strips) * _HIGH))
            yield frame

    def _named(self) -> Iterator[tuple[dict[str, Any], str]]:
        names = self.names or tuple(one["title"] for one in self.scenes)
        return zip(self.scenes, names if len(self.scenes) > 1 else ("",), strict=True)

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        fixed = self.picture._repr_mimebundle_()
        still, moving = fixed["image/png"], base64.b64encode(self.gif).decode()
        alt, width = html.escape(self.alt, quote=True), round(self.picture.get_figwidth() * 100)
        shown = (
            "<details open><summary>Animation (fold it away to stop it)</summary><picture>"
            f'<source media="(prefers-reduced-motion: reduce)" srcset="data:image/png;base64,{still}">'
            f'<img alt="{alt}" width="{width}" style="max-width:100%" src="data:image/gif;base64,{moving}">'
            "</picture></details>"
        )
        return bundled({"text/html": shown, "image/png": still, "text/plain": self.alt}, include, exclude)


class _Devices:
    """What the devices of a scene do at one moment: a box each, what it runs and holds, and messages between them."""

    def __init__(self, one: dict[str, Any], width: int, flash: float, name: str) -> None:
        self._scene, self._blocks, self._wide, self._flash, self._name = one, one["blocks"], width, flash, name
        count, edge = len(one["devices"]), 16
        gap = max(min(0.35 * width / count, 30), 4)
        self._box = (width - 2 * edge - (count - 1) * gap) / count
        self._left = [edge + r * (self._box + gap) for r in range(count)]
        self._top = _HIGH - _BOX - _LANE - 2

    def draw(self, time: float) -> Image.Image:
        """The strip of that moment."""
        image = Image.new("RGB", (self._wide * _FINE, _HIGH * _FINE), "white")
        self._pen = ImageDraw.Draw(image)
        now = f"t = {round(time, 2):g} {self._scene['unit']}"
        self._write(self._left[0], 11, f"{now}   {self._name}".strip(), 10, "lm")
        key = f"circles: {self._scene['circles']}"
        self._write(self._wide - self._left[0], 11, key, 8.5, "rm", palette.CAPTION)
        for device, name in enumerate(self._scene["devices"]):
            self._device(device, name, time)
        self._messages(time)
        return image.resize((self._wide, _HIGH), Image.Resampling.BOX)

    def _device(self, device: int, name: str, time: float) -> None:
        left, right, top = self._left[device], self._left[device] + self._box, self._top
        self._rectangle(left, right, top, top + _BOX, palette.IDLE, palette.CAPTION)
        self._write(left + 5, top + 8, name if self._box > 60 else name.split()[-1], 8.5, "lm")
        held = [(str(i), _amount(steps, time)) for r, _, i, steps, _ in self._blocks["kept"] if r == device]
        self._held(left + 5, right - 4, top + 45, [one for one in held if one[1] > 0])
        start, end = self._blocks["start"], self._blocks["end"]
        mine = (k for k, r in enumerate(self._blocks["device"]) if r == device and start[k] <= time < end[k])
        running = next(mine, None)
        middle = (left + right) / 2
        if running is None:
            updates = any(r == device and begin <= time < over for r, begin, over, *_ in self._scene["updates"])
            if updates or time < self._scene["end"]:
                self._write(middle, top + 25, "update" if updates else "idle", 8.5, "mm", palette.CAPTION)
            return
        several = max(map(len, self._scene["stages"])) > 1
        parts = [
            (*self._blocks["looks"][look][:3], f"{stage if several and not self._blocks['looks'][look][3:] else ''}", i)
            for look, stage, i in self._blocks["parts"][running]
        ]
        _, colour, ink, *_ = parts[0]
        done = left + 4 + (self._box - 8) * (time - start[running]) / (end[running] - start[running])
        self._rectangle(left + 4, right - 4, top + 15, top + 34, "white", colour, 2)
        self._rectangle(left + 4, done, top + 15, top + 34, colour, colour)
        label = "+".join(f"{stage}{op}{i}" for op, _, _, stage, i in parts)
        if self._blocks["versions"] is not None and self._box > 60:
            label += f" v{self._blocks['versions'][running][0]}".replace("-", "−")
        self._write(middle, top + 24.5, label, 10.5, "mm", ink if done > middle else palette.INK)

    def _held(self, left: float, right: float, middle: float, held: Sequence[tuple[str, float]]) -> None:
        """A small square for each micro-batch that the device holds; how much it is, where there is no room."""
        if left + 15 * len(held) > right:
            axis = f" {self._scene['memory']['axis']}" if right - left > 90 else ""
            self._write(left, middle, f"{sum(amount for _, amount in held):.3g}{axis}", 8, "lm", palette.CAPTION)
            return
        for k, (text, _) in enumerate(held):
            x = left + 15 * k
            self._rectangle(x, x + 13, middle - 6.5, middle + 6.5, palette.MEMORY, palette.MEMORY_LINE)
            self._write(x + 6.5, middle, text, 8, "mm")

    def _messages(self, time: float) -> None:
        """On their way from middle to middle of two boxes; one that has come waits at the door until it is used."""
        resting: Counter[tuple[int, bool]] = Counter()
        device, start = self._blocks["device"], self._blocks["start"]
        for source, part, taker, sent, arrived in self._blocks["messages"]:
            landed = max(arrived, sent + self._flash)
            if not sent <= time < max(landed, start[taker]):
                continue
            look, _, microbatch = self._blocks["parts"][source][part]
            op, colour, ink, *named = self._blocks["looks"][look]
            up = op in "FR" or bool(named)
            a, b = (self._left[device[k]] + self._box / 2 for k in (source, taker))
            x = a + (b - a) * min((time - sent) / (landed - sent), 1.0)
            if time >= landed:
                x += 18 * resting[device[taker], up]
                resting[device[taker], up] += 1
            y = self._top - 11 if up else self._top + _BOX + 11
            edges = [part * _FINE for part in (x - 8.5, y - 8.5, x + 8.5, y + 8.5)]
            self._pen.ellipse(edges, fill=colour, outline="white", width=_FINE)
            self._write(x, y, str(microbatch), 8, "mm", ink)

    def _rectangle(
        self, left: float, right: float, top: float, bottom: float, fill: str, outline: str, line: int = 1
    ) -> None:
        edges = [part * _FINE for part in (left, top, right, bottom)]
        self._pen.rectangle(edges, fill=fill, outline=outline, width=line * _FINE)

    def _write(self, x: float, y: float, text: str, size: float, anchor: str, colour: str = palette.INK) -> None:
        font = _font(round(size * _FINE * 100 / 72))
        self._pen.text((x * _FINE, y * _FINE), text, fill=colour, font=font, anchor=anchor)


def _amount(steps: Sequence[Sequence[float]], time: float) -> float:
    """The value of steps (time, value from then on) at a time; 0 before the first."""
    at = bisect_right(steps, time, key=lambda step: step[0])
    return steps[at - 1][1] if at else 0.0


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _palette(images: Sequence[Image.Image]) -> Image.Image:
    """One palette for all frames, so that a file holds only what changes from one to the next."""
    sheet = Image.new("RGB", (max(one.width for one in images), sum(one.height for one in images)), "white")
    y = 0
    for one in images:
        sheet.paste(one, (0, y))
        y += one.height
    found = sheet.quantize(colors=_COLOURS, dither=Image.Dither.NONE)
    colours = found.getpalette() or []
    for k in range(0, len(colours), 3):
        if min(colours[k : k + 3]) > 0xF8:
            colours[k : k + 3] = (255, 255, 255)  # paper is white, not nearly so
    found.putpalette(colours)
    return found


def _flat(image: Image.Image, colours: Image.Image) -> Image.Image:
    return image.quantize(palette=colours, dither=Image.Dither.NONE)


def plot_animation(
    timeline: Timeline,
    *,
    title: str | None = None,
    phases: bool = True,
    lanes: bool = False,
    width: float | None = None,
) -> Animation:
    """A timeline that is played: devices fill their blocks, activations pile up and go, messages fly.

    Times are those of the timeline's clock. Shown in a notebook it is an animated GIF, with the finished picture for
    readers who want less motion; ``.save("run.gif")`` writes it. The other arguments are those of ``plot_timeline``.

    >>> plot_animation(simulate(build_schedule("1f1b", devices=4, microbatches=4))).save("1f1b.gif")
    """
    picture = plot_timeline(timeline, title=title, phases=phases, lanes=lanes, width=width)
    return Animation(picture, [scene(timeline, title=title)])
