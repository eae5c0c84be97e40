"""Reads come back at the places from which they were taken, sorted, and complete."""

import numpy as np
import pytest

from pipelab.teaching.flows.genome import (
    READ,
    RECORD,
    Index,
    make_genome,
    merge,
    pack,
    read_region,
    unpack,
    write_block,
)
from pipelab.teaching.flows.genome import write_reads as store

GENOME = make_genome(length=40_000, reads=3000, seed=1)
INDEX = Index.of(GENOME.codes)
MAPPED = INDEX.map(GENOME.reads)


def test_each_read_is_mapped_and_nowhere_worse_than_at_its_true_place():
    numbers = MAPPED["number"].astype(int)
    assert sorted(numbers) == list(range(3000))
    assert (MAPPED["mismatches"] <= GENOME.misfit(numbers)).all()


def test_a_read_that_fits_in_one_place_only_is_put_there():
    """In repeats a copy may fit as well, and no mapper can know."""
    numbers = MAPPED["number"].astype(int)
    right = (MAPPED["place"] == GENOME.places[numbers]) & (MAPPED["reverse"] == GENOME.reverse[numbers])
    assert right.mean() > 0.95
    assert (MAPPED["mismatches"][~right] <= GENOME.misfit(numbers[~right])).all()


def test_mismatches_are_those_of_a_letter_by_letter_comparison():
    letters = "ACGT"
    genome = "".join(letters[code] for code in GENOME.codes)
    other = str.maketrans("ACGT", "TGCA")
    for record in MAPPED[::100]:
        read = bytes(record["letters"]).decode()
        read = read.translate(other)[::-1] if record["reverse"] else read
        there = genome[record["place"] : record["place"] + len(read)]
        assert sum(a != b for a, b in zip(read, there, strict=True)) == record["mismatches"]


def test_errors_are_as_frequent_as_their_quality_says():
    reads = make_genome(length=40_000, reads=5000, seed=2)
    expected = (10.0 ** (reads.reads["quality"] / -10.0)).sum()
    assert reads.misfit(np.arange(5000)).sum() == pytest.approx(expected, rel=0.1)


def test_a_read_of_another_genome_is_not_mapped():
    strange = make_genome(length=5000, reads=50, seed=9).reads
    assert (INDEX.map(strange)["mismatches"] > 20).all()


@pytest.mark.parametrize("level", [0, 1])
def test_blocks_are_sorted_whole_and_read_by_region(tmp_path, level):
    runs = [INDEX.map(part) for part in np.array_split(GENOME.reads, 4)]
    blocks = [write_block(pack(block, level), tmp_path) for block in merge(runs, 5)]
    everything = np.concatenate([unpack(block.path.read_bytes()) for block in blocks])
    assert (np.diff(everything["place"].astype(int)) >= 0).all()
    assert sorted(everything["number"]) == list(range(3000))
    (tmp_path / blocks[0].path.name).unlink()  # a region behind it does not need it
    first, last = blocks[1].last + 1, blocks[2].last
    region = read_region(blocks, first, last)
    inside = (everything["place"] >= first) & (everything["place"] <= last)
    assert region.tobytes() == everything[inside].tobytes()


def test_level_1_takes_less_than_half_of_the_bytes():
    assert pack(MAPPED, 1).size < pack(MAPPED, 0).size / 2
    assert pack(MAPPED, 0).size >= len(MAPPED) * RECORD.itemsize


def test_reads_are_stored_in_blocks(tmp_path):
    paths = store(GENOME.reads, tmp_path, 4, 1)
    found = np.concatenate([unpack(path.read_bytes(), READ) for path in paths])
    assert found.tobytes() == GENOME.reads.tobytes()
