"""The command line, as a user meets it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from pipelab import Costs, Link, Links, Schedule, build_schedule, simulate
from pipelab.__main__ import main
from tests.tuning.profiles import profile


def run(*args: str) -> int:
    return main(list(args))


def test_schedule_prints_a_grid_that_is_read_back(capsys):
    assert run("schedule", "1f1b", "-p", "3", "-m", "5") == 0
    assert Schedule.from_grid(capsys.readouterr().out, name="1f1b") == build_schedule("1f1b", 3, 5)


def test_schedule_prints_csv_one_row_a_device(capsys):
    assert run("schedule", "interleaved", "-p", "4", "-m", "4", "-v", "2", "--format", "csv") == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 4
    assert Schedule.from_csv(out, name="interleaved") == build_schedule("interleaved", 4, 4, 2)


def test_the_torch_dialect_refuses_what_pytorch_does_not_read(capsys):
    assert run("schedule", "gpipe", "--recompute", "--format", "csv", "--dialect", "torch") == 2
    assert "0R0" in capsys.readouterr().err


def test_simulate_writes_json_and_nothing_else_to_standard_output(capsys, tmp_path):
    trace = tmp_path / "trace.json"
    assert run("simulate", "1f1b", "--batch", "64", "--json", "-", "--trace", str(trace)) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["predicted"]["makespan"] == 14
    assert out["predicted"]["peak_sequences"] == [64, 48, 32, 16]
    assert json.loads(trace.read_text())["traceEvents"]


def test_simulate_says_why(capsys):
    assert run("simulate", "gpipe", "-p", "2", "-m", "2", "--backward", "2", "--why") == 0
    out = capsys.readouterr().out
    assert "makespan            9 units" in out
    assert "device 1 waits for 0F0 from device 0" in out


def test_plots_are_saved(tmp_path):
    for suffix in ("png", "svg", "pdf"):
        path = tmp_path / f"run.{suffix}"
        assert run("simulate", "1f1b", "--plot", str(path)) == 0
        assert path.stat().st_size > 1000


SMALL = ["run", "1f1b", "-p", "2", "-m", "2", "--layers", "2", "--width", "8", "--heads", "2", "--batch", "4"]


def test_run_says_how_far_the_measurement_is_from_the_prediction(capsys, tmp_path):
    path = tmp_path / "both.svg"
    assert run(*SMALL, "--steps", "2", "--plot", str(path)) == 0
    out = capsys.readouterr().out
    assert "prediction: from what one micro-batch cost alone" in out
    (head,) = [line.split() for line in out.splitlines() if "difference" in line]
    assert head == ["predicted", "device", "difference"]
    assert re.search(r"makespan .* [+-][\d.]+%\n", out)
    assert re.search(r"bubble fraction .* [+-][\d.]+ points\n", out)
    assert 'id="which"' in path.read_text(), "the measured timeline alone"


def test_run_writes_the_difference_as_json(capsys):
    assert run(*SMALL, "--steps", "2", "--json", "-") == 0
    out = json.loads(capsys.readouterr().out)
    before, after = out["predicted"], out["measured"]
    assert out["difference"] == {
        "makespan": pytest.approx(after["makespan"] / before["makespan"] - 1),
        "bubble_fraction": pytest.approx(after["bubble_fraction"] - before["bubble_fraction"]),
        "same_order": True,
    }


def test_run_tells_what_packing_saves_and_costs(capsys, tmp_path):
    assert run(*SMALL, "--steps", "2", "--compress", "int8", "--json", str(tmp_path / "a.json")) == 0
    assert re.search(r"packed as int8: .* of messages a step instead of .* less; so gradients", capsys.readouterr().out)
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["compression"]["after"] < 0.4 * told["compression"]["before"]
    assert 1e-5 < told["max_gradient_error"] < 0.1


def test_run_tells_what_a_monitor_saw(capsys, tmp_path):
    file = tmp_path / "steps.csv"
    assert run(*SMALL, "--steps", "3", "--monitor", "--monitor-csv", str(file), "--json", str(tmp_path / "a.json")) == 0
    out = capsys.readouterr().out
    assert "1f1b, steps 0 to 2: " in out and "tokens/s" in out and "utilisation by device (device clock)" in out
    row = json.loads((tmp_path / "a.json").read_text())["monitor"]
    assert row["step"] == 2 and 0 < row["bubble"] < 1
    assert len(file.read_text().splitlines()) == 2
    assert run(*SMALL, "--steps", "1") == 0
    assert "utilisation by device" not in capsys.readouterr().out


def test_under_the_unit_clock_nothing_differs(capsys):
    assert run(*SMALL, "--steps", "1", "--clock", "unit") == 0
    out = capsys.readouterr().out
    assert "prediction: from unit costs" in out
    assert out.count("+0.0") == 3


def test_a_csv_file_is_a_schedule(capsys, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("0F0,0B0\n1F0,1B0\n")
    assert run("simulate", str(path), "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["schedule"] == "mine"
    assert run("check", str(path)) == 0
    assert run("run", str(path), "--layers", "2", "--width", "8", "--heads", "2", "--steps", "1", "--json", "-") == 0
    path.write_text("0F0,0B0\n1B0\n")
    capsys.readouterr()
    assert run("check", str(path)) == 1
    assert "1F0 is missing on device 1" in capsys.readouterr().out
    path.write_text("0F0,0b0\n1F0,1B0\n")
    assert run("check", str(path)) == 2
    assert "row 0, column 1: '0b0' is not an action; did you mean 0B0?" in capsys.readouterr().err
    assert run("check", str(path), "-p", "3") == 2


def test_a_timed_table_is_checked_as_times(capsys, tmp_path):
    path = tmp_path / "timed.csv"
    path.write_text("0F0,0B0\n1F0,1B0\n")
    assert run("check", str(path)) == 0
    assert run("check", str(path), "--timed") == 1
    assert "starts 1F0 at t = 0, but device 0 finishes 0F0 only at t = 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["schedule", "1f1c"], "did you mean '1f1b'?"),
        (["schedule", "gpipe", "-p", "0"], "devices (p) must be a whole number of at least 1, got 0; try 1"),
        (["schedule", "interleaved", "-m", "9"], "m = 9, p = 4 cannot make 2 equal groups; try 8 or 10"),
        (["schedule", "gpipe", "-v", "2"], "several chunks need 'interleaved'"),
        (["run", "1f1b", "-m", "65"], "try m = 64"),
        (["run", "1f1b", "--layers", "3"], "4 stages need at least 4 layers"),
        (["run", "1f1b", "--steps", "0"], "--steps must be at least 1"),
        (["run", "1f1b", "--device", "tpu"], "not a torch device"),
        (["simulate", "1f1b", "--forward", "-1"], "cost 'forward' must be finite and not negative"),
        (["simulate", "1f1b", "--latency", "nan"], "latency must be finite"),
        (["simulate", "1f1b", "--nodes", "2"], "--nodes goes with --between-latency or --between-bandwidth"),
        (["run", "1f1b", "--between-latency", "1"], "--nodes goes with --between-latency"),
        (["simulate", "1f1b", "--nodes", "3", "--between-latency", "1"], "over 3 nodes; try --nodes 2, or one of 1, 2"),
        (["simulate", "1f1b", "--nodes", "2", "--between-bandwidth", "0"], "bandwidth must be positive, got 0.0"),
        (["simulate", "1f1b", "--batch", "0"], "batch must be a whole number of at least 1"),
        (["simulate", "missing.csv"], "missing.csv: No such file"),
        (["simulate", "1f1b", "--plot", "picture.xyz"], "xyz"),
    ],
)
def test_bad_input_gets_one_clear_line_and_status_2(args, message, capsys):
    assert run(*args) == 2
    err = capsys.readouterr().err
    assert err.startswith("pipelab: ") and message in err
    assert len(err.strip().splitlines()) == 1


def test_help_shows_examples_and_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for word in ("schedule", "check", "simulate", "run", "demo", "doctor", "examples:"):
        assert word in out


def test_without_a_command_the_help_is_shown(capsys):
    assert run() == 2
    assert "examples:" in capsys.readouterr().out


def test_a_command_loads_only_itself():
    code = "import sys; from pipelab.__main__ import main; main(['schedule', '1f1b']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in loaded if name.startswith("pipelab.commands.")} == {
        "pipelab.commands.arguments",
        "pipelab.commands.schedule",
    }
    assert not {"torch", "pipelab.tuning", "pipelab.teaching"} & set(loaded)


def test_doctor_tells_what_there_is(capsys):
    assert run("doctor") == 0
    out = capsys.readouterr().out
    assert "cores" in out and "torch" in out and "GPU" in out


def test_python_m_pipelab_is_the_same_and_a_closed_pipe_is_no_crash():
    command = f"{sys.executable} -m pipelab schedule interleaved -p 8 -m 64 -v 4 | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("time")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("name", "versions"), [("pipedream", [2, 1]), ("vertical-sync", [2, 2]), ("2bw", [2, 2])])
def test_run_without_a_flush_holds_the_weights_against_the_formula(name, versions, capsys):
    sizes = ["--layers", "4", "--width", "8", "--tokens", "4", "--batch", "6", "--steps", "3"]
    assert run("run", name, "-p", "2", "-m", "4", *sizes, "--clock", "unit", "--dtype", "float64", "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["max_gradient_error"] is None
    assert found["max_weight_error"] <= 1e-12
    assert found["peak_weight_versions"] == versions
    assert found["measured"]["messages"] == 8
    assert run("run", name, "-p", "2", "-m", "4", *sizes, "--no-verify", "--clock", "unit") == 0
    told = capsys.readouterr().out
    assert "peak weight versions per device: " + ", ".join(map(str, versions)) in told


@pytest.mark.parametrize("name", ["pipedream", "vertical-sync", "2bw"])
def test_schedule_and_simulate_know_schedules_without_a_flush(name, capsys):
    assert run("schedule", name, "-p", "4", "-m", "8") == 0
    assert "U7" in capsys.readouterr().out
    assert run("simulate", name, "-p", "4", "-m", "8") == 0
    assert "weight versions" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pipedream", "vertical-sync", "2bw"])
def test_simulate_says_what_is_idle_in_the_long_run_whatever_m(name, capsys):
    """Story: it looked at the one step it draws, which fills and drains: 43 % for a pipeline that is never idle."""
    assert run("simulate", name, "-p", "4", "-m", "4", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["long_run_bubble_fraction"] == 0


def test_a_file_that_lists_updates_says_by_which_rule_it_runs(capsys, tmp_path):
    """Story: 2bw.csv trained as PipeDream does, under the name 2bw."""
    path = tmp_path / "2bw.csv"
    path.write_text(build_schedule("2bw", 2, 2).to_csv())
    assert run("simulate", str(path)) == 0
    assert "each forward takes the newest weights" in capsys.readouterr().err


def test_search_tells_what_it_finds_and_the_table_is_sound(capsys, tmp_path):
    path = tmp_path / "found.csv"
    assert run("search", "-p", "3", "-m", "5", "--seconds", "1", "--csv", str(path), "--json", "-") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["makespan"] == found["bound"] == found["known"]["zb-h1"] == 5 * 3 + 2
    assert "no order takes less than 17" in err
    assert run("check", str(path)) == 0
    assert run("search", "-p", "2", "-m", "3", "--memory-limit", "0.1") == 2
    assert "give at least 1" in capsys.readouterr().err


def test_search_knows_which_devices_are_on_one_node(capsys, tmp_path):
    path, nodes = tmp_path / "found.csv", ["--nodes", "2", "--between-latency", "3"]
    given = ["search", "-p", "4", "-m", "4", "--seconds", "1", "--csv", str(path), "--json", "-"]
    assert run(*given, "--latency", "0.5", *nodes) == 0
    told = json.loads(capsys.readouterr().out)
    links = Links.nodes(2, inside=Link(0.5), between=Link(3.0))
    costs = Costs(1.0, 2.0, input_gradient=1.0, weight_gradient=1.0, links=links)
    assert told["makespan"] == simulate(Schedule.from_csv(path.read_text()), costs).makespan


def test_search_takes_the_costs_of_a_saved_profile(capsys, tmp_path):
    path, table = tmp_path / "here.json", tmp_path / "found.csv"
    profile().save(path)
    given = ["search", "--profile", str(path), "--batch", "60", "-m", "6", "--seconds", "1"]
    assert run(*given, "--memory-limit", "45MB", "--csv", str(table), "--json", "-") == 0
    told = json.loads(capsys.readouterr().out)
    made = profile().predict(Schedule.from_csv(table.read_text()), 60)
    assert told["makespan"] == made.makespan <= min(told["known"].values()) and max(made.peak_bytes) <= 45e6
    for wrong, says in (
        (["--forward", "1"], "--profile has the costs; leave --forward out"),
        (["-p", "3"], "the profile is for p = 4 devices; leave -p out"),
        (["--memory-limit", "1kB"], "nothing fits"),
    ):
        assert run(*given, *wrong) == 2
        assert says in capsys.readouterr().err
    assert run("search", "--memory-limit", "60MB") == 2
    assert "a number of micro-batches without --profile" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "says"), [("--csv", "there is no folder"), ("--plot", "there is no folder")])
def test_search_asks_first_where_its_results_go(option, says, capsys, tmp_path):
    """Story: it searched, and then could not write what it had found."""
    assert run("search", "-m", "4", "--seconds", "1", option, str(tmp_path / "nowhere" / "found.png")) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert "units" not in out + err, "nothing was searched"
