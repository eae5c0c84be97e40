"""What tests run on each rank under torchrun: ``ranks.py FOLDER``; what is found goes to ``FOLDER/RANK.json``."""

import json
import os
import sys
from pathlib import Path

from pipelab import Pipeline, build_schedule
from tests.runtime.checkpoint.small import state
from tests.runtime.setup import test_ties as ties


def made(tied=ties.LM, optimizer=ties.adam):
    schedule = build_schedule("1f1b", int(os.environ["WORLD_SIZE"]), 4)
    return Pipeline(tied(), schedule, loss=ties.loss, optimizer=optimizer, launch="processes")


def trained(pipeline, steps=2):
    return [pipeline.step(*ties.batch()).loss for _ in range(steps)]


def said(work):
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def main(folder, rank):
    found, run = {}, folder / "run"
    with made() as pipeline:
        trained(pipeline)
        path = pipeline.save(run, data=f"of rank {rank}")
        found["path"] = path.name
        found["names"] = sorted(pipeline.state_dict())
        found["went on"] = trained(pipeline)
    with made() as pipeline:
        found["data"] = pipeline.load(run).data
        found["goes on"] = trained(pipeline)

        fsync, before = os.fsync, state(pipeline)

        def broken(file):
            if rank == 1:
                raise OSError(5, "Input/output error")
            fsync(file)

        os.fsync = broken
        found["failed"] = said(lambda: pipeline.save(run))
        os.fsync = fsync
        found["left"] = sorted(entry.name for entry in run.iterdir())
        pipeline.step_number += rank
        found["steps"] = said(lambda: pipeline.save(run))
        pipeline.step_number -= rank
        found["data"] = [found["data"], said(lambda: pipeline.save(run, data={1} if rank == 0 else None))]
        unseen = run if rank == 0 else folder / "elsewhere"
        found["unseen"] = said(lambda: pipeline.save(unseen))
        found["same"] = state(pipeline) == before
        if rank == 1:
            pipeline.state_dict()  # this rank's alone: no one waits for it
        found["again"] = pipeline.save(run, keep=None).name
        (folder / "gone").mkdir(exist_ok=True)
        found["none"] = said(lambda: pipeline.load(folder / "gone"))
        found["muddle"] = said(lambda: pipeline.load(run) if rank else pipeline.save(run))
    with made() as pipeline:
        twoway = build_schedule("chimera", 2, 4)
        found["rescheduled"] = trained(pipeline)
        pipeline.reschedule(pipeline.schedule, cuts=[1])
        found["names of other cuts"] = sorted(pipeline.state_dict())
        found["rescheduled"] += trained(pipeline, 1)
        before = state(pipeline)
        found["other size"] = said(lambda: pipeline.reschedule(build_schedule("1f1b", 3, 4)))
        found["other cuts"] = said(lambda: pipeline.reschedule(twoway, cuts=[1 + rank]))
        found["not in all"] = said(lambda: pipeline.reschedule("1f1b" if rank else twoway))
        found["as it was"] = state(pipeline) == before
        pipeline.reschedule(twoway)
        found["rescheduled"] += trained(pipeline, 1)
        pipeline.reschedule(build_schedule("interleaved", 2, 4, 2))
        found["rescheduled"] += trained(pipeline, 1)
    (folder / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(os.environ["RANK"]))
