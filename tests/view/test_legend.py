from dataclasses import replace

import pytest

from pipelab.schedules import build_schedule
from pipelab.simulation import simulate
from pipelab.view import palette
from pipelab.view.legend import LINE, flow, groups
from pipelab.view.memory import held
from tests.view.scenes import SPLIT, measured, predicted


def said(found):
    return [[entry.text for entry in group] for group in found]


def test_it_explains_what_occurs_and_nothing_else():
    assert said(groups([predicted("1f1b", 2, 2)])) == [["forward", "backward", "idle"]]
    assert [entry.letter for entry in groups([simulate(SPLIT)])[0]] == ["F", "I", "W", ""]
    timeline = measured(build_schedule("interleaved", 2, 4, 2))
    found = said(groups([timeline], phases=True, curves=held([timeline]), updates=True))
    assert found == [
        ["forward", "backward", "optimizer update", "idle"],
        ["chunk 0", "chunk 1"],
        ["warm-up", "steady", "cool-down"],
        ["sequences in flight"],
        ["end of the makespan"],
    ]


def test_phases_that_do_not_occur_are_left_out():
    assert said(groups([predicted("gpipe", 2, 2)], phases=True))[1] == ["warm-up", "cool-down"]


def test_many_chunks_are_told_by_first_and_last():
    assert said(groups([predicted("interleaved", 2, 2, 8)]))[1] == ["chunk 0", "chunk 7"]


def test_shades_of_chunks_are_told_for_all_ops():
    first, second = groups([predicted("zb-v", 2, 4)])[1]
    for chunk, entry in enumerate((first, second)):
        assert (entry.colour, *entry.more) == tuple(palette.shade(op, chunk, 2) for op in "FIW")


def test_where_a_stage_lives_twice_a_device_has_no_chunks():
    chimera = predicted("chimera", 2, 2)
    assert said(groups([chimera]))[1] == ["lowest stage of a device", "highest"]
    assert said(groups([chimera, predicted("interleaved", 2, 2, 2)]))[1] == ["chunk 0", "chunk 1"]


@pytest.mark.parametrize("width", [150, 300, 700])
def test_entries_flow_in_lines_without_touching(width):
    timeline = measured(build_schedule("interleaved", 2, 4, 2))
    placed, height = flow(groups([timeline], phases=True, curves=held([timeline]), updates=True), width)
    assert all(entry.x + entry.width <= width for entry in placed)
    assert height == max(entry.y for entry in placed) + LINE
    for y in {entry.y for entry in placed}:
        line = sorted((entry.x, entry.x + entry.width) for entry in placed if entry.y == y)
        assert all(line[k][1] < line[k + 1][0] for k in range(len(line) - 1))


def test_nothing_takes_no_room():
    assert flow([], 100) == ([], 0.0)
    assert replace(groups([predicted("1f1b", 1, 1)])[0][0], x=3.0).x == 3.0
