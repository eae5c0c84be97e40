"""The lesson's claims, by the simulator."""

from itertools import pairwise, product

import pytest

from pipelab.schedules import Schedule, build_schedule, check_schedule
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.lesson_04.break_even import latency_where_equal
from pipelab.teaching.exercises.lesson_04.depths import depths_of, with_depths


def interleaved(p, m, v):
    return build_schedule("interleaved", devices=p, microbatches=m, chunks=v)


SIZES = [(2, 2, 2), (2, 6, 3), (3, 3, 2), (3, 6, 1), (4, 4, 2), (4, 8, 2), (4, 12, 4), (5, 10, 3)]


OTHERS = [(4, 6, 2), (4, 7, 2), (4, 10, 3), (3, 5, 2), (3, 8, 2)]  # groups of more than p


@pytest.mark.parametrize(("p", "m", "v"), [*SIZES, *OTHERS, (4, 3, 2), (5, 2, 3)])
def test_with_depths_makes_the_catalogues_table(p, m, v):
    assert with_depths(depths_of(p, m, v), m, v).programs == interleaved(p, m, v).programs


@pytest.mark.parametrize(("p", "m", "v"), [*SIZES, *OTHERS])
def test_the_makespan_reaches_the_bound_and_shares_are_as_said(p, m, v):
    for backward in (1, 2):
        timeline = simulate(interleaved(p, m, v), Costs(forward=1, backward=backward))
        assert timeline.makespan == pytest.approx((1 + backward) * (m + (p - 1) / v))
        assert timeline.bubble_fraction == pytest.approx((p - 1) / (v * m + p - 1))
    held = [min(w + 1, m * v) / v for w in depths_of(p, m, v)]
    assert timeline.peak_microbatches == pytest.approx(held)
    assert timeline.message_count == 2 * m * (p * v - 1)


@pytest.mark.parametrize(("p", "m", "v"), [size for size in SIZES if size[2] > 1])
def test_messages_on_the_longest_path_while_they_are_short(p, m, v):
    """2 (p v - 1) of them, as long as a message takes no longer than a chunk's forward."""
    bare = simulate(interleaved(p, m, v)).makespan
    for latency in (0.1 / v, 1 / v):
        timeline = simulate(interleaved(p, m, v), Costs(forward=1, backward=1, latency=latency))
        assert timeline.makespan == pytest.approx(bare + 2 * (p * v - 1) * latency)
    assert simulate(interleaved(p, 3 * p, v), Costs(latency=1.2 / v)).makespan > simulate(
        interleaved(p, 3 * p, v)
    ).makespan + 2 * (p * v - 1) * (1.2 / v)


def test_what_1f1b_and_interleaved_wait_for_as_m_grows():
    """1F1B's messages on the longest path grow with m, interleaved's do not; so what stops paying is later."""
    hops, ends = [], []
    for m in (4, 8, 16):
        path = simulate(build_schedule("1f1b", 4, m), Costs(latency=0.1)).critical_path()
        hops.append(sum(a.device != b.device for a, b in pairwise(path)))
        ends.append(latency_where_equal(build_schedule("1f1b", 4, m), interleaved(4, m, 2), 1, 1))
    assert hops == [10, 16, 28]
    assert ends == pytest.approx([2 / 3, 1, 1.5], rel=1e-4)


def test_beyond_a_chunks_forward_the_longest_path_leaves_the_last_device_after_its_first_backward():
    path = [span.slot for span in simulate(interleaved(4, 8, 2), Costs(latency=0.75)).critical_path()]
    down, up, again = [f"{s}F0" for s in range(8)], [f"{s}B0" for s in range(7, -1, -1)], [4, 5, 6, 7]
    back = [f"{s}F7" for s in again] + [f"{s}B7" for s in range(7, -1, -1)]
    assert [str(slot) for slot in path] == down + up + back


def test_a_group_smaller_than_p_misses_the_bound_and_a_larger_one_holds_more():
    def took(m):
        return simulate(interleaved(4, m, 2))

    assert {m: took(m).makespan - (2 * m + 3) for m in (3, 4, 6, 8, 10)} == {3: 1, 4: 0, 6: 0, 8: 0, 10: 0}
    assert (took(7).peak_microbatches[0], took(8).peak_microbatches[0]) == (7, 5.5)


def test_shares_in_flight_add_up_to_p_squared():
    for p, v in product((2, 4, 5), (1, 2, 3)):
        held = simulate(interleaved(p, 8 * p, v)).peak_microbatches
        assert held == pytest.approx([p + (p - 1 - 2 * r) / v for r in range(p)])
        assert sum(held) == pytest.approx(p * p)


def test_the_last_device_never_waits_between_its_first_and_its_last_action():
    for p, m, v in SIZES:
        spans = simulate(interleaved(p, m, v)).on_device(p - 1)
        assert all(one.end == pytest.approx(two.start) for one, two in pairwise(spans))


def test_half_of_the_warmup_is_enough_where_messages_are_free_and_holds_what_1f1b_holds_on_device_0():
    for p, m, v in ((2, 4, 2), (4, 8, 2), (3, 9, 3)):
        half = with_depths([(p - 1 - r) + (v - 1) * p for r in range(p)], m, v)
        right = interleaved(p, m, v)
        assert simulate(half).makespan == pytest.approx(simulate(right).makespan)
        assert simulate(half).peak_microbatches[0] == pytest.approx(p)
        slow = Costs(latency=0.1)
        assert simulate(half, slow).makespan > simulate(right, slow).makespan + 0.1


@pytest.mark.slow  # five thousand tables
def test_no_order_of_neighbouring_chunks_beats_1f1b_at_p_and_m_2():
    """All orders of two devices, each with two neighbouring chunks: the least makespan is 1F1B's, 6."""

    def orders(stages):
        """Rows of one device in which each micro-batch goes forward and back through its chunks, oldest first."""
        a, b = stages
        chains = [[f"{a}F{i}", f"{b}F{i}", f"{b}B{i}", f"{a}B{i}"] for i in range(2)]

        def merge(x, y):
            if not x or not y:
                yield x + y
                return
            yield from ([x[0], *rest] for rest in merge(x[1:], y))
            yield from ([y[0], *rest] for rest in merge(x, y[1:]))

        return list(merge(*chains))

    tables = (Schedule.from_rows([one, two]) for one in orders((0, 1)) for two in orders((2, 3)))
    spans = [simulate(table).makespan for table in tables if not check_schedule(table)]
    assert min(spans) == 6
    assert simulate(interleaved(2, 2, 2)).makespan == 5


def test_break_even_is_met_once():
    for (p, m, v), backward in product([(2, 2, 2), (4, 8, 2), (3, 3, 3)], (0.5, 1, 2)):
        first, second = build_schedule("1f1b", p, m), interleaved(p, m, v)
        at = latency_where_equal(first, second, 1, backward)
        for k in range(1, 16):
            costs = Costs(forward=1, backward=backward, latency=at * k / 8)
            lead = simulate(first, costs).makespan - simulate(second, costs).makespan
            assert lead > 1e-9 if k < 8 else lead < 1e-3
