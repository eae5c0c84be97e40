"""``pipelab shapes``."""

from __future__ import annotations

import json

import pytest

from pipelab.__main__ import main


def run(*args: str) -> int:
    return main(["shapes", *args])


def test_it_shows_shapes_and_reasons(capsys):
    assert run("gpt-1.7b", "--best", "3") == 0
    out = capsys.readouterr().out
    assert "32 devices" in out and "why its neighbours lose:" in out


def test_as_published_has_the_options_of_the_run(capsys):
    assert run("gpt-3.6b", "--as-published", "--best", "9", "--json", "-") == 0
    told = json.loads(capsys.readouterr().out)
    assert {(one["shape"]["recompute"], one["shape"]["sharding"]) for one in told["best"]} == {("full", "none")}


def test_model_cluster_and_shape_are_changed_by_numbers(capsys, tmp_path):
    file = tmp_path / "plan.json"
    sizes = ["--layers", "12", "--width", "1024", "--heads", "16", "--tokens", "512"]
    cluster = ["--cluster", "h100", "--nodes", "2", "--per-node", "4", "--memory", "40GB", "--between-bandwidth", "5e9"]
    fixed = ["--batch", "64", "--tp", "1", "2", "-b", "2", "--recompute", "none", "--no-overlap"]
    assert run("gpt-1.7b", *sizes, *cluster, *fixed, "--json", str(file)) == 0
    assert "5.0 GB per second" in capsys.readouterr().out
    told = json.loads(file.read_text())
    assert told["devices"] == 8 and told["allowed_bytes"] == 36e9 and told["batch"] == 64
    assert told["model"]["layers"] == 12
    assert {one["shape"]["tp"] for one in told["best"]} <= {1, 2}
    assert {one["shape"]["microbatch"] for one in told["best"]} == {2}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["gpt-5"], "there is no run 'gpt-5'; there is gpt-1.7b"),
        (["gpt-1.7b", "--tp", "5"], "no shape has tp = 5"),
        (["gpt-1.7b", "--memory", "lots"], "memory must be positive bytes"),
        (["gpt-1.7b", "--json", "/nowhere/at/all.json"], "there is no folder"),
        (["gpt-1.7b", "--bandwidth", "0"], "bandwidth must be positive"),
    ],
)
def test_bad_input_gets_one_sentence(args, says, capsys):
    assert run(*args) == 2
    assert says in capsys.readouterr().err
