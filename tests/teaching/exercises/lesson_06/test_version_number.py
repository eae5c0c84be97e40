"""What the check of version numbers accepts, and that its truth is the formulas'."""

import numpy as np

from pipelab.teaching.exercises.lesson_06.version_number import used
from tests.teaching.exercises.trying import assert_reserved, open_parts


def rule(method, p, s, i, every=1):
    """The issue's formulas, of which 2BW's counts micro-batches from 1."""
    if method == "pipedream":
        return max(0, i - (p - 1 - s))
    return max(0, i - (p - 1)) if method == "vertical-sync" else max(i // every - 1, 0)


def test_the_engines_versions_are_the_published_formulas():
    for method in ("pipedream", "vertical-sync", "2bw"):
        for p in (1, 2, 3, 5):
            every = p + 1 if method == "2bw" else 1
            found = used(method, p, every, 12)
            assert found == [[rule(method, p, s, i, every) for i in range(12)] for s in range(p)]


def test_numbers_may_be_numpys_or_whole_floats():
    assert not open_parts("version_number", version=rule)
    assert not open_parts("version_number", version=lambda *given: np.int64(rule(*given)))
    assert not open_parts("version_number", version=lambda *given: float(rule(*given)))


def test_the_reference_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: used("pipedream", 2, 1, 3))
