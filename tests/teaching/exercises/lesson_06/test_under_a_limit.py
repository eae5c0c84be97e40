"""What the check of methods under a limit accepts, and that its truth is the simulator's and the table's."""

from random import Random

import pytest

from pipelab.schedules import Action, build_schedule
from pipelab.schedules.updates import over
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises import exercise
from pipelab.teaching.exercises.lesson_06.stash import lives
from pipelab.teaching.exercises.lesson_06.under_a_limit import NAMES, _cases, _drawn, best, method
from tests.teaching.exercises.trying import assert_reserved, open_parts

COSTS = Costs(forward=1, backward=2, recompute=1)
SIZES = [(p, m) for p in (2, 3, 4) for m in (1, p, 2 * p + 1)]


def asked(name, p, m):
    return method(name, _cases([(3, 5, 2, 0.5, p, m)])[0])


@pytest.mark.parametrize(("p", "m"), SIZES)
def test_lost_time_and_what_is_in_flight_are_the_simulators(p, m):
    for name in ("gpipe", "gpipe-recompute", "1f1b"):
        again = name == "gpipe-recompute"
        run = simulate(build_schedule(name.removesuffix("-recompute"), p, m, recompute=again), COSTS)
        made = asked(name, p, m)
        assert made.lost == pytest.approx(1 - 3 * m / run.makespan)
        if not again:
            assert made.activations == run.peak_microbatches[0] * 2e9


@pytest.mark.parametrize("p", [2, 3, 4])
def test_versions_and_staleness_are_the_tables(p):
    for name in ("pipedream", "vertical-sync", "2bw"):
        count = 8 if name == "2bw" else 5 * p
        schedule = over(build_schedule(name, p, p), 8) if name == "2bw" else build_schedule(name, p, count)
        rows = [[str(slot) for slot in row] for row in schedule.programs]
        found, peaks = lives(rows, name)
        made = asked(name, p, p)
        assert made.versions == peaks[0] == max(peaks)
        assert made.activations == simulate(schedule).peak_microbatches[0] * 2e9
        stale = []
        for r, row in enumerate(rows):
            done, late = 0, {}
            for cell in row:
                if "U" in cell:
                    late[cell] = done
                    done += 1
            used = {need: k for k, life in enumerate(found[r]) for need in life.needs if "B" in need}
            middle = [u for u in late if late[u] == 3 * done // 5]
            stale += [late[u] - used[u.replace("U", "B")] for u in middle]
        assert sum(stale) / p == made.stale


def test_without_a_flush_no_time_is_lost_in_the_long_run():
    p, few, many = 4, 40, 80
    spans = [simulate(build_schedule("pipedream", p, m), COSTS).makespan for m in (few, many)]
    assert spans[1] - spans[0] == 3 * (many - few)
    assert asked("pipedream", p, 8).lost == 0


def test_device_0_needs_the_most():
    for name in ("1f1b", "pipedream", "vertical-sync"):
        assert simulate(build_schedule(name, 4, 9)).peak_microbatches == (4, 3, 2, 1)
    assert Action(0, "R", 0) in build_schedule("gpipe", 2, 2, recompute=True).programs[0]


def test_drawn_cases_meet_answers_of_all_kinds():
    seen = set()
    for seed in range(20):
        for case in _drawn(Random(seed)):
            for limit in case["_limits"]:
                right = best(case, limit)
                seen |= {right.fastest, right.freshest}
    assert seen == {*NAMES, "none"} - {"vertical-sync"}  # PipeDream is as large, and less stale


def test_names_may_come_in_any_order():
    cases = exercise("under_a_limit").cases(3)
    given = ("_weights", "_optimizer", "_activations", "_stage_input", "_p", "_m")
    truth = {(*(case[name] for name in given), limit): best(case, limit) for case in cases for limit in case["_limits"]}

    def answer(*args):
        right = truth[args]
        return {name: right.rated[name] for name in reversed(right.fits)}, right.fastest, right.freshest

    assert not open_parts("under_a_limit", choose_method=answer)


def test_the_reference_refuses_while_a_learners_function_runs():
    case = exercise("under_a_limit").visible[0]
    assert_reserved(lambda: best(case, 1), lambda: method("1f1b", case))
