"""What each rank of a mesh runs in tests under torchrun: ``ranks.py FOLDER CASE...``; results go to FOLDER as JSON."""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from pipelab import Pipeline, TrafficCounter, build_schedule, make_mesh
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.runtime import unsplit_gradients
from pipelab.runtime.processes.join import enter_world
from tests.runtime.setup import test_ties as ties

STEPS = 5
SHARES = {1: (0, 12), 2: (0, 5, 12), 4: (0, 2, 4, 7, 12), 8: (0, 1, 3, 4, 6, 7, 9, 10, 12)}


def adam(named):
    return torch.optim.AdamW([p for _, p in named], lr=0.01)


def model(layers=8, **more):
    torch.manual_seed(3)
    return TransformerLM(layers, **{"width": 16, "heads": 2, "tokens": 8, **more}).double()


def batch(number=0):
    return text_batch(number, 12, tokens=8)


def share(mesh, *tensors):
    """This replica's part: shares are uneven."""
    bounds, replica = SHARES[mesh["dp"].size()], mesh["dp"].get_local_rank()
    return [tensor[bounds[replica] : bounds[replica + 1]] for tensor in tensors]


def opened(mesh, made, name="1f1b", *, launch="processes", m=1, devices=None, **settings):
    devices = devices or (mesh["pp"].size() if launch == "processes" else 2)
    settings = {"loss": next_byte_loss, "clock": "wall", "device": "cpu"} | settings
    return Pipeline(made, build_schedule(name, devices, m), launch=launch, mesh=mesh, **settings)


def trained(steps, dropout=0.0, clip=0.5, layers=8):
    """The unsplit model on whole batches: (losses, weights)."""
    made, losses = model(layers, dropout=dropout), []
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.01)
    for step in range(steps):
        found = unsplit_gradients(made, next_byte_loss, *batch(step), seed=0, step=step)
        for name, p in made.named_parameters():
            p.grad = found.gradients[name]
        torch.nn.utils.clip_grad_norm_(made.parameters(), clip)
        optimizer.step()
        losses.append(found.loss)
    return losses, dict(made.named_parameters())


def apart(pipeline, true):
    """The largest difference of weights that live here."""
    return max(float((p - true[name]).abs().max().detach()) for name, p in pipeline.named_parameters())


