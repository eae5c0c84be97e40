"""What the check of hand-filled tables accepts."""

from pipelab.schedules import Schedule, build_schedule, check_schedule
from pipelab.simulation import simulate
from pipelab.teaching.exercises.lesson_07.fill_the_bubble import in_halves
from pipelab.teaching.exercises.lesson_07.halves import of_halves
from tests.teaching.exercises.trying import assert_reserved, open_parts

ZB_H1 = {p: build_schedule("zb-h1", p, p + 1) for p in (3, 4)}


def test_tables_may_come_as_text_with_idle_cells_or_as_rows():
    assert not open_parts("fill_the_bubble", filled=lambda p: f"\n{ZB_H1[p].to_csv()}\n")
    assert not open_parts("fill_the_bubble", filled=lambda p: ZB_H1[p])
    grids = {p: [line.partition("|")[2] for line in ZB_H1[p].to_grid().splitlines()[1:]] for p in ZB_H1}
    assert not open_parts("fill_the_bubble", filled=lambda p: "\n".join(grids[p]))


def test_where_the_exercise_begins():
    for p, m, span, best in ((3, 4, 16, 14), (4, 5, 21, 18)):
        begin = Schedule.from_rows(in_halves(p, m))
        assert not check_schedule(begin)
        assert simulate(begin, of_halves()).makespan == span
        assert simulate(ZB_H1[p], of_halves()).makespan == best


def test_w_may_run_in_any_order_behind_its_i():
    rows = {p: [[str(a) for a in row] for row in table.programs] for p, table in ZB_H1.items()}
    for table in rows.values():
        table[-1][-3:] = reversed(table[-1][-3:])
    assert not open_parts("fill_the_bubble", filled=rows.__getitem__)


def test_the_references_refuse_while_a_learners_function_runs():
    assert_reserved(lambda: in_halves(2, 3))
