"""Every fault is found, named, in time, and leaves nothing: a cross-section here, all of them in the long run."""

from __future__ import annotations

import pytest

from tests.runtime.faults import matrix


@pytest.fixture(scope="module", autouse=True)
def _fork_server():
    with matrix.fork_server():
        yield


STORIES = ["processes-sleep-receive-2"]
"""The others had failed before one asked whether they had sent what it waited for: nobody was named."""


def _params():
    seen = set()
    for case in matrix.cases():
        first = case.kind, case.where if case.kind == "raise" and case.launch == "threads" else None
        quick = (case.device == 1 or case.kind == "deadlock") and (case.launch, *first) not in seen
        if quick:
            seen.add((case.launch, *first))
        quick = quick or str(case) in STORIES
        yield pytest.param(case, id=str(case), marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("case", list(_params()))
def test_it_is_found_and_named_and_nothing_is_left(case, monkeypatch, tmp_path):
    assert matrix.complaints(case, matrix.run(case, monkeypatch, tmp_path)) == []
