"""What each process of a mesh runs: the worked example on one shape after the other, measured.

``torchrun --nproc-per-node 4 -m pipelab.teaching.parallelism.rank '{"shapes": [{"dp": 2, "pp": 2}]}'`` writes a line of
JSON for each shape: what ``meshes.MeshRun`` reads. Keys beside ``shapes``: ``setting`` (fields of ``Setting``),
``microbatch`` and ``proof`` (see :func:`measure`).
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from pipelab.errors import PipelabError
from pipelab.models import next_byte_loss
from pipelab.runtime import Pipeline
from pipelab.runtime.mesh.shape import AXES
from pipelab.runtime.mesh.traffic import TrafficCounter
from pipelab.runtime.processes.mesh import make_mesh
from pipelab.schedules import build_schedule
from pipelab.teaching.running.experiment import Setting

__all__ = ["measure"]


def measure(shape: Mapping[str, Any], setting: Setting, microbatch: int, proof: int) -> dict[str, Any]:
    """Run a mesh of ``shape``: its sizes by axis, and ``shard`` if weights are shared out over its replicas.

    What else it has are fields of ``setting`` that differ for it.

    Each replica cuts its share of the batch into micro-batches of ``microbatch`` sequences. A model of ``proof`` layers
    shows in float64 that gradients are right. Returns plain data: what each device holds, and sends in a step, over
    each axis; bubble and seconds a step are those of the first replica.
    """
    setting = replace(setting, **{key: value for key, value in shape.items() if key not in (*AXES, "shard")})
    mesh = make_mesh(**{axis: shape[axis] for axis in AXES if axis in shape})
    replicas, replica = mesh["dp"].size(), mesh["dp"].get_local_rank()
    m = math.ceil(setting.batch / replicas / microbatch)
    batch = [tensor.tensor_split(replicas)[replica] for tensor in setting.data()]
    opened = partial(_opened, mesh=mesh, m=m, shard=shape.get("shard"))
    with opened(replace(setting, dtype="float64", layers=proof)) as pipeline:
        error = pipeline.verify(*batch)
    with opened(setting, optimizer=lambda named: torch.optim.Adam([p for _, p in named])) as pipeline:
        walls = []
        for _ in range(setting.steps):
            with TrafficCounter(mesh) as counter:
                begun = time.perf_counter()
                report = pipeline.step(*batch)
                walls.append(time.perf_counter() - begun)
        memory = report.memory[pipeline.rank]
        sent = {axis: sum(found.sent for (over, _), found in counter.found.items() if over == axis) for axis in AXES}
        sent["pp"] += sum(d.size for d in report.deliveries if d.channel.source == pipeline.rank)
        own = {
            "place": [mesh[axis].get_local_rank() for axis in AXES],
            "held": asdict(memory.model_states) | {"activations": memory.activations},
            "sent": sent,
        }
        bubble = report.timeline.bubble_fraction
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    told = {"shape": dict(shape), "microbatches": m, "error": error, "bubble": bubble, "seconds": median(walls)}
    return told | {"loss": report.loss, "devices": everyone}


def _opened(setting: Setting, *, mesh: Any, m: int, shard: str | None, optimizer: Any = None) -> Pipeline:
    schedule = build_schedule("1f1b", mesh["pp"].size(), m)
    return Pipeline(
        setting.model(),
        schedule,
        loss=next_byte_loss,
        launch="processes",
        mesh=mesh,
        shard=shard,
        optimizer=optimizer,
        clock=setting.clock,
        device=setting.device,
    )


def main() -> None:
    """Measure what the first argument says."""
    torch.set_num_threads(1)
    told = json.loads(sys.argv[1])
    setting = Setting(**told.get("setting", {}))
    for shape in told["shapes"]:
        found = measure(shape, setting, told.get("microbatch", 16), told.get("proof", setting.layers))
        if dist.get_rank() == 0:
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except PipelabError as error:
        sys.exit(str(error))
