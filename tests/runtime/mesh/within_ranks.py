"""What each rank runs in tests of stages that several processes hold: ``within_ranks.py FOLDER CASE...``."""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
from itertools import product
from math import prod
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

from pipelab import Adaptive, Cluster, ModelFacts, Pipeline, build_schedule, make_mesh
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.models.shards import local, parts_of
from pipelab.runtime import unsplit_gradients
from pipelab.runtime.mesh import data
from pipelab.runtime.mesh.tensor import parallelize, sequence_parallel
from pipelab.runtime.mesh.traffic import TrafficCounter
from pipelab.runtime.processes.join import enter_world
from pipelab.tuning.shapes.memory import on_device
from pipelab.tuning.shapes.shape import Job, Shape
from tests.runtime.mesh.ranks import adam, batch, model, opened, said, share, trained

DROPOUT, CLIP, LAYERS = 0.1, 0.5, 2
SETTINGS = {"m": 2, "clip_norm": CLIP, "optimizer": adam}
MODEL = partial(model, LAYERS, dropout=DROPOUT)


def true(steps):
    return trained(steps, dropout=DROPOUT, clip=CLIP, layers=LAYERS)


def checked(mesh, name="1f1b", **more):
    """Errors of gradients, two losses, weights after two steps and an evaluation, against the unsplit model."""
    losses, weights = true(2)
    with opened(mesh, MODEL(), name, **SETTINGS | more) as pipeline:
        proof = pipeline.verify(*share(mesh, *batch()))
        told = [pipeline.step(*share(mesh, *batch(step))).loss for step in range(2)]
        state = pipeline.state_dict()
        evaluated = pipeline.evaluate(*share(mesh, *batch())).loss
        grads = pipeline.gradients()
    unsplit = MODEL()
    unsplit.load_state_dict(weights)
    plain = {name: float((state[name] - weights[name]).abs().max().detach()) for name in state}
    with torch.no_grad():
        unsplit.eval()
        x, y = batch()
        right = float(next_byte_loss(unsplit(x), y))
    assert {name: grad.shape for name, grad in grads.items()} == {n: weights[n].shape for n in grads}
    return [
        proof,
        *(abs(a - b) for a, b in zip(told, losses, strict=True)),
        max(plain.values()),
        abs(evaluated - right),
    ]


