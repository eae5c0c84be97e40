"""One process per device: how soon they are ready, and what a step costs against threads.

python benchmarks/processes.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from alternate import ratio, show

from pipelab import Pipeline, build_schedule
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.runtime.processes.pool import stop_all


def main() -> None:
    batch = text_batch()
    tiny = text_batch(0, 8, 4)
    schedule = build_schedule("1f1b", devices=4, microbatches=4)

    def pipeline(launch: str, model: TransformerLM) -> Pipeline:
        return Pipeline(model, schedule, loss=next_byte_loss, device="cpu", clock="wall", launch=launch)

    def seconds(work):
        begun = time.perf_counter()
        made = work()
        return made, time.perf_counter() - begun

    print("seconds until four processes are ready: from nothing, then a second pipeline of the same shape\n")
    for _ in range(5):
        first, cold = seconds(lambda: pipeline("processes", TransformerLM()))
        second, warm = seconds(lambda: pipeline("processes", TransformerLM()))
        print(f"from nothing {cold:5.2f}    beside it {warm:5.2f}", end="")
        first.close()
        second.close()
        third, again = seconds(lambda: pipeline("processes", TransformerLM()))
        print(f"    after both were closed {again:5.2f}")
        third.close()
        stop_all()

    print("\nratio of wall times of a step, processes / threads, median (quartiles), 1f1b, p = m = 4\n")
    for what, model, data in (
        ("the worked example: 48 layers, width 64, batch 64", TransformerLM(), batch),
        ("tiny actions: 4 layers, width 16, batch 8, 4 tokens", TransformerLM(4, 16, 2), tiny),
    ):
        processes, threads = (pipeline(launch, model) for launch in ("processes", "threads"))
        show(what, ratio(lambda p=processes, d=data: p.step(*d), lambda t=threads, d=data: t.step(*d), rounds=20))
        processes.close()


if __name__ == "__main__":
    main()
