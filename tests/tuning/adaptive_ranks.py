"""What ``test_adaptive.py`` runs on each rank under torchrun; what is found goes to ``FOLDER/RANK.json``."""

import json
import os
import sys
from pathlib import Path

from pipelab import Adaptive, build_schedule, make_mesh
from tests.runtime.small import Work
from tests.tuning.test_adaptive import batch, layers, made

if __name__ == "__main__":
    told, replicas = [], int(sys.argv[2])
    mesh = make_mesh(dp=replicas, pp=2) if replicas > 1 else None
    model = layers(Work, 0.0005)
    with made(model, build_schedule("1f1b", 2, 4), launch="processes", mesh=mesh) as pipeline:
        adaptive = Adaptive(pipeline, every=2, told=told.append)
        losses = []
        for step in range(8):
            share = (tensor.tensor_split(replicas)[pipeline.replica] for tensor in batch(step))
            losses.append(adaptive.step(*share).loss)
            if (pipeline.replica, pipeline.rank) == (replicas - 1, 1):
                for layer in model:
                    layer.seconds = 0.0025
    sizes = [adaptive.history[0].before.sizes, *(one.after.sizes for one in adaptive.history)]
    took = [one.after.measured for one in adaptive.history]
    found = {"sizes": sizes, "took": took, "told": len(told), "losses": losses}
    Path(sys.argv[1], f"{os.environ['RANK']}.json").write_text(json.dumps(found))
