"""The table of the family: what is measured, and what a line says."""

from __future__ import annotations

from pipelab.teaching.running.experiment import Setting
from pipelab.teaching.running.family import FLUSHING, WITHOUT_FLUSH, family_table, measure_family

SMALL = Setting(layers=8, width=8, heads=2, tokens=8, batch=16, dtype="float64", steps=2)


def test_each_member_is_run_proven_and_put_into_a_line_of_its_own():
    pieces: list[str] = []
    found = measure_family(SMALL, 8, told=pieces.append)
    assert list(found) == [*FLUSHING, *WITHOUT_FLUSH]
    lines = [line.split("  ") for line in family_table(found, ["versions", "stale", "messages"]).splitlines()]
    lines = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert lines[0] == ["schedule", "versions", "stale", "messages"]
    assert {line[0]: line[1:] for line in lines[2:]} == {
        "naive": ["1 1 1 1", "0", "6"],
        "gpipe": ["1 1 1 1", "0", "48"],
        "gpipe + R": ["1 1 1 1", "0", "48"],
        "1f1b": ["1 1 1 1", "0", "48"],
        "interleaved v=2": ["1 1 1 1", "0", "112"],
        "pipedream": ["4 3 2 1", "3", "48"],
        "vertical-sync": ["4 4 4 4", "3", "48"],
        "2bw": ["2 2 2 2", "1", "48"],
    }
    for e in found.values():
        error = e.max_gradient_error if e.max_weight_error is None else e.max_weight_error
        assert error is not None and error < 1e-10
    assert pieces.count("2bw: the proof") == 1
    assert "naive: step 2 of 2" in pieces


def test_without_a_proof_there_is_no_error_to_show():
    cases = {"1f1b": FLUSHING["1f1b"]}
    found = measure_family(Setting(**{**vars(SMALL), "verify": False}), 4, cases)
    assert found["1f1b"].max_gradient_error is None
    assert family_table(found).splitlines()[0].split()[:2] == ["schedule", "bubble"]
