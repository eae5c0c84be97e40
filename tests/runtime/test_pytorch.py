"""PyTorch's runtime, driven by pipelab's tables, against the unsplit model and against Pipeline."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.pipelining import schedules as torch_schedules

from pipelab import build_schedule
from pipelab.errors import ConfigurationError, ScheduleError
from pipelab.runtime.pytorch import pytorch_runtime
from pipelab.schedules import Schedule
from tests.runtime.small import mlp, mse

ROOT = Path(__file__).parents[2]
PATIENCE = 90
NAMED = [f"{name}{tail}" for name in ("naive", "gpipe", "1f1b", "interleaved") for tail in ("", ", tuples")]
NAMED += ["interleaved, one group"]


def torchrun(processes: int, *command: str) -> str:
    """What the ranks print. Raises AssertionError with their output if they fail, or take too long."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *command]
    loopback = "lo" if sys.platform == "linux" else "lo0"  # the name of a machine that runs tests may not resolve
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": loopback}
    ranks = subprocess.Popen(
        start, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = ranks.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        ranks.terminate()  # torchrun then ends its ranks
        try:
            said, _ = ranks.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(ranks.pid, signal.SIGKILL)
            said, _ = ranks.communicate()
        pytest.fail(f"{processes} ranks took longer than {PATIENCE} s\n{said[-4000:]}")
    assert ranks.returncode == 0, said[-4000:]
    return said


def launch(processes: int, folder: Path) -> dict:
    file = folder / "found.json"
    torchrun(processes, str(ROOT / "tests" / "runtime" / "pytorch_ranks.py"), str(file))
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> dict:
    return launch(2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> dict:
    return launch(4, tmp_path_factory.mktemp("four"))


@pytest.mark.parametrize("p", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", NAMED)
def test_loss_and_gradients_are_the_unsplit_models_and_pipelines(case, p, request):
    check(request.getfixturevalue({2: "two", 4: "four"}[p])[case])


@pytest.mark.parametrize(
    "case",
    [
        "V by hand, split backwards",
        "V by hand, tuples",
        "fused by hand",
        "tuples with dropout",
        "numbers for an embedding, in-place layers",
        "batch statistics",
        "ignored targets",
    ],
)
def test_hand_written_tables_and_awkward_models(case, two):
    check(two[case])


def check(found: dict) -> None:
    assert found["runtime"] == "_PipelineScheduleRuntime"
    for error in ("loss", "gradients", "loss_against_pipeline", "against_pipeline"):
        assert found[error] <= 1e-10, error


def test_frozen_layers(two):
    assert two["frozen layers"]["gradients"] <= 1e-10


def test_build_stage(two):
    assert two["build_stage"] <= 1e-10


def test_running_statistics_do_not_see_the_memory_that_shapes_are_asked_with(two):
    assert two["running statistics"] <= 1e-12


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("frozen layers and split backwards", "stages 0..1 are frozen, and stage 2 splits its backward"),
        ("batch that m does not divide", "a batch of 30 is cut into 4 of 7 and 8; try a batch of 28 or 32"),
        ("micro-batch without terms", "micro-batch 0 holds no loss terms"),
        ("no targets", "step needs targets here"),
        ("other shape", r"was float64\[16, 5\] of a batch of 64, now float64\[8, 5\] of 32"),
        ("other world", "the schedule has 3 devices, but 2 processes were started"),
        ("rank with other batch", "the batch holds 64 sequences on rank 0 and 60 on rank 1"),
    ],
)
def test_what_cannot_work_is_refused_on_all_ranks(case, said, two):
    assert re.match(f"ConfigurationError: .*{said}", two[case]), two[case]


def refused(schedule: Schedule, error: type[Exception], said: str, **changed) -> None:
    with pytest.raises(error, match=said):
        pytorch_runtime(changed.pop("model", mlp()), schedule, **{"loss": mse, "device": "cpu", **changed})


def table(text: str) -> Schedule:
    return Schedule.from_csv(text)


def test_tables_that_pytorch_does_not_know():
    plain = build_schedule("gpipe", devices=2, microbatches=2)
    refused(plain.with_recompute(), ScheduleError, "PyTorch's tables have no 0R0")
    refused(plain.forward_part(), ScheduleError, "has no backward")
    refused(replace(plain, weights=(0.5, 1.5)), ScheduleError, r"micro-batches of one size.*\(0\.5, 1\.5\)")
    refused(table("0F0,0W0\n1F0,1B0\n"), ScheduleError, "0W0 has no 0I0 before it.*write 0B0")
    refused(table("0F0,0F1,0B1,0B0\n1F1,1B1,1F0,1B0\n"), ScheduleError, "position 0: 1F1 comes where 1F0 should")


def test_a_device_without_a_stage():
    idle = Schedule("idle", ((), *table("0F0,0B0\n").programs), ((1,),), (1.0,))
    refused(idle, ScheduleError, "device 0 holds no stage")


def test_settings_that_cannot_work():
    plain = build_schedule("gpipe", devices=2, microbatches=2)
    refused(plain, ConfigurationError, "needs loss=", loss=None)
    refused(plain, ConfigurationError, "loss is the class MSELoss", loss=nn.MSELoss)
    refused("gpipe", ConfigurationError, "schedule must be a Schedule")


def test_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    plain = build_schedule("gpipe", devices=2, microbatches=2)
    refused(plain, ConfigurationError, "started alone; start 2: torchrun --standalone --nproc-per-node 2")


@pytest.mark.parametrize("missing", ["_PipelineScheduleRuntime", "_load_csv"])
def test_another_torch(missing, monkeypatch):
    if missing == "_load_csv":
        monkeypatch.setattr(torch_schedules, "_PipelineScheduleRuntime", object)
    else:
        monkeypatch.delattr(torch_schedules, missing)
    plain = build_schedule("gpipe", devices=2, microbatches=2)
    refused(plain, ConfigurationError, re.escape(f"torch {torch.__version__} has no _PipelineScheduleRuntime"))


@pytest.mark.slow
def test_the_document_runs_as_written(tmp_path):
    text = (ROOT / "docs" / "pytorch.md").read_text(encoding="utf-8")
    script = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    processes = int(re.search(r"torchrun --standalone --nproc-per-node (\d+) train.py", text)[1])
    (tmp_path / "train.py").write_text(script, encoding="utf-8")
    said = torchrun(processes, str(tmp_path / "train.py"))
    losses = [float(line.split()[1]) for line in said.splitlines() if re.fullmatch(r"\d+ [\d.]+", line)]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
