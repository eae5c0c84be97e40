"""What the check of a monitor's rows accepts, and that noise decides nothing."""

from random import Random
from statistics import mean, median

import pytest

from pipelab.teaching.exercises.lesson_08.monitored import KINDS, RECORDED, made_up, recorded_run
from pipelab.teaching.exercises.lesson_08.read_monitor import dearness, holder, parts, truth
from tests.teaching.exercises.trying import assert_reserved, open_parts


def reader(window, *, relative, middle):
    """One of the ways to read: which five steps stand for a step, seconds or parts of them, who the others are."""

    def diagnose(rows):
        steps, devices = sorted({row["step"] for row in rows}), sorted({row["device"] for row in rows})
        at = {(row["step"], row["device"]): row for row in rows}
        last = len(steps) - 1

        def busy(k, r):
            whole = sum(at[steps[k], one]["busy"] for one in devices) if relative else 1
            return at[steps[k], r]["busy"] / whole

        def holds_up(k):
            begin = min(max(k - window, 0), last - 4)
            found = [median(busy(near, r) for near in range(begin, begin + 5)) for r in devices]
            return None if mean(found) / max(found) > 0.95 else devices[found.index(max(found))]

        def layer(chosen):
            each = [{r: at[steps[k], r]["busy"] / at[steps[k], r]["layers"] for r in devices} for k in chosen]
            return median(one[device] / middle([one[r] for r in devices if r != device]) for one in each)

        device, since = holds_up(last), last
        if device is None:
            return None, None, "none"
        while since and holds_up(since - 1) == device:
            since -= 1
        slow = since and layer(range(since, last + 1)) > 1.1 * layer(range(max(since - 5, 0), since))
        return device, steps[since], "slow device" if slow else "too many layers"

    return diagnose


@pytest.mark.parametrize(
    ("window", "relative", "middle"), [(0, True, mean), (2, False, median), (4, False, mean), (4, True, median)]
)
def test_every_sensible_way_to_read_is_accepted(window, relative, middle):
    assert not open_parts("read_monitor", diagnose=reader(window, relative=relative, middle=middle))


@pytest.mark.parametrize("what", RECORDED)
def test_what_was_recorded_is_read_as_it_was(what):
    assert truth(RECORDED[what].rows) == RECORDED[what].truth


def test_the_recorded_run_is_a_copy_for_a_cell_of_ones_own():
    recorded_run()[0]["busy"] = 0
    assert truth(recorded_run()) == (2, 14, "slow device")


def test_what_is_made_up_is_read_as_it_was_made_and_is_far_from_every_threshold():
    for seed in range(15):
        for kind in KINDS:
            run = made_up(kind, Random(seed))
            device, since, why = truth(run.rows)
            assert (device, since, why) == run.truth
            shares = parts(run.rows)
            last = shares[max(shares)]
            balance = mean(last) / max(last)
            assert balance > 0.97 or balance < 0.86
            if since is not None and since > min(shares):
                before = [step for step in shares if step < since][-5:]
                rise = dearness(run.rows, device, [s for s in shares if s >= since]) / dearness(
                    run.rows, device, before
                )
                assert rise > 1.2 if why == "slow device" else rise < 1.05


def test_the_kinds_of_runs_have_all_reasons():
    found = {made_up(kind, Random(0)).truth[2] for kind in KINDS}
    assert found == {"none", "slow device", "too many layers"}


def test_references_refuse_while_a_learners_function_runs():
    rows = RECORDED["recorded, an even cut"].rows
    assert_reserved(
        lambda: truth(rows), lambda: parts(rows), lambda: holder([0.5, 0.5]), lambda: dearness(rows, 0, [0])
    )
