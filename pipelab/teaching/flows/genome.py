"""Reads of a genome, mapped to their places by an index of short words, sorted by place, and stored in blocks.

::

    blocks of reads --> load --> map --> merge --> pack --> write --> blocks of records, sorted by place

A read is a short piece of a genome as a sequencer gives it: one of two strands, with errors, and with the probability
of an error for each letter.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = [
    "READ",
    "RECORD",
    "Block",
    "Genome",
    "Index",
    "make_genome",
    "merge",
    "pack",
    "read_region",
    "unpack",
    "write_block",
    "write_reads",
]

LENGTH, WORD = 100, 16
"""Letters of a read; letters of a word of the index."""
LETTERS = np.frombuffer(b"ACGT", np.uint8)
_CODES = np.zeros(256, np.uint8)
_CODES[LETTERS] = range(4)

READ = np.dtype([("number", "<u4"), ("letters", "u1", LENGTH), ("quality", "u1", LENGTH)])
RECORD = np.dtype([("place", "<u4"), ("reverse", "u1"), ("mismatches", "u1"), *READ.descr])
"""A read that was mapped. ``mismatches`` is 255 where no place was found."""

Codes = npt.NDArray[np.uint8]
Reads = npt.NDArray[np.void]
Records = npt.NDArray[np.void]


# ---- a genome and its reads ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Genome:
    """A reference, and reads whose true places are known: the letter of ``places`` is the read's first on the left."""

    codes: Codes
    reads: Reads
    places: npt.NDArray[np.int64]
    reverse: npt.NDArray[np.bool_]

    def misfit(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """In how many letters these reads differ from the reference at their true places."""
        found = _oriented(_CODES[self.reads["letters"][numbers]], self.reverse[numbers])
        return _mismatches(self.codes, found, self.places[numbers])


def make_genome(length: int = 580_000, reads: int = 100_000, seed: int = 0) -> Genome:
    """A random genome in which a tenth is repeats, each copy a little changed, and ``reads`` of it.

    Each letter of a read is wrong with the probability 10^(-quality / 10) that its quality says.
    """
    random = np.random.default_rng(seed)
    codes = random.integers(0, 4, length, np.uint8)
    for _ in range(length // 10_000):
        source, target = random.integers(0, length - 1000, 2)
        codes[target : target + 1000] = _with_errors(random, codes[source : source + 1000], 0.02)
    places, reverse = random.integers(0, length - LENGTH, reads), random.random(reads) < 0.5
    made = np.zeros(reads, READ)
    made["number"] = np.arange(reads)
    made["quality"] = random.choice(np.array([15, 25, 37], np.uint8), (reads, LENGTH), p=[0.1, 0.3, 0.6])
    pieces = _oriented(_windows(codes)[places], reverse)
    made["letters"] = LETTERS[_with_errors(random, pieces, 10.0 ** (made["quality"] / -10))]
    return Genome(codes, made, places, reverse)


def _with_errors(random: np.random.Generator, codes: Codes, rate: float | npt.NDArray[np.float64]) -> Codes:
    """Each letter replaced by another one with the probability ``rate``."""
    wrong = random.random(codes.shape) < rate
    return (codes + wrong * random.integers(1, 4, codes.shape, np.uint8)) % 4


def _oriented(pieces: Codes, reverse: npt.NDArray[np.bool_]) -> Codes:
    """Pieces of the other strand are read from its other end, A for T and C for G."""
    return np.where(reverse[:, None], 3 - pieces[:, ::-1], pieces)


def _windows(codes: Codes) -> Codes:
    return np.lib.stride_tricks.sliding_window_view(codes, LENGTH)


def _mismatches(codes: Codes, pieces: Codes, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.count_nonzero(_windows(codes)[places] != pieces, axis=1)


# ---- the stages ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Index:
    """All words of a genome in sorted order, each as a number of two bits for a letter, with their places."""

    codes: Codes
    words: npt.NDArray[np.uint32]
    places: npt.NDArray[np.int32]

    @classmethod
    def of(cls, codes: Codes) -> Index:
        """The index of a genome."""
        words = _words(np.lib.stride_tricks.sliding_window_view(codes, WORD))
        places = words.argsort(kind="stable").astype(np.int32)
        return cls(codes, words[places], places)

    def map(self, reads: Reads, tries: int = 2) -> Records:
        """The records of ``reads``, sorted by place.

        Words of a read that stand in the index give candidates. Each candidate is compared with the whole read, and
        the one with fewest mismatches is kept. Of a word that is there more than once, ``tries`` places are looked at.
        """
        found = np.zeros(len(reads), RECORD)
        for name in READ.names or ():
            found[name] = reads[name]
        found["mismatches"] = 255
        forward = _CODES[reads["letters"]]
        for reverse in (False, True):
            pieces = 3 - forward[:, ::-1] if reverse else forward
            for offset in range(0, LENGTH - WORD + 1, WORD):
                words = _words(pieces[:, offset : offset + WORD])
                at = self.words.searchsorted(words)
                for _ in range(tries):
                    self._try(found, pieces, words, at, offset, reverse)
                    at = at + 1
        return found[found["place"].argsort(kind="stable")]

    def _try(
        self,
        found: Records,
        pieces: Codes,
        words: npt.NDArray[np.uint32],
        at: npt.NDArray[np.int64],
        offset: int,
        reverse: bool,
    ) -> None:
        """Look at entry ``at`` of the index for each read, and keep its place where it fits better than the last."""
        entry = np.minimum(at, len(self.words) - 1)
        places = self.places[entry].astype(np.int64) - offset
        inside = (places >= 0) & (places <= len(self.codes) - LENGTH)
        known = (found["place"] == places) & (found["reverse"] == reverse) & (found["mismatches"] < 255)
        new = np.flatnonzero((self.words[entry] == words) & inside & ~known)
        count = _mismatches(self.codes, pieces[new], places[new])
        better = count < found["mismatches"][new]
        kept = new[better]
        found["place"][kept], found["reverse"][kept], found["mismatches"][kept] = places[kept], reverse, count[better]


def _words(pieces: Codes) -> npt.NDArray[np.uint32]:
    """Each row of codes as one number."""
    words = np.zeros(len(pieces), np.uint32)
    for column in pieces.T:
        words = words * np.uint32(4) + column
    return words


def merge(runs: Sequence[Records], blocks: int) -> list[Records]:
    """Sorted runs merged into one, cut into ``blocks`` of equal length."""
    records = np.concatenate(runs)
    return np.array_split(records[records["place"].argsort(kind="stable")], blocks)


@dataclass(frozen=True)
class Block:
    """Records at places ``first`` to ``last``, compressed by themselves, and the file where they are stored."""

    first: int
    last: int
    data: bytes = b""
    path: Path | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)


def pack(records: Records, level: int) -> Block:
    """A block of sorted records. Level 0 stores them as they are, 9 takes most time for fewest bytes."""
    return Block(int(records["place"][0]), int(records["place"][-1]), zlib.compress(records.tobytes(), level))


def unpack(data: bytes, kind: np.dtype[np.void] = RECORD) -> Records:
    """The records (or READs) of a block's bytes."""
    return np.frombuffer(zlib.decompress(data), kind)


def write_block(block: Block, folder: Path) -> Block:
    """Store a block in a file of its own."""
    folder.mkdir(exist_ok=True)
    path = folder / f"records-{block.first:09}-{block.last:09}"
    path.write_bytes(block.data)
    return Block(block.first, block.last, path=path)


def write_reads(reads: Reads, folder: Path, blocks: int, level: int) -> list[Path]:
    """Store reads as a sequencer left them, in ``blocks`` files."""
    paths = [folder / f"reads-level-{level}-{k:04}" for k in range(blocks)]
    for path, part in zip(paths, np.array_split(reads, blocks), strict=True):
        path.write_bytes(zlib.compress(part.tobytes(), level))
    return paths


def read_region(blocks: Sequence[Block], first: int, last: int) -> Records:
    """The records at places ``first`` to ``last``: only blocks that have some of them are read."""
    found = [unpack(b.path.read_bytes()) for b in blocks if b.path and b.first <= last and first <= b.last]
    records = np.concatenate([np.zeros(0, RECORD), *found])
    return records[(records["place"] >= first) & (records["place"] <= last)]
