"""A flow as a whole: what is predicted, what is run, and what is refused before anything starts."""

import pytest

from pipelab import ConfigurationError
from pipelab.flow import Flow, Resource, Stage


def line(*buffers, workers=1, **options):
    """a, b, c, ... one after another, each on a resource of its own."""
    names = "abcdef"[: len(buffers)]
    return Flow(
        *(
            Stage(name, lambda x: x + 1, Resource(name.upper(), workers), buffer=k)
            for name, k in zip(names, buffers, strict=True)
        ),
        **options,
    )


def test_equal_stages_take_n_plus_s_minus_one_slots():
    assert line(2, 2, 2, 2).predict(10, dict.fromkeys("abcd", 1)).makespan == 13


def test_the_slowest_stage_sets_the_pace():
    assert line(2, 2, 2).predict(10, {"a": 1, "b": 3, "c": 1}).makespan == 1 + 10 * 3 + 1


def test_with_one_buffer_a_stage_and_the_next_never_work_at_once():
    timeline = line(1, 1).predict(5, {"a": 1, "b": 1})
    assert timeline.makespan == 10


def test_results_come_in_order_whatever_order_they_were_made_in():
    assert line(4, 4, workers=2).run(range(20), progress=False).results == [i + 2 for i in range(20)]


def test_batches_are_lists_and_the_last_may_be_shorter():
    flow = Flow(
        Stage("a", str, Resource("A")), Stage("join", "".join, "A", batch=3), Stage("all", list, "A", batch="all")
    )
    assert flow.run(range(8), progress=False).results == [["012", "345", "67"]]


def test_a_result_that_is_split_is_many_items():
    flow = Flow(Stage("halve", lambda x: (x, x + 0.5), Resource("A"), split=2), Stage("b", lambda x: 2 * x, "A"))
    assert flow.run(range(3), progress=False).results == [0, 1, 2, 3, 4, 5]


def test_needs_are_further_arguments_and_may_point_ahead():
    def references(i):
        return [("encode", j) for j in ((3,) if i in (1, 2) else (0,) if i == 3 else ())]

    flow = Flow(
        Stage("read", lambda i: i, Resource("disk"), buffer=2),
        Stage("encode", lambda i, *refs: (i, *(ref[0] for ref in refs)), Resource("core"), needs=references),
    )
    assert flow.run(range(4), progress=False).results == [(0,), (1, 3), (2, 3), (3, 0)]


def test_a_circle_of_needs_is_named():
    flow = Flow(Stage("a", str, Resource("A"), needs=lambda i: [("a", (i + 1) % 3)]))
    with pytest.raises(ConfigurationError, match="a 0 needs a 1, a 1 needs a 2, a 2 needs a 0"):
        flow.predict(3, {"a": 1})


def test_buffers_that_bring_a_standstill_are_refused_with_what_is_enough():
    flow = Flow(Stage("a", str, Resource("A"), buffer=3), Stage("b", list, "A", batch=4))
    with pytest.raises(ConfigurationError, match=r"a 3 finds no room.*a 0 is kept for b 0, .*give 'a' buffer=4"):
        flow.predict(8, {"a": 1, "b": 1})
