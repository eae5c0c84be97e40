"""A notebook whose model is defined in a cell trains in processes, and leaves none behind."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager

from tests.runtime.processes.test_pool import gone, wait_until

ROOT = Path(__file__).parents[3]

DEFINE = """
import torch
from torch import nn
from pipelab import Pipeline, build_schedule

class Doubled(nn.Module):
    "Defined in a cell: no file to import it from."
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
    def forward(self, x):
        return x + torch.tanh(self.lin(x) * SCALE)

SCALE = 2.0
def squared(output, target):
    return ((output - target) ** 2).mean()
"""
TRAIN = """
torch.manual_seed(0)
model = nn.Sequential(*[Doubled() for _ in range(4)])
schedule = build_schedule("1f1b", devices=2, microbatches=4)
pipeline = Pipeline(model, schedule, loss=squared, launch="processes", device="cpu",
                    optimizer=lambda named: torch.optim.SGD([p for _, p in named], lr=0.1))
x, y = torch.randn(8, 4), torch.randn(8, 4)
losses = [pipeline.step(x, y).loss for _ in range(5)]
assert losses[-1] < losses[0], losses
assert pipeline.verify(x, y) < 1e-5
assert abs(float(squared(model(x), y)) - pipeline.evaluate(x, y).loss) < 1e-5
"""
TELL = """
import os, psutil
with open(os.environ["PIDS"], "w") as file:
    print(*[child.pid for child in psutil.Process().children(recursive=True)], file=file)
print("trained in", len(pipeline._engine._pool.pids), "processes")
"""


def test_nbval_runs_it_and_no_process_is_left(tmp_path):
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in (DEFINE, TRAIN, TELL)]
    cells[2].outputs = [nbformat.v4.new_output("stream", name="stdout", text="trained in 2 processes\n")]
    cells[2].execution_count = 3
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "train.ipynb")
    pids = tmp_path / "pids"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", tmp_path, "-c", os.devnull]
    done = subprocess.run(
        [*command, "--nbval", "--nbval-current-env", tmp_path / "train.ipynb"],
        env=os.environ | {"PIDS": str(pids), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "3 passed" in done.stdout
    started = list(map(int, pids.read_text().split()))
    assert len(started) == 3, "two ranks and the fork server"
    wait_until(gone(started))


@pytest.mark.slow  # in make test: the kernel's end alone
def test_a_restarted_kernel_leaves_no_process_and_can_start_others(tmp_path):
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=os.environ | {"PIDS": str(tmp_path / "pids"), "PYTHONPATH": str(ROOT)})
    try:
        for _ in range(2):
            client = manager.client()
            client.start_channels()
            client.wait_for_ready(timeout=60)
            for source in (DEFINE, TRAIN, TELL):
                reply = client.execute_interactive(source, timeout=60, output_hook=lambda message: None)
                assert reply["content"]["status"] == "ok", reply["content"]
            client.stop_channels()
            started = list(map(int, (tmp_path / "pids").read_text().split()))
            assert len(started) == 3
            manager.restart_kernel(now=True)
            wait_until(gone(started))
    finally:
        manager.shutdown_kernel(now=True)
