import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import check_schedule
from pipelab.schedules import Schedule, build_schedule, recipes
from pipelab.schedules.reserved import ReservedError, reserve
from pipelab.teaching.board import Board, Rules, recognise
from pipelab.teaching.board.known import known_schedules, titles_of
from tests.strategies import schedules
from tests.teaching.board.boards import some_rules

ONE_WAY = ["gpipe", "1f1b", "interleaved", "looped-bfs", "zb-h1", "zb-h2", "interleaved-zb", "zb-v", "v-half", "v-min"]


def titles(p, m, v=1):
    return [title for title, _ in known_schedules(Rules(p, m, v))]


def test_the_catalogue_is_known_and_a_few_more():
    assert sorted(titles(3, 4)) == [
        "1F1B",
        "GPipe",
        "GPipe, backwards in reverse order",
        "one micro-batch after the other",
    ]
    assert sorted(titles(2, 4, 2)) == [
        "Breadth-first",
        "Interleaved 1F1B",
        "Looped BFS",
        "one micro-batch after the other",
    ]


def test_naive_is_known_only_where_its_micro_batch_is_one_of_the_board():
    assert "Naive" not in titles(3, 2)
    assert "Naive" in titles(3, 1)


def test_interleaving_needs_several_chunks_and_whole_groups():
    assert "Interleaved 1F1B" not in titles(2, 4)
    assert "Interleaved 1F1B" in titles(4, 6, 2)
    assert "Interleaved 1F1B" not in titles(4, 9, 2)


@pytest.mark.parametrize("v", [1, 2, 3])
@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_all_that_is_known_is_sound_and_complete(p, m, v):
    rules = Rules(p, m, v)
    for title, schedule in known_schedules(rules):
        assert check_schedule(schedule) == [], title
        assert Board.from_schedule(schedule, rules).complete


def test_what_is_not_in_the_catalogue_is_left_out_where_the_catalogue_has_it():
    assert titles(1, 3) == ["GPipe", "1F1B", "GPipe, backwards in reverse order"]
    assert titles(2, 1) == ["GPipe", "Naive", "1F1B"]


@given(schedules(ONE_WAY, 4, 8, 3), st.randoms())
def test_every_schedule_of_the_catalogue_is_recognised_whatever_its_micro_batches_are_called(schedule, random):
    recipe = recipes()[schedule.name]
    if schedule.chunks == 1 and recipe.default_chunks > 1:
        return
    names = list(range(schedule.microbatches))
    random.shuffle(names)
    programs = tuple(
        tuple(type(a)(a.stage, a.op, names[a.microbatch]) for a in program) for program in schedule.programs
    )
    renamed = Schedule("renamed", programs, schedule.placement, schedule.weights)
    assert recipe.title in titles_of(renamed, Board.from_schedule(schedule).rules)


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        (Rules(2, 4, backward=(1, 2)), {"ZB-H1", "ZB-H2", "1F1B in single actions"}),
        (Rules(2, 4, 2, backward=(1, 1)), {"Interleaved ZB", "Looped BFS in single actions"}),
        (Rules(2, 4, 2, backward=(2, 1), layout="v"), {"ZB-V", "V-Half", "V-Min", "DualPipeV in single actions"}),
        (Rules(4, 4, layout="two-way"), {"Chimera"}),
        (Rules(2, 4, 2), {"Looped BFS", "Interleaved 1F1B"}),
        (Rules(2, 4, 2, layout="v"), set()),
    ],
    ids=["halves", "halves in a loop", "halves in a V", "two ways", "loop", "V"],
)
def test_a_board_knows_what_lives_where_its_stages_do_and_runs_its_actions(rules, wanted):
    known = dict(known_schedules(rules))
    assert wanted <= set(known) >= {"one micro-batch after the other"}
    for title in known:
        assert title in (recognise(Board.from_schedule(known[title], rules)) or "")
    assert not {"ZB-H1", "Chimera", "ZB-V"} & set(known) - wanted


def test_one_name_for_each_micro_batch_on_all_devices():
    """Each device alone runs what GPipe runs, but device 1 takes the micro-batches in another order."""
    rows = [["0F0", "0F1", "0B0", "0B1"], ["1F1", "1F0", "1B1", "1B0"]]
    assert titles_of(Schedule.from_rows(rows), Rules(2, 2)) == ()


@given(some_rules(max_p=3, max_m=3, max_v=2))
def test_no_two_known_schedules_outside_the_catalogue_are_the_same(rules):
    listed = {recipe.title for recipe in recipes().values()}
    for title, schedule in known_schedules(rules):
        same = titles_of(schedule, rules)
        assert title in same
        assert title.removesuffix(" in single actions") in listed or same == (title,)


def test_one_after_the_other_holds_one_micro_batch():
    rules = Rules(3, 3, 2)
    serial = dict(known_schedules(rules))["one micro-batch after the other"]
    board = Board.from_schedule(serial, rules)
    assert board.peaks == (1, 1, 1)
    assert board.makespan == 3 * 6 * 2


def test_known_schedules_keep_quiet_while_a_learner_is_asked_for_them():
    rules, schedule = Rules(2, 3), build_schedule("gpipe", 2, 3)
    known_schedules(rules)  # and what was asked before is no way around it
    with reserve("you are asked to write it"):
        for ask in (lambda: known_schedules(rules), lambda: titles_of(schedule, rules)):
            with pytest.raises(ReservedError):
                ask()


def test_what_has_updates_is_not_for_a_board():
    assert not {recipe.title for recipe in recipes().values() if recipe.updating} & set(titles(4, 4))
