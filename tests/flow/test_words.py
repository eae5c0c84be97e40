"""Names, and letters that tell them apart."""

import pytest

from pipelab.flow import Flow, Resource, Stage
from pipelab.flow.words import letters


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["map", "pack", "write"], ("M", "P", "W")),
        (["map", "merge"], ("Ma", "Me")),
        (["map", "map 2"], ("Map", "Map 2:")),
        (["b", "c", "b2"], ("B", "C", "B2:")),
    ],
)
def test_letters_are_as_few_as_tell_a_name_from_the_others(names, found):
    assert letters(names) == found


def test_a_job_that_is_no_item_is_called_a_job_and_says_which_items_it_is_for():
    flow = Flow(Stage("a", str, Resource("core")), Stage("b", list, "core", batch=2))
    words = flow.predict(4, {"a": 1, "b": 1}).words
    second = next(
        slot for row in flow.predict(4, {"a": 1, "b": 1}).schedule.programs for slot in row if slot.stage == 1
    )
    assert words.in_full(second) == "job 0 of b (items 0 to 1)"
    assert words.slot(second) == "b 0"
