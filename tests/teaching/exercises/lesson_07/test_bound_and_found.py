"""That the bound of the exercise holds and is reached, and what its check accepts."""

from random import Random

import pytest

from pipelab.schedules import Schedule, build_schedule
from pipelab.simulation import simulate
from pipelab.simulation.search import search_schedule
from pipelab.simulation.search.bound import lower_bound
from pipelab.teaching.exercises import exercise
from pipelab.teaching.exercises.lesson_07.bound_and_found import (
    FACTOR,
    HELD,
    SEARCHED,
    _drawn,
    _problem,
    least,
    quickest,
)
from pipelab.teaching.exercises.lesson_07.halves import of_halves
from tests.teaching.exercises.trying import assert_reserved, messages, open_parts

COSTS = of_halves(*SEARCHED[2:])


def formula(p, m, tF, tI, tW):
    """The bound that single devices give."""
    return max(max((r + m) * tF, p * tF + (p - 1 - r) * tI) + m * tI + max(m * tW, r * tI + tW) for r in range(p))


def test_the_formula_that_the_exercise_leads_to_is_pipelabs_own_bound():
    random = Random(5)
    for _ in range(150):
        given = (random.randint(1, 6), random.randint(1, 12), *(random.choice((1, 2, 3, 5, 9)) for _ in range(3)))
        assert least(given) == pytest.approx(formula(*given))


def test_cases_of_a_check_are_reached_by_a_table():
    cases = [case for case in exercise("bound_and_found").visible if case.part == "bound"]
    cases += [case for seed in range(3) for case in _drawn(Random(seed))]
    for case in cases:
        given = tuple(case["_given"])
        run = simulate(quickest(given), of_halves(*given[2:]))
        assert run.makespan == pytest.approx(least(given)), case.words


@pytest.fixture(scope="module")
def table():
    """What the search finds at once, by its rules alone: no luck and no time is needed."""
    found = search_schedule(*SEARCHED[:2], costs=COSTS, memory_limit=HELD, seconds=0.5)
    assert found.makespan <= FACTOR * least(SEARCHED)
    return found


def test_no_schedule_of_the_catalogue_is_as_good_and_less_memory_is_not_enough(table):
    assert table.known[0][1] > FACTOR * least(SEARCHED)
    fewer = search_schedule(*SEARCHED[:2], costs=COSTS, memory_limit=HELD - 1, seconds=0.5)
    assert fewer.makespan > FACTOR * least(SEARCHED)


def test_the_table_may_come_in_other_forms(table):
    answers = {"least_makespan": formula}
    assert not open_parts("bound_and_found", **answers, found=lambda: table.schedule)
    rows = [[str(a) for a in row] for row in table.schedule.programs]
    assert not open_parts("bound_and_found", **answers, found=lambda: rows)


def test_a_table_that_stays_below_the_limit_by_far_is_sent_back_to_the_search():
    h1 = build_schedule("zb-h1", 4, 8).to_csv()
    (said,) = messages("bound_and_found", least_makespan=formula, found=lambda: h1)
    assert "No device holds more than 4" in said


def test_a_wrong_bound_is_shown_a_quicker_table():
    def too_high(p, m, tF, tI, tW):
        return formula(p, m, tF, tI, tW) + 0.5

    text = quickest(SEARCHED).to_csv()
    said = messages("bound_and_found", least_makespan=too_high, found=lambda: Schedule.from_csv(text))
    assert any("there is a table that takes 6" in one for one in said)


def test_the_references_refuse_while_a_learners_function_runs():
    problem = _problem(SEARCHED)
    assert_reserved(lambda: least(SEARCHED), lambda: quickest(SEARCHED), lambda: lower_bound(problem))
    assert_reserved(lambda: search_schedule(2, 2, seconds=0.1))


def test_with_two_chunks_on_a_device_the_bound_is_another():
    """As the answer says: it was derived for one stage on each device."""
    run = simulate(build_schedule("zb-v", 4, 8), COSTS)
    assert max(run.peak_microbatches) <= HELD
    assert run.makespan < least(SEARCHED)
