"""What each rank runs in tests under torchrun: ``ranks.py FOLDER CASE...``; results go to FOLDER as JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from pipelab import Schedule, build_schedule
from pipelab.errors import PipelabError
from pipelab.models import transformer_stage
from pipelab.runtime import Pipeline, gradient_error, unsplit_gradients
from pipelab.runtime.faults.where import LOOKING, UPDATING
from pipelab.runtime.processes import group as group_module
from pipelab.runtime.processes.wires import lines as lines_module
from pipelab.runtime.processes.wires.home import address
from tests import tables
from tests.runtime.setup import test_ties as ties
from tests.runtime.small import data, mlp, mse, tuple_net

RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def opened(model, schedule, **settings):
    return Pipeline(model, schedule, loss=mse, launch="processes", device="cpu", **settings)


def adam(named):
    return torch.optim.Adam([p for _, p in named], lr=0.01)


def sgd(named):
    return torch.optim.SGD([p for _, p in named], lr=0.05)


def said(work):
    """What ``work`` raises, as text."""
    try:
        work()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def parity():
    """Every schedule, inputs on rank 0 and targets on the last rank only; whole weights gathered on rank 0."""
    found = {}
    for name in ("naive", "gpipe", "1f1b", "interleaved"):
        m = 2 * SIZE if name == "interleaved" else 5
        schedule = build_schedule(name, devices=SIZE, microbatches=m, recompute=name == "gpipe")
        model, unsplit = (tuple_net(layers=2 * SIZE, dropout=0.1) for _ in range(2))
        batches = [data(23, seed=seed) for seed in range(3)]
        with opened(model, schedule, optimizer=adam, seed=3) as pipeline:
            assert pipeline.rank == RANK
            reference = unsplit_gradients(unsplit, mse, *batches[0], seed=3)
            for step, (x, y) in enumerate(batches):
                report = pipeline.step(x if RANK == 0 else None, y if RANK == SIZE - 1 else None)
                if step == 0:
                    grads = pipeline.gather(pipeline.gradients())
                    first = report.loss
            error = pipeline.verify(x if RANK == 0 else None, y if RANK == SIZE - 1 else None)
            weights = pipeline.gather(pipeline.state_dict())
        with Pipeline(unsplit, schedule, loss=mse, optimizer=adam, seed=3, device="cpu") as threads:
            for x, y in batches:
                same = threads.step(x, y)
        found[name] = {
            "loss": report.loss == same.loss and abs(first - reference.loss) < 1e-9,
            "verify": error,
            "messages": report.timeline.message_count,
            "peaks": list(report.peak_activation_bytes) == list(same.peak_activation_bytes),
        }
        if RANK == 0:
            found[name]["gradients"] = gradient_error(grads, reference.gradients)
            found[name]["weights"] = all(torch.equal(weights[n], t) for n, t in unsplit.state_dict().items())
        else:
            assert grads is None
    return found


def flushless():
    """Schedules without a flush train, bit for bit, as threads do; what is under way is drained on all ranks."""
    found = {}
    for name in ("pipedream", "vertical-sync", "2bw"):
        model, alike = (tuple_net(layers=2 * SIZE, dropout=0.1) for _ in range(2))
        batches, schedule = [data(9, seed=seed) for seed in range(4)], build_schedule(name, SIZE, 4)
        with opened(model, schedule, optimizer=adam, seed=3) as pipeline:
            for x, y in batches:
                report = pipeline.step(x if RANK == 0 else None, y if RANK == SIZE - 1 else None)
            under_way, refused = pipeline.under_way, said(lambda: pipeline.save(Path("nowhere")))
            pipeline.drain()
            weights = pipeline.gather(pipeline.state_dict())
        with Pipeline(alike, schedule, loss=mse, optimizer=adam, seed=3, device="cpu") as threads:
            for x, y in batches:
                same = threads.step(x, y)
        true = threads.state_dict()
        found[name] = {
            "loss": report.loss == same.loss,
            "versions": report.weight_versions,
            "under_way": under_way,
            "refused": refused,
            "weights": weights is None or all(torch.equal(weights[key], true[key]) for key in true),
        }
    return found


def halfway():
    """Rank 0 fails in its last update, when the others are through; then another rank leaves by an exception."""

    class Late(torch.optim.SGD):
        updates = 0

        def step(self, closure=None):
            self.updates += 1
            if RANK == 0 and self.updates == 2:
                time.sleep(0.3)
                raise ValueError("late")
            return super().step(closure)

    model, alike, found = mlp(), mlp(), {}
    schedule, batches = (
        build_schedule("pipedream", SIZE, SIZE + 1),
        [data(2 * SIZE + 2, seed=seed) for seed in range(3)],
    )
    with opened(model, schedule, optimizer=lambda named: Late([p for _, p in named], lr=0.05)) as pipeline:
        found["late"] = said(lambda: pipeline.step(*batches[0]))
        found["under_way"] = pipeline.under_way
        found["refused"] = said(lambda: pipeline.save(Path("nowhere")))
        everyones = [pipeline.gather(pipeline.state_dict())]
        dist.broadcast_object_list(everyones)
        alike.load_state_dict(everyones[0])
        for x, y in batches[1:]:
            pipeline.step(x, y)
        pipeline.drain()
        weights = pipeline.gather(pipeline.state_dict())
    with Pipeline(alike, schedule, loss=mse, optimizer=sgd, device="cpu") as threads:
        for x, y in batches[1:]:
            threads.step(x, y)
    true = alike.state_dict()
    found["weights"] = weights is None or all(torch.equal(weights[key], true[key]) for key in true)

    def leave():
        with opened(mlp(), schedule, optimizer=adam) as pipeline:
            pipeline.step(*batches[0])
            if RANK == 1:
                raise KeyError("left")
            try:
                pipeline.step(*batches[1])
            finally:
                found["left_under_way"] = pipeline.under_way

    found["left"] = said(leave)
    return found


def local_stages():
    """build_stage is called for the stages that live here, and for no others."""
    built = []

    def build_stage(s):
        built.append(s)
        return transformer_stage(s, 2 * SIZE, layers=2 * SIZE, width=8, heads=2, tokens=4).double()

    schedule = build_schedule("interleaved", devices=SIZE, microbatches=SIZE)
    with opened(build_stage, schedule) as pipeline:
        names = [name for name, _ in pipeline.named_parameters()]
        whole = pipeline.gather(pipeline.state_dict())
        if whole is not None:
            whole = {name: tensor + 1 for name, tensor in whole.items()}
        everyones = [whole]
        dist.broadcast_object_list(everyones)
        pipeline.load_state_dict(everyones[0])
        loaded = all(torch.equal(p, everyones[0][n]) for n, p in pipeline.named_parameters())
        short = {name: t for name, t in everyones[0].items() if name != "head.norm.bias"}
        refused = said(lambda: pipeline.load_state_dict(short))
    return {"built": built, "names": names, "loaded": loaded, "refused": refused}


def failures():
    """An error on one rank is the same error on all, and the pipeline goes on."""
    schedule = build_schedule("1f1b", devices=SIZE, microbatches=4)
    model, broken = mlp(), []
    if RANK == SIZE - 1:
        model[7].register_forward_pre_hook(lambda *_: None if broken else 1 / 0)
    broken.append(1)
    x, y = data(8)
    found = {}
    with opened(model, schedule, optimizer=adam) as pipeline:
        found["good"] = pipeline.step(x, y).loss
        broken.clear()
        found["stage"] = said(lambda: pipeline.step(x, y))
        broken.append(1)
        found["again"] = pipeline.step(x, y).loss
        found["batch"] = said(lambda: pipeline.step(x[: 8 - (RANK == 1)], y[: 8 - (RANK == 1)]))
        found["inputs"] = said(lambda: pipeline.step(None, y))
        found["what"] = said(lambda: pipeline.step(x, y) if RANK else pipeline.evaluate(x, y))
        found["end"] = pipeline.step(x, y).loss
    return found


def disagreements():
    """Ranks that build different things are told so before step 1."""
    odd = RANK == SIZE - 1
    one, other = (build_schedule(name, devices=SIZE, microbatches=4) for name in ("1f1b", "gpipe"))
    swapped = one.to_csv().replace("0B0,0F2", "0F2,0B0", 1) if SIZE == 2 else one.to_csv()
    renamed = type(one).from_csv(swapped, name="1f1b")
    wider = mlp(width=7 if odd else 6)
    return {
        "schedule": said(lambda: opened(mlp(), other if odd else one)),
        "slot": said(lambda: opened(mlp(), renamed if odd else one)),
        "layers": said(lambda: opened(wider, one)),
        "seed": said(lambda: opened(mlp(), one, seed=int(odd))),
        "tied": said(lambda: opened(mlp(), one, tied=[("0.0.weight", "1.0.weight")] if odd else [])),
        "scaler": said(
            lambda: opened(mlp(), one, optimizer=adam, grad_scaler=torch.amp.GradScaler("cpu") if odd else None)
        ),
        "devices": said(lambda: opened(mlp(), build_schedule("1f1b", devices=SIZE + 1, microbatches=4))),
        "fine": said(lambda: opened(mlp(), one).close()),
    }


def two_way():
    """Each stage lives on both ranks, and both tell of it when a step is proved."""
    table = tables.read(tables.TWO_WAY)
    model = mlp()
    halves = [nn.Sequential(*model[:4]), nn.Sequential(*model[4:])]
    with opened(model, table) as whole, opened(lambda s: halves[s], table) as built:
        return [whole.verify(*data(8)), built.verify(*data(8))]


def clocks():
    """Ranks of another host, whose clock is 100 s ahead, come back in rank 0's time."""
    ahead = 100.0 if SIZE // 2 <= RANK else 0.0
    real = time.perf_counter
    time.perf_counter = lambda: real() + ahead
    group_module.host_id.cache_clear()
    group_module.host_id = lambda: f"host {ahead}"
    schedule = build_schedule("1f1b", devices=SIZE, microbatches=4)
    begun = real()
    with opened(mlp(), schedule, clock="wall") as pipeline:
        for _ in range(3):
            report = pipeline.step(*data(8))
        offsets, slack = pipeline._engine.peers.clock_offsets()
        modelled = said(lambda: opened(mlp(), schedule, clock="wall", latency=0.1).step(*data(8)))
    first = min(log.readings.host_start[0] for log in report.logs)
    last = max(log.readings.host_end[-1] for log in report.logs)
    return {
        "offsets": [round(offset) for offset in offsets],
        "slack": slack,
        "on rank 0's clock": begun <= first + 1 and last <= real() + 1,
        "makespan": report.wall.makespan,
        "bubble": report.timeline.bubble_fraction,
        "modelled": modelled,
    }


