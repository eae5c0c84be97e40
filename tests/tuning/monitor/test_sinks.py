"""Figures go behind a progress bar, into a CSV file, to TensorBoard."""

from __future__ import annotations

import csv
import importlib.util
import sys
import types

import pytest
from tqdm import tqdm

from pipelab import ConfigurationError, Monitor
from tests.tuning.monitor.watched import after


def read(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_csv_file_has_one_header_and_a_row_every_so_many_steps(tmp_path):
    file = tmp_path / "steps.csv"
    monitor = after(4, Monitor(every=2, csv=file), clock="wall")
    after(2, Monitor(every=2, csv=file), clock="wall")
    rows = read(file)
    assert [row["step"] for row in rows] == ["1", "3", "1"]
    assert [*rows[0]] == [*monitor.summary().row()]
    parts = sum(float(rows[1][name]) for name in ("fill", "imbalance", "updates", "messages", "other"))
    assert parts == pytest.approx(float(rows[1]["bubble"]))
    assert float(rows[1]["seconds"]) == monitor.summary().seconds
    assert rows[0]["tokens_per_second"] == ""
    assert "link_seconds_0_1" in rows[0]


def test_columns_stay_where_costs_are_not_measured(tmp_path):
    assert [*after(1).summary().row()] == [*after(1, measure_costs=False).summary().row()]


def test_a_file_of_another_pipeline_is_left_as_it_is(tmp_path):
    file = tmp_path / "steps.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.warns(UserWarning, match="has other columns, from another pipeline; name a new file"):
        after(1, Monitor(every=1, csv=file))
    assert file.read_text() == "a,b\n1,2\n"


def test_a_bar_shows_the_short_line():
    with tqdm(total=2, disable=False, file=open("/dev/null", "w")) as bar:
        monitor = after(2, Monitor(every=2, bar=bar, tokens=3))
        assert bar.postfix == monitor.line()
        assert "tokens/s, bubble " in bar.postfix
        later = Monitor(every=1)
        later.attach(bar)
        after(1, later)
        assert "sequences/s" in bar.postfix


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="TensorBoard is installed")
def test_without_tensorboard_it_says_what_to_install(tmp_path):
    with pytest.raises(ConfigurationError, match="pip install tensorboard; csv= works without it"):
        Monitor(tensorboard=tmp_path)


def test_tensorboard_gets_a_curve_a_number(tmp_path, monkeypatch):
    told = []

    class SummaryWriter:
        def __init__(self, folder):
            assert folder == str(tmp_path)

        def add_scalar(self, name, value, step):
            told.append((name, value, step))

        def flush(self):
            told.append("flushed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monitor = after(2, Monitor(every=2, tensorboard=tmp_path))
    assert ("pipelab/bubble", monitor.summary().bubble, 1) in told
    assert told[-1] == "flushed"
    assert not any(one[0] in ("pipelab/step", "pipelab/tokens_per_second") for one in told[:-1])
