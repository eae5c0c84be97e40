"""The lower floors are light: what teaches, checks and predicts loads neither torch nor anything that draws."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

PROBE = """
import json, sys, time
began = time.perf_counter()
import pipelab.schedules, pipelab.simulation, pipelab.timeline
took = time.perf_counter() - began
pipelab.simulate(pipelab.build_schedule("1f1b", devices=4, microbatches=4))
heavy = ["torch", "numpy", "matplotlib", "IPython", "tqdm"]
print(json.dumps({"took": took, "loaded": [name for name in heavy if name in sys.modules]}))
"""


def probe():
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    run = subprocess.run(
        [sys.executable, "-c", PROBE],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    return json.loads(run.stdout)


def test_schedules_simulation_and_timeline_load_neither_torch_nor_numpy_nor_matplotlib():
    assert probe()["loaded"] == []


def test_schedules_simulation_and_timeline_load_in_under_a_third_of_a_second():
    assert min(probe()["took"] for _ in range(3)) < 0.3
