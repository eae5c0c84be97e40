"""The lower floors are light: what teaches, checks and predicts loads neither torch nor anything that draws."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

PROBE = """
import json, sys
before = set(sys.modules)
import pipelab.schedules, pipelab.simulation, pipelab.timeline
new = sorted(set(sys.modules) - before)
pipelab.simulate(pipelab.build_schedule("1f1b", devices=4, microbatches=4))
heavy = ["torch", "matplotlib", "IPython", "tqdm"]
print(json.dumps({"new": new, "loaded": [name for name in heavy if name in sys.modules]}))
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


def test_to_build_check_and_predict_loads_neither_torch_nor_what_draws():
    assert probe()["loaded"] == []


def test_numpy_is_loaded_when_something_is_built_or_predicted_and_not_before():
    assert "numpy" not in probe()["new"]


def test_schedules_simulation_and_timeline_load_little_more_than_themselves():
    """A fifth of a second on a laptop, most of it Python's own: what is loaded decides, and no machine's mood."""
    new = probe()["new"]
    own = [name for name in new if name.partition(".")[0] == "pipelab"]
    assert len(own) < 30
    assert len(new) - len(own) < 60, new