def tensor():
    """Two processes hold each layer together: all kinds of backward, and what lies between along the sequence."""
    mesh, found = make_mesh(tp=2, pp=dist.get_world_size() // 2), {}
    with opened(mesh, MODEL(), "zb-h1", m=2) as pipeline:
        found["zb-h1"] = [pipeline.verify(*batch())]
    found["1f1b"] = checked(mesh)
    found["sequence"] = checked(mesh, tensor_plan=sequence_parallel)
    return found


def sharded():
    """Two replicas share the weights out."""
    mesh, found = make_mesh(dp=2, pp=dist.get_world_size() // 2), {}
    for how in ("keep", "regather"):
        found[how] = checked(mesh, shard=how)
    return found


def both():
    mesh = make_mesh(dp=2, tp=2)
    return {
        "tensor": checked(mesh),
        "sharded": checked(mesh, shard="keep"),
        "sequence": checked(mesh, shard="regather", tensor_plan=sequence_parallel),
    }


def checkpoint(folder):
    """Saved at one shape, gone on with at another."""
    found, size = {}, dist.get_world_size()
    shapes = [
        ({"tp": 2, "pp": size // 2}, {}),
        ({"dp": 2, "pp": size // 2}, {"shard": "keep"}),
        ({"dp": size // 2, "pp": 2}, {}),
    ]
    for number, (sizes, more) in enumerate(shapes):
        mesh = make_mesh(**sizes)
        with opened(mesh, MODEL(), **SETTINGS | more) as pipeline:
            if number:
                pipeline.load(folder / "steps")
            pipeline.step(*share(mesh, *batch(number)))
            weights, right = pipeline.state_dict(), true(number + 1)[1]
            found[str(number)] = max(float((weights[name] - right[name]).abs().max().detach()) for name in weights)
            pipeline.save(folder / "steps")
    return found


class Net(nn.Sequential):
    """A model of the caller's own."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(*(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)) for _ in range(4)))
        self.double()


class Branch(nn.Module):
    """Goes one of two ways, as the data decide."""

    def __init__(self):
        super().__init__()
        self.ways = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x):
        return self.ways[int(x[0, 0] > 0)](x)


def own_plan():
    mesh = make_mesh(tp=2, pp=dist.get_world_size() // 2)
    x = torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with opened(mesh, Net(), m=2, loss=nn.MSELoss(), tensor_plan=SPLIT) as pipeline:
        found = pipeline.verify(x, x)
        held = sum(local(p).numel() for _, p in pipeline.named_parameters())
        share = held / sum(p.numel() for _, p in pipeline.named_parameters())
    made, part = Net(), {"[012].0": ColwiseParallel(), "[012].2": RowwiseParallel()}
    if dist.get_rank() % 2:  # what is not split starts from the first process's
        nn.init.normal_(made[3][0].weight)
    with opened(mesh, made, m=2, loss=nn.MSELoss(), tensor_plan=part) as pipeline:
        grads = pipeline.step(x, x) and pipeline.gradients()
    right = unsplit_gradients(Net(), nn.MSELoss(), x, x).gradients
    apart = max(float((grad - right[name]).abs().max()) for name, grad in grads.items())
    return {"verify": found, "share": share, "plain": apart}


def bytes_held():
    """What is counted is what is here: activations, weights, gradients, optimizer state."""
    found = {}
    settings = {"loss": next_byte_loss, "optimizer": adam, "device": "cpu"}
    for name, sizes, more in (
        ("unsplit", {}, {}),
        ("tp", {"tp": 2}, {"launch": "processes"}),
        ("shard", {"dp": 2}, {"launch": "processes", "shard": "keep"}),
    ):
        mesh = make_mesh(**sizes) if sizes else None
        with Pipeline(model(LAYERS), build_schedule("1f1b", 1, 2), mesh=mesh, **settings, **more) as pipeline:
            report = pipeline.step(*batch())
            here = [part for _, p in pipeline.named_parameters() for part in parts_of(p)]
            states = report.memory[0].model_states
            found[name] = [
                *(states.weights, states.gradients, states.optimizer),
                sum(part.nbytes for part in here),
                report.peak_activation_bytes[0],
            ]
    return found


def traffic():
    """Bytes of a step, counted: (kind, axis) -> [count, sent], and what formulas are made of."""
    found = {}
    cases = (
        ("tp", {"tp": 2}, {}),
        ("sequence", {"tp": 2}, {"tensor_plan": sequence_parallel}),
        ("keep", {"dp": 2}, {"shard": "keep"}),
        ("regather", {"dp": 2}, {"shard": "regather"}),
        ("dp", {"dp": 2}, {}),
    )
    for name, sizes, more in cases:
        mesh = make_mesh(**sizes)
        with opened(mesh, model(LAYERS), m=2, **more) as pipeline:
            half = [tensor[: 12 // mesh["dp"].size()] for tensor in batch()]
            with TrafficCounter(mesh) as counter:
                pipeline.step(*half)
            whole = sum(p.numel() * p.element_size() for _, p in pipeline.named_parameters())
        found[name] = {"weights": whole} | {
            f"{axis} {kind}": [one.count, one.sent] for (axis, kind), one in counter.found.items()
        }
    return found


def shapes():
    """(dp, pp, tp), each 1 or 2, of as many processes as there are."""
    return [one for one in product((1, 2), repeat=3) if prod(one) == dist.get_world_size()]


def cube():
    """Gradients, twenty steps and weights, of every shape of so many processes."""
    (losses, weights), found = true(20), {}
    for sizes in shapes():
        mesh = make_mesh(*sizes)
        with opened(mesh, MODEL(), **SETTINGS) as pipeline:
            proof = pipeline.verify(*share(mesh, *batch()))
            told = [pipeline.step(*share(mesh, *batch(step))).loss for step in range(20)]
            apart = [abs(a - b) for a, b in zip(told, losses, strict=True)]
            state = pipeline.state_dict()
            far = max(float((state[name] - weights[name]).abs().max().detach()) for name in state)
            found[str(sizes)] = [proof, max(apart), far]
    return found


def planned():
    """Bytes that a device holds in a step, over those that the planner of shapes predicts for it."""
    layers, width, heads, tokens, b, m = 24, 32, 4, 16, 4, 2
    found, facts = {}, ModelFacts.course(layers, width, heads, tokens)
    for dp, pp, tp in shapes():
        mesh, whole = make_mesh(dp, pp, tp), dp * b * m
        cluster = Cluster.of("a100", 1, per_node=dp * pp * tp)
        job = Job(facts, cluster, whole, sequence_parallel=False)
        for sharding in ("none", "parameters") if dp > 1 else ("none",):
            more = {"shard": "regather"} if sharding == "parameters" else {}
            made = TransformerLM(layers, width=width, heads=heads, tokens=tokens)
            told = on_device(job, Shape(dp, pp, tp, b, m, sharding=sharding), mesh["pp"].get_local_rank())
            with opened(mesh, made, m=m, optimizer=adam, **more) as pipeline:
                report = pipeline.step(*text_batch(0, b * m, tokens))
                found[f"{dp} {pp} {tp} {sharding}"] = report.memory[pipeline.rank].total / told.total
    return found


SPLIT = {"*.0": ColwiseParallel(), "*.2": RowwiseParallel()}


def failing(how):
    """A layer fails on all ranks, and then on one alone, while the other waits within it."""
    data._LEFT, fails, made, told = 1.0, [], Net(), []
    made[1].register_forward_pre_hook(lambda *_: 1 / 0 if fails else None)
    sizes, more = ({"tp": 2}, {"tensor_plan": SPLIT}) if how == "tp" else ({"dp": 2}, {"shard": "regather"})
    mesh, x = make_mesh(**sizes), torch.ones(12, 4, dtype=torch.float64)
    with opened(mesh, made, m=2, loss=nn.MSELoss(), **more) as pipeline:
        pipeline.step(x, x)
        if how == "tp":
            fails.append(1)
            told.append(said(lambda: pipeline.step(x, x)))
            fails.clear()
            told.append(pipeline.verify(x, x))
        fails += [1] * dist.get_rank()
        begun = time.monotonic()
        told += [said(lambda: pipeline.step(x, x)), time.monotonic() - begun]
        fails.clear()
        told.append(said(lambda: pipeline.step(x, x)))
    return [*told, said(lambda: opened(make_mesh(**sizes), Net(), m=2, loss=nn.MSELoss(), **more))]


def fails_tp():
    return failing("tp")


def fails_shard():
    return failing("shard")


def hangs():
    """A layer comes to no end on one rank, while the other waits within it; and then both processes end."""
    mesh, made, x = make_mesh(tp=2), Net(), torch.ones(12, 4, dtype=torch.float64)
    made[1].register_forward_pre_hook(lambda *_: time.sleep(100 * dist.get_rank()))
    with opened(mesh, made, m=2, loss=nn.MSELoss(), tensor_plan=SPLIT, time_limit=2) as pipeline:
        found = said(lambda: pipeline.step(x, x))
    if dist.get_rank():
        time.sleep(2)
    else:
        globals()["late"] = Late()
    return found


class Late:
    """Keeps the interpreter's end from coming to an end."""

    def __del__(self, wait=time.sleep):
        wait(5)


def watched():
    """Which steps a monitor hears of, and what is said of moving layers that are split."""
    mesh, heard = make_mesh(tp=2, pp=dist.get_world_size() // 2), []
    monitor = SimpleNamespace(observe=lambda report, seconds: heard.append(report.step))
    with opened(mesh, MODEL(), m=2, monitor=monitor) as pipeline:
        pipeline.step(*batch())
        return {"heard": heard, "moves": said(lambda: Adaptive(pipeline))}


def at_once(named):
    return torch.optim.AdamW([p for _, p in named], foreach=True)


def refused():
    size = dist.get_world_size()
    slices, replicas = make_mesh(tp=2, pp=size // 2), make_mesh(dp=2, pp=size // 2)
    threes = make_mesh(tp=2, pp=size // 2)
    told = [
        said(lambda: opened(replicas, MODEL(), tensor_plan={"*": ColwiseParallel()})),
        said(lambda: opened(slices, MODEL(), shard="keep")),
        said(lambda: opened(replicas, MODEL(), shard="always")),
        said(lambda: opened(replicas, MODEL(), "zb-h1", m=2, shard="keep")),
        said(lambda: opened(slices, MODEL(), tensor_plan={"nothing": ColwiseParallel()})),
        said(lambda: opened(slices, Net(), loss=nn.MSELoss())),
        said(lambda: parallelize(model(layers=1, heads=1), threes["tp"])),
        said(lambda: Pipeline(MODEL(), build_schedule("1f1b", 2, 2), loss=next_byte_loss, shard="keep")),
        said(lambda: opened(slices, MODEL(), m=2, optimizer=at_once)),
    ]
    with opened(slices, MODEL(), m=2) as pipeline:
        told.append(said(lambda: pipeline.reschedule(build_schedule("gpipe", size // 2, 2))))
    with opened(slices, MODEL(), m=2, tensor_plan=sequence_parallel) as pipeline:
        x, y = batch()
        told.append(said(lambda: pipeline.step(x[:, :7], y[:, :7])))
    tied = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False))
    tied[2].weight = tied[0].weight
    told.append(said(lambda: opened(slices, tied, loss=nn.MSELoss(), tensor_plan={"2": ColwiseParallel()})))
    drops = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    told.append(said(lambda: opened(slices, drops, loss=nn.MSELoss(), tensor_plan={"0": ColwiseParallel()})))
    mixed = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).double()))
    told.append(said(lambda: opened(replicas, mixed, loss=nn.MSELoss(), shard="keep")))
    sign = 1 - 2 * replicas["dp"].get_local_rank()
    with opened(replicas, nn.Sequential(Branch(), nn.Linear(4, 4)), loss=nn.MSELoss(), shard="keep") as pipeline:
        told.append(said(lambda: pipeline.step(sign * torch.ones(3, 4), torch.ones(3, 4))))
    return told


def main():
    torch.set_num_threads(1)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    enter_world()
    folder = Path(sys.argv[1])
    found = {case: checkpoint(folder) if case == "checkpoint" else globals()[case]() for case in sys.argv[2:]}
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
