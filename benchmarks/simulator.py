"""Building, checking and simulating schedules: actions a second as they grow to a million, memory, many settings.

Each size runs in a process of its own, so that one's memory is not the next one's. Beside it stands the simulator of
torch.distributed.pipelining, where it is done in time.

python benchmarks/simulator.py [--plot simulator.png]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from itertools import count, pairwise

from results import Table, finish, parser
from tqdm import tqdm

SHAPES = {  # (devices, micro-batches, chunks): 2 p v m actions
    "1f1b": [(8, 64, 1), (8, 640, 1), (16, 3200, 1), (16, 32000, 1)],
    "interleaved": [(8, 16, 4), (8, 160, 4), (16, 800, 4), (16, 8000, 4)],
}
PATIENCE = 120
AGAIN = 0.5
"""Seconds for which a stage is repeated; the quickest counts."""


def best(work: Callable[[], Any]) -> tuple[Any, float]:
    """What ``work`` returns and the seconds of its quickest run."""
    times, begun = [], time.perf_counter()
    while not times or time.perf_counter() - begun < AGAIN:
        started = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - started)
    return result, min(times)


def measure(name: str, p: int, m: int, v: int) -> Iterator[dict[str, Any]]:
    """One size, in this process: seconds from nothing, of each part, and of the figures when it is simulated again."""
    from pipelab.schedules import build_schedule, check_schedule
    from pipelab.simulation import Costs, simulate

    before = peak_bytes()
    costs = Costs(forward=1.0, backward=2.0)

    def figures(timeline: Any) -> tuple[Any, ...]:
        return timeline.makespan, timeline.bubble_fraction, timeline.peak_microbatches

    def whole() -> tuple[Any, ...]:
        schedule = build_schedule(name, p, m, v)
        assert not check_schedule(schedule)
        return figures(simulate(schedule, costs, check=False))

    (makespan, bubble, _), total = best(whole)
    assert makespan > 0 and 0 <= bubble < 1
    yield {"whole": total, "bytes": peak_bytes() - before}
    schedule, build = best(lambda: build_schedule(name, p, m, v))
    yield {"build": build, "check": best(lambda: check_schedule(schedule))[1]}
    yield {"figures": best(lambda: figures(simulate(schedule, costs, check=False)))[1]}


def of_torch(name: str, p: int, m: int, v: int) -> Iterator[dict[str, Any]]:
    """The seconds of PyTorch's own dry run of the same table; its sends and receives are put in before."""
    from torch.distributed.pipelining.schedules import _Action, _add_send_recv, _simulate_comms_compute

    from pipelab.schedules import build_schedule

    rows = build_schedule(name, p, m, v).to_csv(dialect="torch").splitlines()
    order = {r: [_Action.from_str(cell) for cell in row.split(",")] for r, row in enumerate(rows)}
    order = _add_send_recv(order, lambda s: s % p, p * v)
    yield {"torch": best(lambda: _simulate_comms_compute(deepcopy(order), lambda s: s % p, p * v))[1]}


def many() -> Iterator[dict[str, Any]]:
    """The seconds in which a learner's curve and the tuner's shortlist are there, for the profiled 48-layer model."""
    from pipelab.teaching.explorer.curves import Curves
    from pipelab.teaching.explorer.settings import Settings
    from pipelab.tuning import CostProfile, shortlist

    profile, turns = CostProfile.shipped("worked_example"), count()

    def curve(figure: str, against: str) -> None:
        settings = Settings(forward=1 + next(turns) / 1000)  # what was drawn before is kept: here nothing was
        curves = Curves()
        curves.work(settings, curves.curve(settings, figure, against), PATIENCE)

    begun = time.perf_counter()
    curve("bubble", "microbatches")
    yield {"explorer's very first curve": time.perf_counter() - begun}
    for figure, against in (("bubble", "microbatches"), ("memory", "microbatches"), ("makespan", "latency")):
        yield {f"explorer's curve, {figure} against {against}": best(partial(curve, figure, against))[1]}
    found, seconds = best(lambda: shortlist(profile, 64))
    yield {f"tuner's shortlist of {len(found.forecasts)} candidates, batch 64": seconds}


