"""``pipelab tune``, as an engineer meets it who has not seen the course."""

from __future__ import annotations

import json

import pytest

from pipelab import Link, Links, Schedule, build_schedule, check_schedule
from pipelab.__main__ import main
from pipelab.tuning import CostProfile
from tests.tuning.profiles import profile

SMALL = ["--layers", "8", "--width", "16", "--heads", "2", "--batch", "16", "--rounds", "1", "--steps", "1"]


def run(*args: str) -> int:
    return main(["tune", *args])


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "profile.json"
    profile().save(path)
    return str(path)


def test_help_explains_itself(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    out = capsys.readouterr().out
    for part in (
        "t(b) = alpha + beta * b",
        "activation checkpointing",
        "virtual stages",
        "m* = sqrt(",
        "--memory-limit",
    ):
        assert part in out


def test_it_profiles_measures_and_says_why(capsys, tmp_path):
    files = tmp_path / "t.json", tmp_path / "t.png", tmp_path / "p.json"
    wanted = ["--json", str(files[0]), "--plot", str(files[1]), "--save-profile", str(files[2])]
    assert run(*SMALL, "--measure", "2", "-m", "4", "8", "--schedules", "1f1b", "interleaved", *wanted) == 0
    out = capsys.readouterr().out
    for part in (
        "8 layers: p = 4, a batch of 16 sequences",
        "sweet spot: ",
        "tokens/s",
        "why not",
        "prediction: off by",
    ):
        assert part in out
    told = json.loads(files[0].read_text())
    assert told["devices"] == 4 and sum("measured" in c for c in told["candidates"]) >= 2
    assert files[1].stat().st_size > 10_000
    assert CostProfile.load(files[2]).tokens == 32


def test_a_saved_profile_needs_no_model(saved, capsys):
    assert run("--profile", saved, "--measure", "0", "--batch", "256", "--memory-limit", "40MB", "--json", "-") == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["batch"] == 256 and told["best"]["schedule"] in ("interleaved-zb", "zb-v")
    assert all("measured" not in candidate for candidate in told["candidates"])


def test_what_was_searched_is_told_with_its_table(saved, capsys):
    """1F1B and ZB-H1 leave room for a better order; the JSON has it, and its CSV runs."""
    given = ["--profile", saved, "--batch", "12", "-m", "4", "-v", "1", "--recompute", "no", "--memory-limit", "17MB"]
    assert run(*given, "--schedules", "1f1b", "zb-h1", "--search", "2", "--json", "-") == 0
    best = json.loads(capsys.readouterr().out)["best"]
    assert best["schedule"] == "searched"
    schedule = Schedule.from_csv(best["table"])
    assert check_schedule(schedule) == [] and schedule.microbatches == 4
    assert profile().predict(schedule, 12).makespan == best["predicted"]["makespan"]


def test_two_nodes_have_a_slower_link_between_them(saved, capsys):
    given = ["--profile", saved, "--measure", "0", "--schedules", "1f1b", "-m", "8", "--recompute", "no", "--json", "-"]
    assert run(*given, "--nodes", "2", "--between-latency", "0.002", "--between-bandwidth", "1e9") == 0
    told = json.loads(capsys.readouterr().out)
    assert [way["latency"] for way in told["links"]][:4] == [0.0, 0.002, 0.002, 0.0]  # 0-1, 0-2, 0-3, 1-0
    links = Links.nodes(2, inside=Link(), between=Link(0.002, 1e9))
    table = build_schedule("1f1b", 4, 8)
    assert told["best"]["predicted"]["makespan"] == profile().predict(table, 64, links=links).makespan


def test_the_profile_is_saved_even_if_nothing_fits(tmp_path, capsys):
    path = tmp_path / "p.json"
    assert run(*SMALL, "--memory-limit", "1kB", "--save-profile", str(path), "--schedules", "1f1b") == 2
    assert "needs least" in capsys.readouterr().err
    assert CostProfile.load(path).devices == 4


def test_a_model_of_ones_own(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n"
        "    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(8)))\n"
        "    return model, torch.randn(16, 8), torch.randn(16, 8), nn.functional.mse_loss\n"
    )
    given = ["--model", f"{path}:make", "--measure", "1", "--rounds", "1", "--steps", "1", "-m", "4", "8"]
    assert run(*given, "--batch", "8", "--recompute", "no") == 0
    out = capsys.readouterr().out
    assert "a batch of 8 sequences" in out and "sweet spot" in out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--memory-limit", "3MB", "--measure", "0", "--profile", "SAVED"], "needs least"),
        (["--memory-limit", "lots"], "--memory-limit must be positive bytes"),
        (["--schedules", "1f1d", "--measure", "0", "--profile", "SAVED"], "did you mean '1f1b'"),
        (["--batch", "3"], "cannot fill p = 4"),
        (["--schedules", "interleaved", "-m", "9", "--profile", "SAVED", "--measure", "0"], "groups of equal size"),
        (["--profile", "nowhere.json"], "cannot be read as a cost profile"),
        (["--profile", "SAVED", "-p", "8"], "the profile is for p = 4 devices"),
        (["--model", "nowhere.py:make"], "there is no file"),
        (["--profile", "SAVED", "--batch", "0"], "--batch must be a whole number"),
        (["--batch", "-3"], "--batch must be a whole number"),
        (["--plot", "out.gif"], "pictures are saved as"),
        (["--json", "no/such/folder/x.json"], "there is no folder"),
        (["--rounds", "0", "--batch", "16"], "rounds must be"),
        (["--nodes", "2"], "--nodes goes with --between-latency or --between-bandwidth"),
        (["--nodes", "3", "--between-latency", "1", "--profile", "SAVED"], "over 3 nodes; try --nodes 2"),
        (["--search", "-1", "--batch", "16"], "search is how many seconds to search, got -1"),
    ],
)
def test_what_cannot_work_is_one_sentence(args, says, saved, capsys):
    assert run(*[saved if arg == "SAVED" else arg for arg in args]) == 2
    captured = capsys.readouterr()
    assert says in captured.err and "Traceback" not in captured.err and not captured.out


def test_a_model_that_is_none(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text("def make():\n    return 1\n")
    assert run("--model", f"{path}:make") == 2
    assert "must return (model, inputs, targets, loss), got int" in capsys.readouterr().err
    path.write_text("def make():\n    return 1 / 0\n")
    assert run("--model", f"{path}:make") == 2
    assert "mine.py:make raised ZeroDivisionError" in capsys.readouterr().err
    assert run("--model", f"{path}:other") == 2
    assert "has no function 'other'" in capsys.readouterr().err


def test_under_torchrun_it_says_what_to_do(monkeypatch, capsys):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert run() == 2
    assert "run it without torchrun" in capsys.readouterr().err


def test_run_takes_a_memory_limit(capsys):
    args = [
        "run",
        "gpipe",
        "-m",
        "4",
        "--layers",
        "8",
        "--width",
        "16",
        "--heads",
        "2",
        "--batch",
        "16",
        "--steps",
        "1",
    ]
    assert main([*args, "--memory-limit", "1MB", "--no-verify"]) == 2
    assert "out of memory on device" in capsys.readouterr().err
