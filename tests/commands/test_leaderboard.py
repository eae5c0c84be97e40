"""``pipelab leaderboard``, as a user meets it."""

from __future__ import annotations

import json

import pytest

from pipelab import build_schedule
from pipelab.__main__ import main


@pytest.fixture
def work(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text(build_schedule("zb-v", 4, 8).to_csv())
    return tmp_path / "work"


def test_a_file_is_entered_and_listed(work, capsys):
    assert main(["leaderboard", "mine.csv"]) == 0
    out = capsys.readouterr().out
    assert "entered as work/leaderboard/mine.csv" in out
    assert "mine (yours)" in out
    assert (work / "leaderboard" / "mine.csv").read_text() == (work.parent / "mine.csv").read_text()


def test_it_can_have_another_name_and_a_picture(work, capsys):
    assert main(["leaderboard", "mine.csv", "--name", "vee", "--plot", "front.png", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in told["standings"] if one["own"]] == ["vee"]
    assert (work.parent / "front.png").stat().st_size > 1000


def test_a_damaged_entry_is_told_by_the_exit_status(work, capsys):
    (work / "leaderboard").mkdir()
    (work / "leaderboard" / "torn.csv").write_text("0F0,")
    assert main(["leaderboard"]) == 1
    assert "leaderboard/torn.csv is not shown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--work", "elsewhere"], "elsewhere is not a folder; make lab makes work"),
        (["mine.csv", "mine.csv", "--name", "a"], "--name is for one schedule, got 2"),
        (["three.csv"], "p = 3 and m = 3"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(work, capsys, args, says):
    (work.parent / "three.csv").write_text(build_schedule("1f1b", 3, 3).to_csv())
    assert main(["leaderboard", *args]) == 2
    assert says in capsys.readouterr().err
    assert not (work / "leaderboard").exists()
