"""Text, tables and pictures as HTML: in a notebook, and as a page that is complete in itself."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from pipelab.view.widgets.saving import unused

if TYPE_CHECKING:
    from pipelab.view.picture import Picture

__all__ = ["html_page", "html_table", "keep", "shown"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse } td, th { text-align: left; padding: .3rem .8rem .3rem 0; vertical-align: top;
border-bottom: 1px solid #ccc } img { max-width: 100% } h2 { margin-top: 2rem }
"""


def html_page(title: str, body: str, style: str = "") -> str:
    """A page that needs no other file. ``title`` and ``body`` are HTML, ``style`` is more of CSS."""
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}{style}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]], bold: Collection[int] = ()) -> str:
    """A table; ``bold`` are the numbers of rows that stand out."""
    head = "".join(f"<th style='text-align:left'>{escape(name)}</th>" for name in heads)
    lines = []
    for number, row in enumerate(rows):
        cells = (f"<b>{escape(cell)}</b>" if number in bold else escape(cell) for cell in row)
        lines.append("<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def shown(
    text: str, picture: Picture, include: Collection[str] | None, exclude: Collection[str] | None, html: str = ""
) -> dict[str, str]:
    """What a notebook shows of something that has words, and a picture below. ``html``: the words as HTML."""
    bundle = picture._repr_mimebundle_(include, exclude)
    if "text/html" in bundle:
        bundle["text/html"] = (html or f"<pre>{escape(text)}</pre>") + bundle["text/html"]
    bundle.pop("image/png", None)
    bundle["text/plain"] = text
    return bundle


def keep(text: str, name: str, folder: Path) -> Path:
    """Write ``text`` to a file of this name in ``folder``, in one piece; returns its path.

    No file is changed: where the name is taken, the new file gets a number. The same text is not written twice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = unused(name, folder, text.encode())
    if not path.exists():
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_bytes(text.encode())
        fresh.rename(path)
    return path
