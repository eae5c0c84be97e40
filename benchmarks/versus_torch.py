"""Our executors against torch.distributed.pipelining: same model, schedule and machine, one intra-op thread everywhere.

PyTorch's ranks are processes of their own over gloo, as torchrun would start them. Every contender does the same work,
forwards, backwards and the loss, without an update, and rests while another has its turn; before anything is timed both
sides' gradients are compared in float64. Figures are ratios within a round, medians over rounds (quartiles).

python benchmarks/versus_torch.py [--quick] [--only 1f1b] [--json versus.json]
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from alternate import in_turn, ratios, steps
from results import Table, finish, parser
from torch_ranks import Row, TorchRanks
from tqdm import tqdm

from pipelab import Pipeline
from pipelab.runtime import gradient_error

ISSUE = (
    Row("1f1b", 2),
    Row("gpipe", 4),
    Row("1f1b", 4),
    Row("interleaved", 4, 2),
    Row("1f1b", 2, width=512, layers=2, batch=1024),
)
MORE = (
    Row("gpipe", 2),
    Row("zb-h1", 2),
    Row("zb-h1", 4),
    Row("interleaved", 2, 2),
    Row("interleaved", 2, 4),
    Row("interleaved", 4, 4),
    Row("1f1b", 4, width=128, layers=2, batch=256),
    Row("1f1b", 2, width=512, layers=2, batch=64),
    Row("gpipe", 4, width=512, layers=2, batch=512),
    Row("1f1b", 4, width=512, layers=2, batch=512),
    Row("interleaved", 2, 2, width=512, layers=2, batch=512),
    Row("zb-h1", 4, width=512, layers=2, batch=512),
    Row("1f1b", 4, m=4, model="transformer", width=64, layers=48, batch=64),
    Row("1f1b", 4, m=16, model="transformer", width=64, layers=48, batch=64),
    Row("gpipe", 4, m=16, model="transformer", width=64, layers=48, batch=64),
    Row("zb-h1", 4, m=16, model="transformer", width=64, layers=48, batch=64),
)
TOLERANCE = 1e-10


def pipeline(row: Row, launch: str, **settings: Any) -> Pipeline:
    return Pipeline(row.build(), row.table(), loss=row.loss, device="cpu", clock="wall", launch=launch, **settings)


CONTENDERS = {
    "threads": {"launch": "threads"},
    "threads, no meter": {"launch": "threads", "measure_memory": False},
    "processes": {"launch": "processes"},
    "processes, no meter": {"launch": "processes", "measure_memory": False},
}


def same_gradients(row: Row, theirs: dict[str, torch.Tensor]) -> float:
    """max |g - g*| / max |g*| between PyTorch's pipeline and the worst of ours, after two steps in float64."""
    inputs, targets = (t.double() if t.is_floating_point() else t for t in row.data())
    errors = []
    for settings in CONTENDERS.values():
        with Pipeline(row.build().double(), row.table(), loss=row.loss, device="cpu", clock="wall", **settings) as ours:
            for _ in range(2):
                ours.step(inputs, targets)
            errors.append(gradient_error(ours.gradients(), theirs))
    return max(errors)


def compare(row: Row, ranks: TorchRanks, rounds: int, seconds: float) -> dict[str, Any]:
    """One row: PyTorch's milliseconds a step, and ours as ratios."""
    error = same_gradients(row, ranks.load(row))
    if error > TOLERANCE:
        raise RuntimeError(f"{row.title}: gradients differ by {error:.1e}, so it is not the same work")
    batch = row.data()
    with ExitStack() as open_:
        contenders = {"PyTorch": lambda count: ranks.block(row, count)}
        for name, settings in CONTENDERS.items():
            made = open_.enter_context(pipeline(row, **settings))
            contenders[name] = steps(lambda made=made: made.step(*batch))
        found = in_turn(contenders, rounds, seconds)
    theirs = median(found["PyTorch"]) * 1e3
    return {"case": row.title, "PyTorch, ms": theirs, **ratios(found, to="PyTorch"), "gradients differ": error}


def chosen(options: argparse.Namespace) -> list[Row]:
    found = [row for row in (ISSUE if options.quick else ISSUE + MORE) if options.only in row.title]
    return found or sys.exit(f"no row has {options.only!r} in its title; --rows lists them")


def run(options: argparse.Namespace) -> list[Table]:
    torch.set_num_threads(1)
    rows = chosen(options)
    ranks = TorchRanks(max(row.p for row in rows))
    made = []
    try:
        for row in tqdm(rows, desc="versus PyTorch", leave=False):
            made.append(compare(row, ranks, options.rounds, options.seconds))
    finally:
        ranks.close()
    note = (
        "A step's time over PyTorch's in the same round: median (quartiles). Without meter: `measure_memory=False`. "
        "Gradients: both sides' in float64, largest difference over largest gradient."
    )
    return [
        Table("Against torch.distributed.pipelining", made, note, {"PyTorch, ms": ".1f", "gradients differ": ".0e"})
    ]


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--only", default="", metavar="SUBSTRING", help="rows whose title has it")
    made.add_argument("--rows", action="store_true", help="list the rows' titles, and stop")
    made.add_argument("--rounds", type=int, default=7, help="turns of each contender")
    made.add_argument("--seconds", type=float, default=0.4, help="what a turn takes about")
    return made


def main() -> None:
    options = arguments().parse_args()
    if options.rows:
        print(*(row.title for row in chosen(options)), sep="\n")
        return
    finish(run(options), options)


if __name__ == "__main__":
    main()