def said(work):
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def meshes():
    """All shapes of dp x pp for so many processes."""
    size = dist.get_world_size()
    return {(dp, size // dp): make_mesh(dp=dp, pp=size // dp) for dp in (1, 2, 4, 8) if size % dp == 0}


def parity():
    """The proof, for schedules of all kinds and uneven shares, against the unsplit model on the whole batch."""
    found = {}
    for (dp, pp), mesh in meshes().items():
        names = ["gpipe", "1f1b"] + (["interleaved", "zb-h1", "chimera"] if (dp, pp) == (2, 2) else [])
        for name in names if dp > 1 else ["1f1b"]:
            with opened(mesh, model(dropout=0.1), name, m=1 if dp > 2 else 2) as pipeline:
                found[f"{name} {dp} {pp}"] = pipeline.verify(*share(mesh, *batch()))
    return found


def training():
    """Steps with clipping and dropout."""
    mesh, losses = make_mesh(dp=2, pp=dist.get_world_size() // 2), trained(STEPS, dropout=0.1)[0]
    torch.manual_seed(dist.get_rank())  # replicas start from the first one's weights
    made = model(dropout=0.1)
    if mesh["dp"].get_local_rank():
        for parameter in made.parameters():
            nn.init.normal_(parameter)
    with opened(mesh, made, m=2, clip_norm=0.5, optimizer=adam) as pipeline:
        told = [pipeline.step(*share(mesh, *batch(step))).loss for step in range(STEPS)]
        report = pipeline.step(*share(mesh, *batch()))
        moved = [one.size for one in report.reductions]
        shown = [(one.kind, one.source, one.sent < one.arrived) for one in report.timeline.sums]
        largest = max(abs(a - b) for a, b in zip(told, losses, strict=True))
        size = sum(p.nbytes + p.element_size() for p in made.parameters())  # and a word of each: whether it has one
        with opened(mesh, made, m=2, clip_norm=0.5, optimizer=adam) as other:
            evaluated = other.evaluate(*share(mesh, *batch())).loss
    return {"losses": largest, "sent": sum(moved), "size": size, "evaluated": evaluated, "shown": shown}


def weights():
    mesh = make_mesh(dp=2, pp=dist.get_world_size() // 2)
    with opened(mesh, model(), m=2, clip_norm=0.5, optimizer=adam) as pipeline:
        for step in range(3):
            pipeline.step(*share(mesh, *batch(step)))
        first = apart(pipeline, trained(3)[1])
        pipeline.reschedule(build_schedule("gpipe", pipeline.schedule.devices, 2), cuts=[2])
        pipeline.step(*share(mesh, *batch(3)))
        return [first, apart(pipeline, trained(4)[1])]


def checkpoint(folder):
    """Saved at one shape, gone on with at another."""
    found, both = {}, {"clip_norm": 0.5, "optimizer": adam, "m": 2}
    mesh = make_mesh(dp=2, pp=2)
    with opened(mesh, model(), **both) as pipeline:
        pipeline.step(*share(mesh, *batch(0)))
        saved = pipeline.save(folder / "two").name
    for dp, pp in ((1, 4), (4, 1)):
        other = make_mesh(dp=dp, pp=pp)
        with opened(other, model(layers=8), **both | {"m": 1 if dp == 4 else 2}) as pipeline:
            pipeline.load(folder / "two")
            pipeline.step(*share(other, *batch(1)))
            found[f"{dp} {pp}"] = apart(pipeline, trained(2)[1])
    return {"saved": saved, "apart": found}


class Fails(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.fails = inner, False

    def forward(self, x):
        if self.fails:
            raise ValueError("this layer has had enough")
        return self.inner(x)


def failing():
    """A layer of one replica raises in the middle of a step: all raise, and the next step is right."""
    mesh = make_mesh(dp=2, pp=dist.get_world_size() // 2)
    told = []
    made = nn.Sequential(*(Fails(nn.Linear(4, 4)) for _ in range(4))).double()
    x = torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with opened(mesh, made, m=3, loss=nn.MSELoss()) as pipeline:
        pipeline.step(*share(mesh, x, x))
        for layer in (0, 3):
            made[layer].fails = mesh["dp"].get_local_rank() == 1
            told.append(said(lambda: pipeline.step(*share(mesh, x, x))))
            made[layer].fails = False
            told.append(pipeline.verify(*share(mesh, x, x)))
        if mesh["dp"].get_local_rank() == 1:
            told.append(said(lambda: pipeline.evaluate(*share(mesh, x, x))))
        else:
            told.append(said(lambda: pipeline.step(*share(mesh, x, x))))
        told.append(said(lambda: pipeline.step(share(mesh, x)[0], share(mesh, x)[0][1:])))
        made[0].inner.weight.requires_grad_(mesh["dp"].get_local_rank() == 0)
        told.append(said(lambda: pipeline.step(*share(mesh, x, x))))
        made[0].inner.weight.requires_grad_(True)
        told.append(pipeline.verify(*share(mesh, x, x)))
    return told


class Notes(nn.Module):
    """Notes down in a buffer that it has seen a share of seven."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seven", torch.zeros(2, dtype=torch.int64))

    def forward(self, x):
        self.seven[1] += len(x) == 7
        return x


def buffers():
    """After each step those of the first replica, also where only the other's have changed."""
    mesh = make_mesh(dp=2, pp=dist.get_world_size() // 2)
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(4, 4), Notes(), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4)).double()
    first, x = copy.deepcopy(made), torch.randn(12, 4, generator=torch.Generator().manual_seed(0)).double()
    first(x[:5])
    with opened(mesh, made, m=1, loss=nn.MSELoss(), cuts=[3], optimizer=adam) as pipeline:
        pipeline.step(*share(mesh, x, x))
        right = first.state_dict()
        apart = [float((b - right[name]).abs().max()) for name, b in pipeline.state_dict().items() if "run" in name]
        pipeline.step(*share(mesh, x, x))
        told = {name: b.tolist() for name, b in pipeline.state_dict().items()}
        return {"apart": max(apart), "told": told, "loss": pipeline.evaluate(*share(mesh, x, x)).loss}


def lazily(named):
    params = [p for _, p in named]
    return (torch.optim.SparseAdam if len(params[0]) == 9 else torch.optim.Adam)(params, lr=0.01)


def sparse():
    """Rows of an embedding, as SparseAdam takes them: some are in one replica alone, some in none."""
    mesh = make_mesh(dp=2, pp=dist.get_world_size() // 2)
    torch.manual_seed(0)
    made = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Linear(4, 4)).double()
    whole, y = copy.deepcopy(made), torch.randn(12, 4, generator=torch.Generator().manual_seed(0)).double()
    optimizers = [lazily(part.named_parameters()) for part in whole]
    with opened(mesh, made, m=2, loss=nn.MSELoss(), optimizer=lazily) as pipeline:
        for step in range(3):
            x = (torch.arange(12) + 3 * step) % (6 + step)
            pipeline.step(*share(mesh, x, y))
            whole.zero_grad()
            nn.functional.mse_loss(whole(x), y).backward()
            for one in optimizers:
                one.step()
        grads = [p.grad for _, p in pipeline.named_parameters()]
        rows = [grad._indices()[0].tolist() for grad in grads if grad.layout == torch.sparse_coo]
        return {"apart": apart(pipeline, dict(whole.named_parameters())), "rows": rows}


def terms():
    """A replica none of whose targets counts; ties; a stage that builds itself."""
    mesh, loss = make_mesh(dp=2, pp=dist.get_world_size() // 2), nn.CrossEntropyLoss(ignore_index=-1)
    made = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3)).double()
    x = torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(12) % 3
    y[5:] = -1
    y[2] = -1
    with opened(mesh, made, m=2, loss=loss) as pipeline:
        found = [pipeline.verify(*share(mesh, x, y))]
        found.append(said(lambda: pipeline.step(*share(mesh, x, torch.full_like(y, -1)))))
        found.append(pipeline.verify(*share(mesh, x, y)))
    with opened(mesh, ties.LM(), m=2, loss=ties.loss) as pipeline:
        found.append(pipeline.verify(*share(mesh, *ties.batch(12))))
    return found


def threads():
    """Every process is a replica whose devices are threads."""
    mesh, found = make_mesh(dp=dist.get_world_size()), {}
    for name in ("1f1b", "interleaved", "chimera", "zb-v"):
        with opened(mesh, model(dropout=0.1), name, launch="threads", m=2, devices=2) as pipeline:
            found[name] = pipeline.verify(*share(mesh, *batch()))
    with opened(mesh, model(), launch="threads", m=2, clip_norm=0.5, optimizer=adam) as pipeline:
        for step in range(3):
            report = pipeline.step(*share(mesh, *batch(step)))
        found["weights"] = apart(pipeline, trained(3)[1])
        found["stages"] = sorted(one.stage for one in report.reductions)
        with TrafficCounter(mesh) as counter:
            sums = pipeline.step(*share(mesh, *batch(3))).reductions
        found["sums"] = [sum(one.size for one in sums), *(one.sent for one in counter.found.values())]
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        with opened(mesh, model(), launch="threads", m=2) as pipeline, opened(mesh, model(), launch="threads") as other:
            found["again"] = max(one.verify(*share(mesh, *batch())) for one in (pipeline, other))
    found["left open"] = len(os.listdir("/dev/fd")) - before
    return found


def refused():
    """What cannot be, on all ranks alike, before anything starts."""
    size = dist.get_world_size()
    mesh = make_mesh(dp=2, pp=size // 2)
    step = partial(opened, mesh, model())
    return [
        said(lambda: make_mesh(dp=3, pp=2)),
        said(lambda: opened(mesh, model(), devices=4)),
        said(lambda: opened(mesh, model(), launch="threads", devices=2)),
        said(lambda: step("2bw", m=4, optimizer=adam)),
        said(lambda: step(m=2, optimizer=adam, clip_norm=1.0, post_validation=True)),
        said(lambda: step(m=2, clip_norm=0.1 * (1 + mesh["dp"].get_local_rank()))),
        said(lambda: step(m=2, optimizer=None if dist.get_rank() == size - 1 else adam)),
        said(lambda: Pipeline(model(), build_schedule("1f1b", 2, 2), loss=next_byte_loss, mesh="2x2")),
    ]


class Ends(nn.Module):
    """Its last call ends the process, or hangs."""

    def __init__(self, how):
        super().__init__()
        self.layer, self.how, self.calls = nn.Linear(4, 4), how, 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 6:
            self.how()
        return self.layer(x)


def lost(how):
    """The last rank comes to no end in its second step: what the others hear then, and in the next step."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends those who are left
    mesh, last = make_mesh(dp=2, pp=2), dist.get_world_size() - 1
    way = how if dist.get_rank() == last else bool
    made = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), Ends(way))
    x = torch.randn(12, 4)
    with opened(mesh, made, m=3, loss=nn.MSELoss(), time_limit=3) as pipeline:
        step = partial(pipeline.step, *share(mesh, x, x))
        step()
        return [said(step), said(step)]


def killed():
    return lost(lambda: os.kill(os.getpid(), signal.SIGKILL))


def hangs():
    return lost(lambda: time.sleep(60))


def main():
    torch.set_num_threads(1)
    enter_world()
    folder = Path(sys.argv[1])
    found = {}
    for case in sys.argv[2:]:
        found[case] = checkpoint(folder) if case == "checkpoint" else globals()[case]()
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
