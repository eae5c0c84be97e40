from __future__ import annotations

import pytest

from pipelab.schedules import build_schedule, recipes
from pipelab.schedules.reserved import ReservedError, reserve


def test_inside_reserve_neither_catalogue_nor_generators_answer():
    with reserve("write it yourself"):
        with pytest.raises(ReservedError, match="build_schedule does not answer here: write it yourself"):
            build_schedule("gpipe", devices=2, microbatches=2)
        for recipe in recipes().values():
            with pytest.raises(ReservedError):
                recipe.programs(2, 2, recipe.default_chunks)
    assert build_schedule("gpipe", devices=2, microbatches=2).devices == 2
