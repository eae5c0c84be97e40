from __future__ import annotations

import pytest

from pipelab import Costs, Schedule, TimeTable, build_schedule, try_schedule
from pipelab.errors import ConfigurationError, ScheduleParseError
from pipelab.models import TransformerLM
from tests.view.scenes import boxes


def small():
    return TransformerLM(layers=4, width=8, heads=2)


def mine(p, m):
    return [[f"{r}F{i}" for i in range(m)] + [f"{r}B{i}" for i in range(m)] for r in range(p)]


@pytest.mark.parametrize(
    "given",
    [
        mine(2, 2),
        "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n",
        build_schedule("1f1b", 2, 2),
        TimeTable.from_csv("0F0,,,0B0\n,1F0,1B0,\n"),
    ],
    ids=["rows", "CSV", "Schedule", "TimeTable"],
)
def test_whatever_a_learner_holds_is_checked_and_trains(given):
    trial = try_schedule(given, batch=8, model=small)
    assert trial.sound
    assert trial.right
    assert trial.losses[1] < trial.losses[0]
    assert "equal to those of the unsplit model" in str(trial)
    assert "<pre>The schedule is sound." in trial._repr_mimebundle_()["text/html"]


def test_a_generator_is_called_with_p_and_m():
    trial = try_schedule(mine, 2, 3, batch=8, model=small)
    assert trial.table.name == "mine"
    assert trial.right
    with pytest.raises(ConfigurationError, match="mine needs p and m; add, for example, devices=4"):
        try_schedule(mine)
    with pytest.raises(ConfigurationError, match="returned None"):
        try_schedule(lambda p, m: None, 2, 2)


def test_by_itself_the_batch_makes_micro_batches_of_one_size():
    trial = try_schedule(mine(2, 3), model=small, steps=1)
    assert trial.timeline.sequences == 22
    assert trial.timeline.schedule.weights == (1, 1, 1)


def test_what_the_checker_refuses_is_not_run():
    trial = try_schedule("0F0,0B0\n1B0,1F0\n")
    assert not trial.sound
    assert trial.losses == ()
    assert "refuses this schedule" in str(trial)
    assert "1B0" in str(trial)
    assert trial.picture().alt


def test_its_picture_has_no_phases_which_a_later_lesson_explains():
    assert (
        boxes(try_schedule("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n", batch=8, model=small, steps=1).picture(), "phases")
        == []
    )


def test_the_unit_clock_shows_the_costs_that_are_given():
    """As on a drawing board whose backwards take two columns: 2 * 3 for each micro-batch, and 3 to fill and drain."""
    costs = Costs(forward=(1.0, 1.0), backward=(2.0, 2.0))
    trial = try_schedule(build_schedule("1f1b", 2, 2), batch=8, model=small, steps=1, costs=costs)
    assert trial.right
    assert trial.timeline.makespan == 9
    assert trial.timeline.clock == "unit"
    assert "9 units" in str(trial)


def test_progress_is_told_before_each_piece_of_work():
    told = []
    try_schedule(build_schedule("gpipe", 2, 2), batch=8, model=small, steps=2, progress=told.append)
    assert told == ["comparing its gradients with those of the unsplit model", "step 1 of 2", "step 2 of 2"]


def test_nothing_is_told_of_what_is_not_run():
    told = []
    try_schedule("0F0,0B0\n1B0,1F0\n", progress=told.append)
    assert told == []


def test_whoever_hears_of_the_progress_may_stop_it():
    def stop(words):
        raise KeyboardInterrupt(words)

    with pytest.raises(KeyboardInterrupt, match="comparing"):
        try_schedule(build_schedule("gpipe", 2, 2), batch=8, model=small, progress=stop)


@pytest.mark.parametrize(
    "given, error, says",
    [
        (3, ConfigurationError, "one row of actions per device"),
        ([], ConfigurationError, "no rows"),
        (["0F0", "1F0"], ConfigurationError, "row 0 is str '0F0', not a row"),
        ([["0F0", "F0"]], ScheduleParseError, "row 0, column 1: 'F0' has no stage"),
        ([["0F0", 7]], ScheduleParseError, "row 0, column 1: int '7'; an action is text"),
    ],
)
def test_what_is_no_schedule_is_told(given, error, says):
    with pytest.raises(error, match=says):
        try_schedule(given)


def test_rows_may_hold_actions_idle_cells_and_fused_slots():
    schedule = build_schedule("gpipe", 2, 2)
    assert Schedule.from_rows(schedule.programs, name="gpipe") == schedule
    fused = Schedule.from_rows([["0F0", None, "(0F1;0B0)", "0B1"]])
    assert len(fused.programs[0][1]) == 2


def test_a_table_with_updates_is_refused_with_what_works():
    """Story: it asked for an optimizer, which it does not take."""
    with pytest.raises(ConfigurationError, match="leave them out, or train with it by Pipeline"):
        try_schedule("0F0,0F1,0B0,0U0,0B1,0U1\n1F0,1B0,1U0,1F1,1B1,1U1")
