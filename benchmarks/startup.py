"""How soon one can begin: four processes from cold and from warm, and imports.

python benchmarks/startup.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from alternate import Spread
from results import Table, main, parser
from tqdm import tqdm

from pipelab import Pipeline, build_schedule
from pipelab.models import TransformerLM, next_byte_loss
from pipelab.runtime.processes.pool import stop_all

ROOT = Path(__file__).parents[1]
IMPORTS = {
    "nothing": "pass",
    "import torch": "import torch",
    "from pipelab import Pipeline": "from pipelab import Pipeline",
    "pipelab.schedules, simulation, timeline": "import pipelab.schedules, pipelab.simulation, pipelab.timeline",
}


def ready() -> tuple[Pipeline, float]:
    """A pipeline of four processes, and the seconds until they can take a step."""
    schedule = build_schedule("1f1b", devices=4, microbatches=4)
    model = TransformerLM()
    begun = time.perf_counter()
    made = Pipeline(model, schedule, loss=next_byte_loss, device="cpu", launch="processes")
    return made, time.perf_counter() - begun


def of_processes(rounds: int) -> list[dict[str, object]]:
    """Seconds until ready in three situations."""
    found: dict[str, list[float]] = {"cold": [], "beside another pipeline": [], "warm, after others were closed": []}
    for _ in tqdm(range(rounds), desc="processes", leave=False):
        stop_all()
        first, cold = ready()
        second, beside = ready()
        first.close()
        second.close()
        third, warm = ready()
        third.close()
        for times, seconds in zip(found.values(), (cold, beside, warm), strict=True):
            times.append(seconds)
    stop_all()
    return [{"four processes ready": name, "seconds": Spread.of(times)} for name, times in found.items()]


def of_imports(rounds: int) -> list[dict[str, object]]:
    """Seconds of fresh interpreters, in turn."""
    found: dict[str, list[float]] = {name: [] for name in IMPORTS}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    for _ in tqdm(range(rounds + 1), desc="imports", leave=False):  # the first fills the file cache
        for name, code in IMPORTS.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
            found[name].append(time.perf_counter() - begun)
    kept = {name: times[1:] for name, times in found.items()}
    beyond = {name: [a - b for a, b in zip(times, kept["nothing"], strict=True)] for name, times in kept.items()}
    return [{"a fresh interpreter": name, "seconds": Spread.of(beyond[name])} for name in IMPORTS if name != "nothing"]


def run(options: argparse.Namespace) -> list[Table]:
    rounds = 3 if options.quick else 7
    note = "Median (quartiles). Cold: no process of ours runs yet."
    imports = "Beyond an interpreter that imports nothing, in turn: median (quartiles)."
    return [Table("Start-up", of_processes(rounds), note), Table("Imports", of_imports(rounds), imports)]


def arguments() -> argparse.ArgumentParser:
    return parser(__doc__)


if __name__ == "__main__":
    main(run, arguments())