def peak_bytes() -> int:
    """The most memory this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says there was inherited from whoever started this process
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def apart(part: str, case: Sequence[Any], patience: float) -> dict[str, Any]:
    """What a process of its own measured in time."""
    command = [sys.executable, __file__, "--part", part, json.dumps(case)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            told = process.communicate(timeout=patience)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            told = process.communicate()[0]
        else:
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, command)
    return {key: value for line in told.splitlines() for key, value in json.loads(line).items()}


def row_of(name: str, shape: tuple[int, int, int], patience: float) -> dict[str, Any]:
    p, m, v = shape
    actions = 2 * p * m * v
    found = apart("ours", [name, *shape], patience) | apart("torch", [name, *shape], patience)
    late = f"> {patience:.0f} s"

    def speed(part: str) -> str:
        return f"{actions / found[part]:,.0f}" if part in found else late

    return {
        "schedule": f"{name}, p = {p}, m = {m}" + (f", v = {v}" if v > 1 else ""),
        "actions": actions,
        "build": speed("build"),
        "check": speed("check"),
        "figures, compiled": speed("figures"),
        "from nothing": speed("whole"),
        "bytes an action": f"{found['bytes'] / actions:,.0f}" if "bytes" in found else late,
        "PyTorch's": speed("torch"),
        "seconds": found,
    }


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Seconds over actions, both logarithmic: a straight line of slope 1 is linear growth."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4))
    for name in SHAPES:
        own = [row for row in rows if row["schedule"].startswith(name)]
        for part, style in (("whole", "o-"), ("figures", "s--"), ("torch", "x:")):
            points = [(row["actions"], row["seconds"][part]) for row in own if part in row["seconds"]]
            if points:
                label = {"whole": "from nothing", "figures": "compiled", "torch": "PyTorch's"}[part]
                axes.plot(*zip(*points, strict=True), style, label=f"{name}, {label}")
    axes.set(xscale="log", yscale="log", xlabel="actions", ylabel="seconds")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=120, bbox_inches="tight")


def growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How much longer ten times as many actions take, between neighbouring sizes."""
    found = []
    for name in SHAPES:
        own = [row for row in rows if row["schedule"].startswith(name)]
        for small, large in pairwise(own):
            line: dict[str, Any] = {"schedule": name, "from": small["actions"], "to": large["actions"]}
            line["actions, times"] = large["actions"] / small["actions"]
            for part, title in (("whole", "time, times"), ("bytes", "memory, times")):
                both = [row["seconds"].get(part) for row in (small, large)]
                line[title] = f"{both[1] / both[0]:.1f}" if all(both) else ""
            found.append(line)
    return found


def run(options: argparse.Namespace) -> list[Table]:
    last = 3 if options.quick else 4
    cases = [(name, shape) for name, shapes in SHAPES.items() for shape in shapes[:last]]
    patience = options.patience
    rows = [row_of(*case, patience) for case in tqdm(cases, desc="simulator", leave=False)]
    if options.plot:
        plot(rows, options.plot)
    grown = growth(rows)
    answers = [{"answer": name, "ms": f"{s * 1e3:.1f}"} for name, s in apart("many", [], options.patience).items()]
    for row in rows:
        row.pop("seconds")
    note = (
        "Actions a second. From nothing: build, check, simulate, read makespan, bubble and peaks, in a fresh process; "
        "compiled: the last two again on the same schedule."
    )
    numbers = {"from": ",", "to": ",", "actions, times": ".1f"}
    return [
        Table("Simulator", rows, note, {"actions": ","}),
        Table("Many settings at once", answers, "On the profiled 48-layer model, what a hand on a slider waits for."),
        Table("Its growth", grown, "Linear growth: time and memory as many times as the actions.", numbers),
    ]


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--plot", type=Path, metavar="PNG", help="draw seconds over actions")
    made.add_argument("--patience", type=float, default=PATIENCE, help="seconds after which a size is given up")
    made.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    return made


def main() -> None:
    options = arguments().parse_args()
    if options.part:
        part, case = options.part
        for found in {"ours": measure, "torch": of_torch, "many": many}[part](*json.loads(case)):
            print(json.dumps(found), flush=True)
        return
    finish(run(options), options)


if __name__ == "__main__":
    main()