def mesh():
    """Two pipelines of two devices beside each other, each on half of the batch: data parallelism around them."""
    grid = init_device_mesh("cpu", (SIZE // 2, 2), mesh_dim_names=("data", "pipeline"))
    model, (x, y) = tuple_net(layers=6), data(16)
    part = slice(8 * grid.get_local_rank("data"), 8 * grid.get_local_rank("data") + 8)
    schedule = build_schedule("1f1b", devices=2, microbatches=4)
    with opened(model, schedule, group=grid.get_group("pipeline")) as pipeline:
        report = pipeline.step(x[part], y[part])
        for _, parameter in pipeline.named_parameters():
            dist.all_reduce(parameter.grad, group=grid.get_group("data"))
            parameter.grad /= SIZE // 2
        reference = unsplit_gradients(model, mse, x, y)
        own = {name: reference.gradients[name] for name, _ in pipeline.named_parameters()}
        error = gradient_error(pipeline.gradients(), own)
        size = said(lambda: opened(mlp(), build_schedule("1f1b", 3, 3), group=grid.get_group("pipeline")))
    return {"error": error, "rank": pipeline.rank, "messages": report.wall.message_count, "size": size}


def dies():
    """A rank that is gone is noticed by the others."""
    schedule = build_schedule("1f1b", devices=SIZE, microbatches=4)
    pipeline = opened(mlp(), schedule)
    pipeline.step(*data(8))
    if RANK == 1:
        os._exit(0)
    return {"said": said(lambda: pipeline.step(*data(8)))}


class Once(nn.Module):
    """Does ``work`` in the first forward after it was armed."""

    def __init__(self, work):
        super().__init__()
        self.work, self.armed = work, False

    def forward(self, x):
        if self.armed:
            self.armed = False
            self.work()
        return x * 1


def trained(work, *, limit=2.0):
    """A pipeline of which device 1 does ``work`` in its second step, and what that came to."""
    model, once = mlp(), Once(work)
    model[3] = nn.Sequential(model[3], once)
    pipeline = opened(
        model, build_schedule("1f1b", devices=SIZE, microbatches=4), cuts=range(2, 2 * SIZE, 2), time_limit=limit
    )
    pipeline.step(*data(8))
    once.armed = RANK == 1
    begun = time.monotonic()
    return {"said": said(lambda: pipeline.step(*data(8))), "seconds": time.monotonic() - begun}


def quits():
    """A rank that ends in the middle of an action."""
    return trained(lambda: os._exit(0), limit=20)


def stuck():
    """An action that does not return, though its process answers."""
    return trained(lambda: time.sleep(6))


def stopped():
    """A process that is stopped; another continues it once it has seen."""
    found = trained(lambda: halt("stopped"))
    go_on("stopped")
    return found


def halt(key):
    """Stop this process until rank 0 says ``go_on``."""
    dist.distributed_c10d._get_default_store().set(key, str(os.getpid()))
    os.kill(os.getpid(), signal.SIGSTOP)


def go_on(key):
    if RANK == 0:
        os.kill(int(dist.distributed_c10d._get_default_store().get(key)), signal.SIGCONT)


def outside():
    """A rank that is stopped in its update, where others wait for what it says."""

    class Stops(torch.optim.SGD):
        def step(self, closure=None):
            if RANK == SIZE - 1:
                halt("outside")
            return super().step(closure)

    schedule = build_schedule("1f1b", devices=SIZE, microbatches=4)
    pipeline = opened(mlp(), schedule, optimizer=lambda named: Stops([p for _, p in named], lr=0.1), time_limit=1.5)
    found = {"said": said(lambda: pipeline.step(*data(8)))}
    go_on("outside")
    return found


def lending():
    """A rank that is stopped before its step, where it would be handed a tied parameter."""
    return handing("lending", LOOKING)


def collecting():
    """A rank that is stopped where another waits for its share of the gradient of a tied parameter."""
    return handing("collecting", UPDATING)


def handing(key, phase):
    """A rank that is stopped in handing over, in one phase of its second step."""
    x, y = ties.batch()
    schedule = build_schedule("1f1b", SIZE, 2)
    pipeline = Pipeline(ties.LM(), schedule, loss=ties.loss, launch="processes", device="cpu", time_limit=1.5)
    pipeline.step(x, y)
    plain = group_module.Group.hand_over

    def hand_over(group, *told):
        if RANK == SIZE - 1 and group.whereabouts[RANK] == phase:
            halt(key)
        plain(group, *told)

    group_module.Group.hand_over = hand_over
    try:
        found = {"said": said(lambda: pipeline.step(x, y))}
    finally:
        group_module.Group.hand_over = plain
    go_on(key)
    return found


def deadlock():
    """A table that the checker would refuse: two devices in the middle wait for one another."""
    early = SIZE // 2 - 1
    before, there, behind = "F0 F1 F2 B0 B1 B2", "F0 B0 F1 B1 F2 B2", "F0 B0 F1 F2 B1 B2"
    orders = [before if s < early else there if s == early else behind for s in range(SIZE)]
    rows = [[f"{s}{action}" for action in order.split()] for s, order in enumerate(orders)]
    pipeline = opened(mlp(), Schedule.from_rows(rows, name="ring"), check=False)
    begun = time.monotonic()
    return {"said": said(lambda: pipeline.step(*data(9))), "seconds": time.monotonic() - begun}


def listening():
    """Where the ranks of one host can be reached."""
    with opened(mlp(), build_schedule("1f1b", devices=SIZE, microbatches=4)) as pipeline:
        pipeline.step(*data(8))
        found = psutil.Process().net_connections("inet")
        return sorted({one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN})


def patience():
    """Ranks wait for each other as long as it takes once they have met; before that, a missing one is named."""
    schedule = build_schedule("1f1b", devices=SIZE, microbatches=4)
    before = group_module.CONNECT, group_module.ROLL_CALL
    group_module.CONNECT = timedelta(seconds=3)
    with opened(mlp(), schedule, optimizer=adam) as pipeline:
        first = pipeline.step(*data(8)).loss
        if RANK == 0:
            time.sleep(5)
        second = pipeline.step(*data(8)).loss
    group_module.ROLL_CALL = timedelta(seconds=2)
    if RANK == 0:
        time.sleep(4)
    missing = said(lambda: opened(mlp(), schedule))
    group_module.CONNECT, group_module.ROLL_CALL = before
    return {"falls": second < first, "missing": missing}


def watched():
    """A rank that fails says so in the store, for backends whose waits do not end by themselves."""
    lines_module.WATCHED = ("gloo",)
    group_module.address = lambda host: RANK
    schedule = build_schedule("1f1b", devices=SIZE, microbatches=4)
    model, broken = mlp(), []
    if RANK == 1:
        model[3].register_forward_pre_hook(lambda *_: 1 / 0 if broken else None)
    with opened(model, schedule) as pipeline:
        pipeline.step(*data(8))
        lines = pipeline._engine.peers._lines
        broken.append(1)
        told = said(lambda: pipeline.step(*data(8)))
        seen = lines._store.check(["failed"])
        broken.clear()
        again = said(lambda: pipeline.step(*data(8)))
    lines_module.WATCHED, group_module.address = ("nccl",), address
    return {"told": told, "seen": seen, "again": again}


def muddle():
    """Ranks that call different things are told so."""
    schedule = build_schedule("1f1b", devices=SIZE, microbatches=4)
    pipeline = opened(mlp(), schedule)
    state = mlp().state_dict()
    return said(lambda: pipeline.step(*data(8)) if RANK else pipeline.load_state_dict(state))


def frozen():
    """Stage 0 is frozen: what comes back to it is empty, and still in order."""
    schedule = build_schedule("1f1b", devices=SIZE, microbatches=4)
    model, twin = mlp(), mlp()
    for net in (model, twin):
        for parameter in net[: 8 // SIZE].parameters():
            parameter.requires_grad_(False)
    with opened(model, schedule, optimizer=adam) as pipeline:
        losses = [pipeline.step(*data(8)).loss for _ in range(3)]
    with Pipeline(twin, schedule, loss=mse, optimizer=adam, device="cpu") as threads:
        return losses == [threads.step(*data(8)).loss for _ in range(3)]


class Growing(nn.Module):
    """Gives one column more at each call."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return torch.cat([x] * self.calls, 1)


def growing():
    """Shapes that depend on more than sizes."""
    model = nn.Sequential(nn.Linear(5, 6), Growing(), *(nn.AdaptiveAvgPool1d(3) for _ in range(SIZE - 2))).double()
    with opened(model, build_schedule("gpipe", devices=SIZE, microbatches=2), cuts=range(1, SIZE)) as pipeline:
        return said(lambda: pipeline.step(*data(8)))


def tied():
    """An embedding that is also the head: two ranks hold it, one steps it, and what is saved is the whole model's."""
    schedule = build_schedule("1f1b", devices=SIZE, microbatches=6)
    x, y = ties.batch()
    found = {}
    with Pipeline(
        ties.LM(), schedule, loss=ties.loss, optimizer=ties.adam, clip_norm=0.3, launch="processes", device="cpu"
    ) as pipeline:
        given = (x if RANK == 0 else None, y if RANK == SIZE - 1 else None)
        found["verify"] = pipeline.verify(*given)
        found["steps"] = [(report.loss, report.gradient_norm) for report in (pipeline.step(*given) for _ in range(3))]
        found["after"] = pipeline.verify(*given)
        weights, kept = pipeline.gather(pipeline.state_dict()), pipeline.gather(pipeline.optimizer_state())
        everyones = [weights, kept]
        dist.broadcast_object_list(everyones)
        fourth = pipeline.step(*given).loss
        pipeline.load_state_dict(everyones[0])
        pipeline.load_optimizer_state(everyones[1])
        found["again"] = pipeline.step(*given).loss == fourth
        found["fifth"] = pipeline.step(*given).loss
        found["odd"] = said(lambda: pipeline.load_optimizer_state({"state": {}, "param_groups": []}))
    found["weights"], found["states"] = sorted(everyones[0]), sorted(everyones[1]["state"])
    model = ties.LM()
    pieces = [
        nn.Sequential(model.embed),
        *map(nn.Sequential, model.layers[:2]),
        nn.Sequential(*model.layers[2:], model.head),
    ]
    told = {"loss": ties.loss, "launch": "processes", "device": "cpu"}
    found["unseen"] = said(lambda: Pipeline(lambda s: pieces[s], schedule, **told))
    with Pipeline(lambda s: pieces[s], schedule, tied=[("stages.0.0.weight", "stages.3.2.weight")], **told) as pipeline:
        found["said"] = pipeline.verify(x, y)
    return found


def early():
    """Updates before the flush, which every second step takes back; ``updates`` are this rank's, step by step."""
    schedule, told, found = build_schedule("1f1b", SIZE, 4), {"clip_norm": 1.0}, []
    model, alike, updates = mlp(), mlp(), []

    class Noting(torch.optim.SGD):
        def step(self, closure=None):
            updates.append(self.param_groups[0]["params"][0].detach().clone())
            return super().step(closure)

    def noting(named):
        return Noting([p for _, p in named], lr=0.1, momentum=0.9)

    batches = [(x, y * (3 if step % 2 else 1)) for step, (x, y) in enumerate([data(16)] * 4)]
    with opened(model, schedule, optimizer=noting, post_validation=True, **told) as pipeline:
        for x, y in batches:
            updates.clear()
            report = pipeline.step(x if RANK == 0 else None, y if RANK == SIZE - 1 else None)
            again = len({tuple(before.flatten().tolist()) for before in updates}) == 1
            found.append([report.stepped_early, report.rolled_back, len(updates), again])
        weights = pipeline.gather(pipeline.state_dict())
    with Pipeline(alike, schedule, loss=mse, optimizer=noting, device="cpu", **told) as threads:
        for x, y in batches:
            threads.step(x, y)
    true = alike.state_dict()
    return {"steps": found, "weights": weights is None or all(torch.equal(weights[key], true[key]) for key in true)}


def far(case):
    """``case``, with nodes for hosts: what goes from one to the other goes through gloo."""
    group_module.address = lambda host: os.environ["GROUP_RANK"]
    try:
        return globals()[case]()
    finally:
        group_module.address = address


def main() -> None:
    folder, *cases = sys.argv[1:]
    results = {}
    for case in cases:
        try:
            results[case] = far(case[4:]) if case.startswith("far_") else globals()[case]()
        except PipelabError as error:
            results[case] = f"{type(error).__name__}: {error}"
        Path(folder, f"{RANK}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
