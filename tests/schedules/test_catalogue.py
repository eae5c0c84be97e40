import pytest
from hypothesis import given

from pipelab import ConfigurationError
from pipelab.schedules import Action, build_schedule, recipes, round_robin
from tests.strategies import schedules


def test_the_four_schedules_of_the_course_can_be_built_by_name():
    assert {"naive", "gpipe", "1f1b", "interleaved"} <= set(recipes())


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_recipe_says_what_it_is_and_where_it_comes_from(name):
    recipe = recipes()[name]
    assert recipe.name == name
    assert recipe.title
    assert recipe.source


def test_a_device_holds_every_pth_stage():
    assert round_robin(devices=4, chunks=2) == ((0,), (1,), (2,), (3,), (0,), (1,), (2,), (3,))


@given(schedules())
def test_every_stage_lives_on_one_device_and_every_device_holds_v(schedule):
    homes = [home for (home,) in schedule.placement]
    assert [homes.count(device) for device in range(schedule.devices)] == [schedule.chunks] * schedule.devices


def test_chunks_default_to_what_the_schedule_is_for():
    assert build_schedule("1f1b", devices=4, microbatches=4).chunks == 1
    assert build_schedule("interleaved", devices=4, microbatches=4).chunks == 2


def test_the_single_microbatch_of_naive_weighs_m():
    schedule = build_schedule("naive", devices=4, microbatches=6)
    assert schedule.microbatches == 1
    assert schedule.weights == (6.0,)


def test_recompute_asks_for_an_r_before_each_backward():
    last = build_schedule("1f1b", devices=2, microbatches=1, recompute=True).programs[1]
    assert last == (Action(1, "F", 0), Action(1, "R", 0), Action(1, "B", 0))


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("1f1n", "1f1b"),
        ("GPype", "gpipe"),
        ("interleave", "interleaved"),
        ("naïve", "naive"),
    ],
)
def test_an_unknown_name_is_offered_the_closest(asked, meant):
    with pytest.raises(ConfigurationError) as caught:
        build_schedule(asked, devices=4, microbatches=4)
    assert f"there is no schedule '{asked}'" in str(caught.value)
    assert f"did you mean '{meant}'?" in str(caught.value)


@pytest.mark.parametrize("written", ["1F1B", "GPipe", "GPIPE", "Interleaved"])
def test_names_may_be_written_as_the_papers_write_them(written):
    schedule = build_schedule(written, devices=4, microbatches=4)
    assert schedule == build_schedule(written.lower(), devices=4, microbatches=4)


def test_a_name_like_no_other_is_told_all_names_and_offered_none():
    with pytest.raises(ConfigurationError) as caught:
        build_schedule("xyz", devices=4, microbatches=4)
    assert all(name in str(caught.value) for name in recipes())
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"devices": 0, "microbatches": 4}, r"devices \(p\) must be a whole number of at least 1, got 0; try 1"),
        ({"devices": 2.5, "microbatches": 4}, r"devices \(p\) .* got 2\.5; try 2"),
        ({"devices": 4, "microbatches": -3}, r"microbatches \(m\) .* got -3; try 1"),
        ({"devices": 4, "microbatches": "8"}, r"microbatches \(m\) .* got '8'; try 8"),
        ({"devices": 4, "microbatches": 4, "chunks": 0}, r"chunks \(v\) .* got 0; try 1"),
        ({"devices": 4, "microbatches": 4, "chunks": True}, r"chunks \(v\) .* got True; try 1"),
    ],
)
def test_p_m_and_v_must_be_whole_and_the_nearest_that_works_is_offered(given_, said):
    with pytest.raises(ConfigurationError, match=said):
        build_schedule("interleaved", **given_)


@pytest.mark.parametrize("name", ["naive", "gpipe", "1f1b"])
def test_chunks_are_refused_where_the_schedule_knows_none_and_the_one_that_does_is_named(name):
    with pytest.raises(ConfigurationError, match=rf"'{name}' has 1 chunk.*got v = 2.*'interleaved'"):
        build_schedule(name, devices=4, microbatches=4, chunks=2)
    assert build_schedule(name, devices=4, microbatches=4, chunks=1).chunks == 1


@pytest.mark.parametrize(
    ("p", "m", "offered"),
    [(4, 9, "8 or 10"), (4, 13, "12 or 15"), (4, 18, "16 or 20"), (3, 20, "18 or 21"), (2, 5, "4 or 6")],
)
def test_interleaving_needs_groups_of_equal_size_and_offers_the_neighbours(p, m, offered):
    with pytest.raises(ConfigurationError) as caught:
        build_schedule("interleaved", devices=p, microbatches=m)
    assert str(caught.value) == (
        f"interleaved needs m // p groups of equal size: m = {m}, p = {p} cannot make {m // p} equal groups; "
        f"try {offered}"
    )
    for neighbour in map(int, offered.split(" or ")):
        build_schedule("interleaved", devices=p, microbatches=neighbour)
