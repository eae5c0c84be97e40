"""What the check of receives accepts, and that its truth is the order in which tables are run."""

from random import Random

import pytest

from pipelab.schedules import Action, Schedule, build_schedule
from pipelab.schedules.reserved import reserve_also
from pipelab.schedules.wire import routes
from pipelab.simulation import simulate
from pipelab.teaching.exercises.lesson_09.order_on_the_wire import EXERCISE, _drawn, sent
from tests.teaching.exercises.trying import assert_reserved, open_parts


@pytest.mark.parametrize(
    ("name", "p", "m", "v"),
    [("gpipe", 3, 4, 1), ("1f1b", 2, 5, 1), ("1f1b", 4, 3, 1), *(("interleaved", p, 2 * p, 2) for p in (2, 3, 4))],
)
def test_each_kind_comes_as_it_is_run(name, p, m, v):
    table = build_schedule(name, p, m, v)
    rows, wire = [[str(a) for a in row] for row in table.programs], routes(table.graph)
    for source in range(p):
        for destination in set(range(p)) - {source}:
            given = sent(rows, source, destination)
            for op, kind in (("F", "activation"), ("B", "gradient")):
                channel = [
                    str(r.producer)
                    for c, found in wire.items()
                    if (c.kind, c.source, c.destination) == (kind, source, destination)
                    for r in found
                ]
                assert [cell for cell in given if op in cell] == channel


def test_texts_actions_and_iterators_are_as_right():
    def own(rows, source, destination):
        p, last = len(rows), max(Action.parse(cell).stage for row in rows for cell in row)
        for action in map(Action.parse, rows[source]):
            taker = action.stage + (1 if action.op == "F" else -1)
            if taker in range(last + 1) and taker % p == destination:
                yield action

    assert not open_parts("order_on_the_wire", receives=own)


def test_cases_meet_both_kinds_on_one_channel_the_way_round_and_channels_without_messages():
    for cases in (EXERCISE.visible, [case for seed in range(4) for case in _drawn(Random(seed))]):
        found = [(case, sent(case["_rows"], case["_from"], case["_to"])) for case in cases]
        assert any({"F", "B"} <= set("".join(cells)) for _, cells in found)
        assert any(cells and {case["_from"], case["_to"]} == {0, len(case["_rows"]) - 1} for case, cells in found)
    assert any(not sent(case["_rows"], case["_from"], case["_to"]) for case in EXERCISE.visible)


def test_tables_of_the_check_can_run():
    for case in EXERCISE.visible:
        assert simulate(Schedule.from_rows(case["_rows"])).makespan


@pytest.mark.parametrize("data", [3, "0F0", [["0F0"]], [1], None, {"set": ["0F0"]}])
def test_what_is_no_list_of_actions_gets_a_sentence(data):
    for case in EXERCISE.visible:
        assert "should return a list of actions" in EXERCISE.verdict(case, {"data": data}).message


def test_cells_of_any_text_get_a_sentence():
    for case in EXERCISE.visible:
        assert EXERCISE.verdict(case, {"data": ["?", "0F0", ""]}).message


def test_the_references_refuse_while_a_learners_function_runs():
    rows = [["0F0", "0B0"], ["1F0", "1B0"]]
    table = Schedule.from_rows(rows)
    assert_reserved(lambda: sent(rows, 0, 1))
    with reserve_also("routes", "simulate"):
        assert_reserved(lambda: routes(table.graph), lambda: simulate(table))
