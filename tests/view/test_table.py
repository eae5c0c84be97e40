from __future__ import annotations

from pipelab import Schedule, TimeTable, build_schedule, check_schedule, plot_table
from pipelab.view.table import places_of


def shapes(picture, gid):
    return [c for axes in picture.axes for c in axes.collections if c.get_gid() == gid]


def test_a_table_the_checker_refuses_is_drawn_with_its_place_framed():
    table = Schedule.from_csv("0F0,0B0\n1B0,1F0\n")
    picture = plot_table(table, title="Mine", marked=[(1, 0)], note="Framed: too early.")
    assert picture.alt.startswith("Mine. Framed: too early. Rows: device 0: 0F0 0B0; device 1: 1B0 1F0.")
    (frame,) = shapes(picture, "marked")
    (path,) = frame.get_paths()
    assert path.vertices[:, 0].min() == 0
    assert path.vertices[:, 0].max() == 1
    assert len(shapes(picture, "blocks")[0].get_paths()) == 4
    assert picture.png()[:4] == b"\x89PNG"


def test_a_time_table_keeps_its_idle_columns():
    picture = plot_table(TimeTable.from_csv("0F0,,,0B0\n,1F0,1B0,\n"))
    assert "device 1: idle 1F0 1B0 idle" in picture.alt
    starts = sorted(path.vertices[:, 0].min() for path in shapes(picture, "blocks")[0].get_paths())
    assert starts == [0, 1, 2, 3]


def test_of_a_wait_cycle_every_waiting_action_is_framed():
    ring = Schedule.from_csv("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n")
    assert places_of(ring, check_schedule(ring)) == {(0, 1), (1, 1)}


def test_order_and_time_are_told_apart():
    schedule = build_schedule("gpipe", 2, 2)
    texts = [t.get_text() for axes in plot_table(schedule).axes for t in axes.texts]
    assert any("order on each device, not times" in text for text in texts)
    assert not shapes(plot_table(schedule), "marked")


def test_a_board_to_be_filled_shows_its_cells():
    empty = TimeTable(((None,) * 5,) * 2)
    assert len(shapes(plot_table(empty, cells=True), "cells")[0].get_paths()) == 10
    assert not shapes(plot_table(empty), "cells")
