"""What the runtime costs: wall time of a step of the worked example, as ratios, alternated in one run.

python benchmarks/overhead.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from alternate import ratio, show

from pipelab import Pipeline, build_schedule
from pipelab.models import TransformerLM, next_byte_loss, text_batch


def main() -> None:
    model, batch = TransformerLM(), text_batch()

    def pipeline(name: str, p: int = 4, m: int = 4, **settings: object) -> Pipeline:
        return Pipeline(model, build_schedule(name, p, m), loss=next_byte_loss, device="cpu", clock="wall", **settings)

    def unsplit() -> None:
        model.zero_grad()
        next_byte_loss(model(batch[0]), batch[1]).backward()

    def steps(made: Pipeline):
        return lambda: made.step(*batch)

    print("ratio of wall times, median (quartiles): 48 layers, width 64, batch 64, on this machine's cores\n")
    show(
        "one device, one micro-batch, against the unsplit model's loop", ratio(steps(pipeline("naive", 1, 1)), unsplit)
    )
    show("1f1b p = m = 4 in threads, against the unsplit model's loop", ratio(steps(pipeline("1f1b")), unsplit))
    show("naive, against 1f1b, p = m = 4", ratio(steps(pipeline("naive")), steps(pipeline("1f1b"))))
    show(
        "1f1b with activation bytes measured, against without",
        ratio(steps(pipeline("1f1b")), steps(pipeline("1f1b", measure_memory=False))),
    )
    show("1f1b at m = 32, against m = 4", ratio(steps(pipeline("1f1b", m=32)), steps(pipeline("1f1b"))))


if __name__ == "__main__":
    main()
