"""The program of the ranks in test_pytorch.py: every case in one launch; rank 0 writes what came out as JSON."""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist
from torch import nn

from pipelab import Pipeline, build_schedule
from pipelab.runtime import gradient_error, unsplit_gradients
from pipelab.runtime.pytorch import pytorch_runtime
from pipelab.schedules import Schedule
from tests.runtime.small import data, mlp, mse, tuple_net

# Written by hand for two devices: a V with split backwards, and an overlapped forward and backward.
V_TABLE = """\
0F0,0F1,3F0,3I0,3W0,3F1,0B0,3B1,0I1,0W1
1F0,2F0,1F1,2F1,2B0,1B0,2I1,1I1,1W1,2W1
"""
FUSED_TABLE = """\
0F0,0F1,(0F2;0B0)OVERLAP_F_B,0B1,0B2
1F0,(1F1;1B0)OVERLAP_F_B,1B1,1F2,1B2
"""


def whole(runtime) -> dict:
    """All ranks' gradients."""
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, runtime.gradients())
    return {name: grad for part in parts for name, grad in part.items()}


def proof(make, schedule, *, loss=mse, batch=None, steps=2, pipeline=True) -> dict:
    """Errors of PyTorch's runtime against the unsplit model, and against a Pipeline over the same processes."""
    inputs, targets = data() if batch is None else batch
    model = make()
    runtime = pytorch_runtime(model, schedule, loss=loss, device="cpu", seed=3)
    found = {"loss": 0.0, "gradients": 0.0, "runtime": type(runtime.runtime).__name__}
    for step in range(steps):
        reference = unsplit_gradients(make(), loss, inputs, targets, seed=3, step=step)
        first, last = 0 in runtime.stages, schedule.stages - 1 in runtime.stages
        value = runtime.step(inputs if first else None, targets if last else None)
        assert (value is not None) == last
        if last:
            found["loss"] = max(found["loss"], abs(value - reference.loss))
        found["gradients"] = max(found["gradients"], gradient_error(whole(runtime), reference.gradients))
        if step == 0 and pipeline:
            with Pipeline(make(), schedule, loss=loss, launch="processes", device="cpu", seed=3) as p:
                report = p.step(inputs, targets)
                found["against_pipeline"] = gradient_error(whole(runtime), whole(p))
                found["loss_against_pipeline"] = abs(value - report.loss) if last else 0.0
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, found)
    runtime.close()
    return {key: max(part[key] for part in everyone) for key in found}


def refusal(work) -> str:
    """The sentence that all ranks were given."""
    try:
        work()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    else:
        said = "nothing was refused"
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, said)
    return everyone[0] if len(set(everyone)) == 1 else f"the ranks differ: {everyone}"


def everywhere(value: float) -> float:
    """The largest of all ranks' values."""
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return max(everyone)


class Embeds(nn.Module):
    """Gives (values, numbers): the numbers go into an embedding in a later stage."""

    def __init__(self) -> None:
        super().__init__()
        self.grow = nn.Linear(5, 6)

    def forward(self, x):
        return self.grow(x), (x[:, 0].abs() * 2).long().clamp(max=4)


class Looks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 6)

    def forward(self, given):
        x, numbers = given
        return x + self.table(numbers)


def embeds() -> nn.Sequential:
    torch.manual_seed(0)
    tail = [nn.ReLU(inplace=True), nn.Linear(6, 3)]
    return nn.Sequential(Embeds(), Looks(), *tail).double()


def frozen() -> nn.Sequential:
    model = mlp()
    for parameter in model[:4].parameters():
        parameter.requires_grad_(False)
    return model


