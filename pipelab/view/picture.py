"""A figure that says in words what it shows."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pipelab.errors import ConfigurationError

__all__ = ["FORMATS", "Picture", "bundled", "plain_style"]

FORMATS = ("png", "svg", "pdf")
SHARPNESS = 2  # pixels of the PNG per pixel of the page: screens of laptops are that dense
_UNDATED: dict[str, dict[str, Any]] = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}}


@contextmanager
def plain_style() -> Iterator[None]:
    """Matplotlib's own style: pictures look the same whatever a notebook has set (a dark background, a grid)."""
    with style.context("default"):
        yield


class Picture(Figure):
    """A matplotlib figure with an alternative text, ``alt``, for readers who do not see it.

    It stands outside of pyplot: nothing has to be closed, and a notebook shows it once, where it is the value of a
    cell (or is given to ``display``). Equal pictures are saved as equal bytes.
    """

    def __init__(self, width: float, height: float, alt: str) -> None:
        """``width`` and ``height`` are in inches; a page shows 100 pixels per inch."""
        super().__init__(figsize=(width, height), dpi=100, facecolor="white")
        self.alt = alt
        self.rows: tuple[float, float, float, float] | None = None
        """Where its rows are, if it has any: left, top, right and bottom, as parts of width and height."""

    def save(self, path: str | Path) -> Path:
        """Save as PNG, SVG or PDF, by the suffix of ``path``; missing folders are made. Returns the path.

        Raises ConfigurationError for any other suffix.
        """
        path = Path(path)
        suffix = path.suffix.lower().removeprefix(".")
        if suffix not in FORMATS:
            given = f"'{path.suffix}'" if suffix else "no suffix"
            raise ConfigurationError(
                f"pictures are saved as {', '.join('.' + name for name in FORMATS)}; '{path.name}' has {given}; "
                f"try '{path.with_suffix('.png').name}'"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.png() if suffix == "png" else self._vector(suffix))
        return path

    def png(self) -> bytes:
        """The picture as PNG, twice as dense as the page; few colours, hence small enough to stay in a notebook."""
        flat = self.pixels(SHARPNESS).quantize(colors=256, dither=Image.Dither.NONE)
        out = io.BytesIO()
        flat.save(out, format="png", dpi=(100 * SHARPNESS,) * 2)
        return out.getvalue()

    def pixels(self, sharpness: int = 1) -> Image.Image:
        """The picture as an image with ``sharpness`` pixels per pixel of the page."""
        canvas = FigureCanvasAgg(self)
        shown = self.dpi
        try:
            self.dpi = 100 * sharpness
            with plain_style():
                canvas.draw()
            seen = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
            return seen.convert("RGB")
        finally:
            self.dpi = shown

    def _vector(self, suffix: str) -> bytes:
        out = io.BytesIO()
        title = {"Title": self.alt}
        fixed: Any = {"svg.hashsalt": "pipelab", "pdf.fonttype": 42}
        with plain_style(), matplotlib.rc_context(fixed):
            self.savefig(out, format=suffix, facecolor="white", metadata=_UNDATED[suffix] | title)
        return out.getvalue()

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        """What a notebook shows: HTML, because no notebook shows the alternative text of a bare PNG."""
        data = base64.b64encode(self.png()).decode()
        width = round(self.get_figwidth() * 100)
        alt = html.escape(self.alt, quote=True)
        image = f'<img alt="{alt}" width="{width}" style="max-width:100%" src="data:image/png;base64,{data}">'
        return bundled({"text/html": image, "image/png": data, "text/plain": self.alt}, include, exclude)


def bundled(bundle: dict[str, str], include: Collection[str] | None, exclude: Collection[str] | None) -> dict[str, str]:
    """What a notebook asked for of what can be shown."""
    wanted = set(include or bundle) - set(exclude or ())
    return {kind: value for kind, value in bundle.items() if kind in wanted}
