"""Plain English, as far as a program can tell: sentences of a page, their lengths, and turns of phrase to avoid."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

__all__ = ["AVOID", "LONGEST", "MEAN", "avoided", "length", "lengths", "prose_faults", "sentences", "strings"]

LONGEST = 32
"""Words of a sentence, at most."""
MEAN = 15.0
"""Words of a page's sentences, on average, at most; those of one to three words (a table's cell, a head) left out."""

AVOID = {
    r"how many per ?cent": "what percentage",
    r"as a part of all": "as a fraction of total",
    r"\ball device-time": "total device time",
    r"device-time": "device time",
    r"\bso long (the|it|as the|a|an|he|she)\b": "as long as, for that long",
    r"however (small|large|long|many|few)": "no matter how",
    r"\bwill do(?=[.;,)]|$)": "works, is enough",
    r"\bwhy so\b": "why",
    r"\bthen weighs\b": "counts as",
    r"\bholds more than under\b": "the extra memory of",
    r"\bwith your [\w-]+ in flight are\b": "with your ... , 4.5 are in flight",
    r"^What (?!is )([^\s;,:]+ ){3,9}(is|are|was|were|goes|comes|stays) [^;]*[.]$": "the subject first",
    r"\btells? the rest\b": "lists the other options",
    r"\bis what (the|it|a) \w+ (holds|keeps|has)\b": "shows what ... holds",
    r"\bwhat (came|comes|becomes|became) of\b": "the result of",
    r"\bof the \d+ \w+(-\w+)? device \d+ (holds|has)\b": "device 0 holds 7 of the 8",
    r"\bmeets? (it|the wall)\b": "hits, reaches",
    r"\bas (good|well|quick|sound) as equal\b": "nearly equal",
    r"\bis there however\b": "does not depend on",
    r"\bnone the (more|less)\b": "still",
    r"\bnot so\b(?! \w+ as)": "not",
    r"\bhas to be (able|there)\b": "must",
    r"\bthe (whole|one) of it\b": "all of it",
    r"\bof an own\b|\bof its own sort\b": "its own",
    r"\bthereby\b|\bwherein\b|\bwherefore\b|\bhereby\b": "so, in which",
    r"\ball the same\b": "still, anyway",
    r"\bone and the same\b": "the same",
    r"\bgoes by\b": "is called",
    r"\bfor ever\b": "forever",
    r"\bbe it\b": "whether",
    r"\bmore of (it|them) than\b": "more than",
}
"""A turn of phrase (a regular expression) -> the common words for it."""


def avoided(text: str) -> list[str]:
    """Turns of phrase in ``text`` that have commoner words, each with them."""
    flat = " ".join(text.split())  # one line, so that ^ is a sentence's beginning
    return [
        f"'{found[0]}': {better}"
        for phrase, better in AVOID.items()
        for found in re.finditer(phrase, flat, re.IGNORECASE)
    ]


def prose_faults(found: Iterable[str]) -> list[str]:
    """Sentences that are too long, and phrases with commoner words."""
    found = list(found)
    long = [
        f"{length(one)} words, more than {LONGEST}; make two sentences: {one}" for one in found if length(one) > LONGEST
    ]
    return long + [fault for one in found for fault in avoided(one)]


def lengths(found: Iterable[str]) -> list[int]:
    """Of sentences proper: a table's cell or a heading of a few words would hide the long ones."""
    return [length(one) for one in found if length(one) > 3]


def length(sentence: str) -> int:
    """Words in a sentence; a formula or a piece of code counts as one."""
    return len([word for word in sentence.split() if re.search(r"\w", word)])


def sentences(markdown: str) -> list[str]:
    """The sentences of a page: code blocks left out, a table's cells and a list's items one by one."""
    return [found for block in _blocks(markdown) for found in _split(block)]


def _blocks(markdown: str) -> Iterator[str]:
    """Paragraphs, items, cells and headings, as plain text."""
    text = re.sub(r"^( *)(```|~~~).*?^\1\2 *$", "\n\n", markdown, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(`+)(?!`)(.+?)\1", "code", text, flags=re.DOTALL)
    text = re.sub(r"\$[^$\n]+(\n[^$\n]+)?\$", "formula", text)
    text = re.sub(r"</?(details|summary|p|br|div|td|th|tr|li|ul|ol|table)\b[^>]*>", "\n\n", text)
    text = re.sub(r"<[^>]+>", "", text)
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        stripped = line.strip()
        columns = re.search(r"\S {3,}\S| \| .* \| ", stripped)  # a table in plain text
        begins = columns or re.match(r"([-*+]|\d+\.)\s+|#+\s|\|", stripped)
        if (not stripped or begins) and block:
            yield " ".join(block)
            block = []
        if stripped.startswith("|"):
            yield from (cell.strip() for cell in stripped.strip("|").split("|") if re.search(r"\w", cell))
        elif columns:
            yield from re.split(r" {3,}| \| ", stripped)
        elif stripped.startswith("#"):
            yield stripped.lstrip("# ")
        elif stripped:
            block.append(re.sub(r"^([-*+]|\d+\.)\s+", "", stripped))


def _split(block: str) -> list[str]:
    plain = re.sub(r"[*_]{1,2}(?=\S)|(?<=\S)[*_]{1,2}", "", block)
    parts = re.split(r"(?<=[.?!:])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9*])|(?<=[.?!])\s+(?=code|formula)", plain)
    return [part.strip() for part in parts if re.search(r"\w", part)]


def strings(source: str, hole: str = "x") -> list[str]:
    """The texts of a Python source: docstrings, and strings of five words or more; ``hole`` is what is put in."""
    found: list[str] = []
    inside: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in ast.walk(node) if part is not node}
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else hole for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            text = node.value
        else:
            continue
        text = re.sub(r"::\n\n( +\S.*\n|\n)+", ".\n\n", text)  # a block of code in a docstring
        if length(text) >= 5:
            found.append(text)
    return found