def normed() -> nn.Sequential:
    """A BatchNorm in each stage; run with one micro-batch, so that it sees the whole batch."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
    ).double()


def build_stage(s: int) -> nn.Module:
    torch.manual_seed(s)
    return nn.Linear(5 if s == 0 else 4, 3 if s == dist.get_world_size() - 1 else 4).double()


def cases_for_two() -> dict:
    x, y = data()
    classes = torch.arange(64) % 3
    classes[:5] = -100
    v_table = Schedule.from_csv(V_TABLE, name="V by hand")
    fused = Schedule.from_csv(FUSED_TABLE, name="fused by hand")

    def other_shape():
        with pytorch_runtime(mlp(), one_f_one_b, loss=mse, device="cpu") as runtime:
            runtime.step(x, y)
            runtime.step(x[:32], y[:32])

    def step_with(inputs, targets, loss=mse):
        with pytorch_runtime(mlp(), one_f_one_b, loss=loss, device="cpu") as runtime:
            runtime.step(inputs, targets)

    def statistics():
        """What a step leaves in the second stage's running statistics, against the unsplit model's."""
        model, own = normed(), normed()
        with pytorch_runtime(
            own, build_schedule("naive", devices=2, microbatches=1), loss=mse, device="cpu"
        ) as runtime:
            runtime.step(x, y)
        model(x)
        here = slice(0, 3) if dist.get_rank() == 0 else slice(3, 5)
        pairs = zip(model[here].buffers(), own[here].buffers(), strict=True)
        return max(float((a - b).abs().max()) for a, b in pairs)

    def built():
        with pytorch_runtime(build_stage, one_f_one_b, loss=mse, device="cpu") as runtime:
            runtime.step(x, y)
        reference = unsplit_gradients(nn.Sequential(build_stage(0), build_stage(1)), mse, x, y).gradients
        renamed = {f"stages.{name}": grad for name, grad in reference.items()}
        return gradient_error(whole(runtime), renamed)

    one_f_one_b = build_schedule("1f1b", devices=2, microbatches=4)
    looped = build_schedule("interleaved", devices=2, microbatches=4, chunks=2)
    long = build_schedule("gpipe", devices=3, microbatches=3)
    hidden = torch.where(torch.arange(64) < 16, -100, classes)
    return {
        "V by hand, split backwards": lambda: proof(mlp, v_table, batch=(x, y)),
        "fused by hand": lambda: proof(mlp, fused, batch=(x[:60], y[:60])),
        "V by hand, tuples": lambda: proof(tuple_net, v_table),
        "tuples with dropout": lambda: proof(lambda: tuple_net(dropout=0.3), looped),
        "numbers for an embedding, in-place layers": lambda: proof(embeds, looped),
        "frozen layers": lambda: proof(frozen, build_schedule("gpipe", devices=2, microbatches=4), pipeline=False),
        "ignored targets": lambda: proof(mlp, one_f_one_b, loss=nn.CrossEntropyLoss(), batch=(x, classes)),
        "batch statistics": lambda: proof(normed, build_schedule("naive", devices=2, microbatches=1), steps=1),
        "running statistics": lambda: everywhere(statistics()),
        "build_stage": built,
        "frozen layers and split backwards": lambda: refusal(lambda: pytorch_runtime(frozen(), v_table, loss=mse)),
        "batch that m does not divide": lambda: refusal(lambda: step_with(x[:30], y[:30])),
        "micro-batch without terms": lambda: refusal(lambda: step_with(x, hidden, nn.CrossEntropyLoss())),
        "no targets": lambda: refusal(lambda: step_with(x, None)),
        "other shape": lambda: refusal(other_shape),
        "other world": lambda: refusal(lambda: pytorch_runtime(mlp(), long, loss=mse, device="cpu")),
        "rank with other batch": lambda: refusal(
            lambda: step_with(*((x, None) if dist.get_rank() == 0 else (None, y[:60])))
        ),
    }


def main(file: str) -> None:
    dist.init_process_group("gloo")
    p = dist.get_world_size()
    cases = {}
    for name in ("naive", "gpipe", "1f1b", "interleaved"):
        table = build_schedule(name, devices=p, microbatches=8, chunks=2 if name == "interleaved" else 1)
        cases[name] = lambda table=table: proof(mlp, table)
        cases[f"{name}, tuples"] = lambda table=table: proof(tuple_net, table)
    odd = build_schedule("interleaved", devices=p, microbatches=p + p // 2, chunks=2)  # one group larger than p
    cases["interleaved, one group"] = lambda: proof(tuple_net, odd, batch=[part[:60] for part in data()])
    if p == 2:
        cases |= cases_for_two()
    found = {}
    for name, case in cases.items():
        try:
            found[name] = case()
        except Exception as error:
            error.add_note(f"in the case '{name}'")
            raise
    if dist.get_rank() == 0:
        with open(file, "w", encoding="utf-8") as out:
            json.dump(found, out)
    dist.barrier()
    dist.destroy_process_group()
    # Gloo's threads may let go of Python objects late: while the interpreter goes down that aborts, once in many runs.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
