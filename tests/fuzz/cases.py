"""How many cases a property gets: few and the same ones in make test, many and new ones in make test-full."""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings


def fuzzed(*strategies, few: int, many: int):
    """Make a test of a property of these strategies' examples.

    A failure prints its example as it was found, and among many how to see it again: on a busy machine, shrinking would
    take longer than a test may.
    """
    counts = [few] * (few > 0) + [pytest.param(many, marks=pytest.mark.slow)]

    def of(holds):
        @pytest.mark.parametrize("examples", counts)
        def test(examples):
            new = examples == many
            told = settings(max_examples=examples, derandomize=not new, print_blob=new, phases=[Phase.generate])
            told(given(*strategies)(holds))()

        test.__name__, test.__doc__ = holds.__name__, holds.__doc__
        return test

    return of
