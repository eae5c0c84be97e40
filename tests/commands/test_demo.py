"""The demo on a small model: what it says before, while and after it runs."""

from __future__ import annotations

import re

import pytest

from pipelab.__main__ import main
from pipelab.commands.demo import STEPS, adapt, demo
from pipelab.teaching.running.experiment import Setting
from pipelab.teaching.running.family import FLUSHING, WITHOUT_FLUSH

SMALL = Setting(layers=8, width=8, heads=2, tokens=8, batch=8, dtype="float64", steps=2)


def test_it_says_how_long_it_will_take_then_each_piece_and_how_much_is_left(capsys, tmp_path):
    picture = tmp_path / "out" / "demo.png"
    demo(picture, training_steps=2, setting=SMALL, cases=FLUSHING | WITHOUT_FLUSH)
    out, err = capsys.readouterr()
    head, rest = out.split("\n\n", 1)
    assert "8 runs of 2 steps" in head
    assert "about two minutes" in head
    family = FLUSHING | WITHOUT_FLUSH
    table = rest.splitlines()[: 2 + len(family)]
    assert [line.split("  ")[0] for line in table if line[:1].isalnum()] == ["schedule", *family]
    assert re.search(r"2 steps under 1F1B: loss .* differs by at most \d\.\de-1\d in any step\n$", rest)
    assert picture.stat().st_size > 1000
    for piece in ("naive: measuring one micro-batch", "the picture"):
        assert piece in err
    assert re.search(r"\d% \|.*\| \d\d:\d\d so far, about (\d\d:\d\d|\?) left", err)


def test_the_bar_ends_when_the_work_does(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tqdm.std.tqdm.refresh", lambda bar, *_, **__: seen.append((bar.n, bar.total, bar.desc)))
    seen = []
    demo(tmp_path / "demo.png", training_steps=1, setting=SMALL)
    done, pieces, last = seen[-1]
    assert done == pieces - 1  # the last piece is at work when it is named
    assert last == "training step 1 of 1, unsplit"


def test_the_median_is_of_several_steps():
    assert STEPS - 1 >= 3


def test_a_slow_device_is_shown_beside_the_unsplit_model(capsys, tmp_path):
    picture = tmp_path / "out" / "adaptive.png"
    adaptive = adapt(picture, setting=SMALL, steps=12, slow=(3, 8), every=2)
    out = capsys.readouterr().out
    assert "From step 3 on device 2 is half as fast, from step 8 on as before." in out
    assert all(str(one).partition("; measured")[0] in out for one in adaptive.history)
    assert any("device 2 takes" in one.why for one in adaptive.history)
    assert re.search(r"differs by at most \d\.\de-1\d in any step\.\n", out)
    assert picture.stat().st_size > 1000


@pytest.mark.parametrize("kind", [[], ["--adaptive"]])
def test_a_picture_that_cannot_be_saved_is_said_before_the_work(kind, capsys, tmp_path):
    (tmp_path / "out").touch()
    assert main(["demo", *kind, "--plot", str(tmp_path / "out" / "demo.png")]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "out" in err
