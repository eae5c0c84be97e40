"""Faults, one by one, in real steps: kind of fault x where x device x launch. ``python -m tests.runtime.faults.matrix``

prints what became of each: the error, seconds until the caller had it (beyond a time limit that it waits for), and
what was left behind.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import re
import signal
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from torch import nn
from tqdm import tqdm

from pipelab import Pipeline, Schedule, build_schedule
from pipelab.errors import DeadlockError, LostProcessError, NonFiniteError, PipelabError, StageError, TimeLimitError
from pipelab.runtime.device import channels
from pipelab.runtime.processes import pool as pool_module
from pipelab.runtime.processes import remote
from pipelab.runtime.processes.wires import local
from tests.runtime.small import mlp, mse

DEVICES, LIMIT, OPENING, STEP = 3, 1.0, 5.0, 2
PATIENCE = 3
"""Times as long as it takes at rest, on a machine that has other things to do."""
SPLIT = "0F0, 0F1, 0F2, 0I0, 0W0, 0I1, 0W1, 0I2, 0W2\n1F0, 1F1, 1I0, 1W0, 1F2, 1I1, 1W1, 1I2, 1W2\n"
SPLIT += "2F0, 2I0, 2W0, 2F1, 2I1, 2W1, 2F2, 2I2, 2W2"
RING = "0F0, 0B0, 0F1, 0B1\n1F0, 1F1, 1B0, 1B1\n2F0, 2F1, 2B0, 2B1"
let_go = threading.Event()

IN_AN_ACTION = ("F", "B", "I", "W", "R")
ANYWHERE = ("raise", "exit", "memory", "sleep")
IN_PROCESSES = ("SIGKILL", "SIGTERM", "SIGSEGV", "quit", "SIGSTOP", "hold")
OWN = {"raise": ValueError, "exit": SystemExit, "memory": MemoryError}
PLACES = {
    "threads, turns": (*IN_AN_ACTION, "send", "receive", "update"),
    "threads": (*IN_AN_ACTION, "send", "receive", "update"),
    "processes": (*IN_AN_ACTION, "send", "receive", "update", "launch", "save", "idle", "close"),
}


@dataclass(frozen=True)
class Case:
    """What goes wrong, in what, on which device."""

    kind: str
    where: str
    device: int
    launch: str

    def __str__(self) -> str:
        return f"{self.launch}-{self.kind}-{self.where}-{self.device}".replace(", ", "-")


@dataclass
class Found:
    """What became of it."""

    error: BaseException | None
    seconds: float
    left: list[str] = field(default_factory=list)


def cases() -> list[Case]:
    """All that make sense."""
    found = []
    for launch, places in PLACES.items():
        apart = launch == "processes"
        kinds = (*ANYWHERE, *(IN_PROCESSES if apart else ()))
        for kind, where, device in itertools.product(kinds, places, range(DEVICES)):
            from_outside = where in ("idle", "close") and not kind.startswith("SIG")
            if not from_outside and (where, device) != ("I", 0):
                found.append(Case(kind, where, device, launch))
        found += [Case("nan", where, device, launch) for where in ("F", "B", "W") for device in range(DEVICES)]
        found.append(Case("deadlock", "table", 0, launch))
    return found


# ---- doing it --------------------------------------------------------------------------------------------------------


def act(kind: str) -> None:
    """Go wrong, here and now."""
    if kind == "raise":
        raise ValueError("boom")
    if kind == "exit":
        sys.exit(3)
    if kind == "memory":
        raise MemoryError("no more")
    if kind == "sleep":
        let_go.wait(60)
    elif kind == "hold":
        ctypes.PyDLL(None).sleep(60)  # keeps the interpreter
    elif kind == "quit":
        os._exit(7)
    elif kind.startswith("SIG"):
        signal.raise_signal(getattr(signal, kind))


class Faulty(nn.Module):
    """Multiplies by a weight, and goes wrong at micro-batch 1 of step 2."""

    def __init__(self, kind: str, where: str) -> None:
        super().__init__()
        self.kind, self.where, self.calls, self.pid = kind, where, 0, os.getpid()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        if self.pid != os.getpid():  # here, a copy has been made of it
            patch(self.kind, self.where)

    def forward(self, x):
        step = 3 * (STEP - 1) + 1
        weight, before = self.weight * 1, self.calls
        again = self.where == "R" and not torch.is_grad_enabled()
        self.calls += not again
        if before == step and self.where in ("F", "R") and not again:
            x = self.wrong(x)
        if before == step and self.where in ("B", "I") and x.requires_grad:
            x.register_hook(self.wrong)
        y = x * weight
        if before == step and self.where == "B" and not x.requires_grad:
            y.register_hook(self.wrong)
        if before == step and self.where == "W":
            weight.register_hook(self.wrong)
        return y

    def wrong(self, tensor):
        act(self.kind)
        return tensor * float("nan") if self.kind == "nan" else tensor


class FaultySGD(torch.optim.SGD):
    """Goes wrong in the update of step 2."""

    kind, where, steps = "", "", 0

    def step(self, closure=None):
        self.steps += 1
        if self.where == "update" and self.steps == STEP:
            act(self.kind)
        return super().step(closure)


class FaultyLR(torch.optim.lr_scheduler.LambdaLR):
    """Goes wrong when it is asked for its state."""

    def state_dict(self):
        if self.optimizer.where == "save":
            act(self.optimizer.kind)
        return super().state_dict()


def scheduler_of(optimizer):
    return FaultyLR(optimizer, constant)


def constant(step):
    return 1.0


class Optimizers:
    """Makes them; that of the stage that is faulty is faulty, too. It is unpickled on every rank."""

    def __init__(self, case: Case) -> None:
        self.kind, self.where = case.kind, case.where

    def __call__(self, named):
        made = FaultySGD([p for _, p in named], lr=0.1)
        if any(p.dim() == 0 for _, p in named):
            made.kind, made.where = self.kind, self.where
        return made


def patch(kind: str, where: str) -> None:
    """Go wrong in the middle of sending, or of receiving. Done where the module lives."""
    if where not in ("send", "receive"):
        return
    calls = itertools.count()
    plain = getattr(local.LocalLine, where)

    def wrong(self, *given, **settings):
        if next(calls) == 5:
            act(kind)
        return plain(self, *given, **settings)

    setattr(local.LocalLine, where, wrong)


def patch_wire(monkeypatch, case: Case) -> None:
    """The same between threads."""
    end, number = {"send": ("outlet", "source"), "receive": ("inlet", "destination")}[case.where]
    plain, calls = getattr(channels.Wire, end), itertools.count()

    def patched(self, channel):
        do = plain(self, channel)

        def wrong(*given):
            if getattr(channel, number) == case.device and next(calls) == 5:
                act(case.kind)
            return do(*given)

        return wrong

    monkeypatch.setattr(channels.Wire, end, patched)


def schedule_of(case):
    if case.kind == "deadlock":
        return Schedule.from_csv(RING, name="ring")
    if case.where in ("I", "W"):
        return Schedule.from_csv(SPLIT, name="split")
    return build_schedule("gpipe" if case.where == "R" else "1f1b", DEVICES, 3, recompute=case.where == "R")


def run(case: Case, monkeypatch, folder: Path) -> Found:
    """Let it happen; what the caller gets, when, and what is left. ``folder`` is for what is temporary."""
    let_go.clear()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    apart = case.launch == "processes"
    _end_pools()
    before = _left()
    monkeypatch.setattr(remote, "OPENING", OPENING)
    model = mlp(6)
    place = 2 * case.device + 1
    parts = [*model[: place + 1], Faulty(case.kind, case.where), *model[place + 1 :]]
    schedule = schedule_of(case)
    layers = nn.Sequential(*parts)
    per = [len(chunk) for chunk in torch.arange(6).chunk(DEVICES)]
    cuts, at = [], 0
    for device in range(DEVICES - 1):
        at += per[device] + (device == case.device)
        cuts.append(at)
    told = {
        "loss": mse,
        "optimizer": Optimizers(case),
        "lr_scheduler": scheduler_of,
        "time_limit": LIMIT if case.kind in ("sleep", "hold", "SIGSTOP") else 10,
        "check_finite": case.kind == "nan",
        "clock": "device" if case.launch.endswith("turns") or apart else "wall",
        "launch": "processes" if apart else "threads",
    }
    if apart:
        told["device"] = "cpu"
    batch = torch.randn(12, 5, dtype=torch.float64), torch.randn(12, 3, dtype=torch.float64)
    if not apart and case.where in ("send", "receive"):
        patch_wire(monkeypatch, case)
    if case.kind == "deadlock":
        told["check"] = False
    error, begun, pipeline = None, time.perf_counter(), None
    try:
        pipeline = (
            Pipeline(_builder(case, layers, cuts), schedule, **told)
            if case.where == "launch"
            else Pipeline(layers, schedule, cuts=cuts, **told)
        )
        if case.where != "launch":
            for _ in range(STEP - (case.where in ("idle", "close", "save"))):
                begun = time.perf_counter()
                pipeline.step(*batch)
            begun = time.perf_counter()
            _do(pipeline, case, batch)
    except BaseException as raised:
        error = raised
    seconds = time.perf_counter() - begun
    if pipeline is not None:
        pipeline.close()
    found = Found(error, seconds)
    del pipeline, layers, parts, model
    if apart:
        _end_pools()
    while error is not None:  # its traceback holds the frames, and they everything
        before_it = error.__context__
        error.__traceback__ = error.__cause__ = error.__context__ = None
        error = before_it
    let_go.set()
    found.left = _settled(before)
    return found


def _builder(case, layers, cuts):
    edges = [0, *cuts, len(layers)]

    def build_stage(s):
        if s == case.device:
            act(case.kind)
        return layers[edges[s] : edges[s + 1]]

    return build_stage


def _do(pipeline, case, batch):
    if case.where in ("idle", "close"):
        os.kill(pipeline._engine._pool.pids[case.device], getattr(signal, case.kind))
        time.sleep(0.05)
    if case.where == "idle":
        pipeline.step(*batch)
    if case.where == "save":
        pipeline.save(Path(tempfile.gettempdir()) / "saved")
    if case.where == "close":
        pipeline.close()


def _end_pools() -> None:
    """All ranks, but for the fork server."""
    with pool_module._here.lock:
        for pool in [pool_module._here.pools.pop(size) for size in [*pool_module._here.pools] if size == DEVICES]:
            pool.stop()


def _left() -> dict[str, int]:
    """What a process may leave behind."""
    me = psutil.Process()
    return {
        "threads": sum(thread.name.startswith("pipelab") for thread in threading.enumerate()),
        "processes": len(_children(me)),
        "open files": me.num_fds(),
        "files": sum(1 for _ in Path(tempfile.gettempdir()).glob("pipelab*")),
    }


def _children(me):
    found = []
    for child in me.children(recursive=True):
        with suppress(psutil.Error):  # it ends while one looks
            found += [child] if child.status() != "zombie" else []
    return found


def _settled(before: dict[str, int], seconds: float = 3.0) -> list[str]:
    """What is left once everything has had a moment to end."""
    end = time.monotonic() + seconds
    while True:
        gc.collect()
        more = {what: count - before[what] for what, count in _left().items() if count > before[what]}
        if not more or time.monotonic() > end:
            return [f"{count} {what}" for what, count in more.items()]
        time.sleep(0.02)


# ---- judging it ------------------------------------------------------------------------------------------------------


def complaints(case: Case, found: Found) -> list[str]:
    """What is wrong with what was found; nothing if all is well."""
    wrong = []
    error, text = found.error, str(found.error)
    allowed = PATIENCE * (1.0 if case.launch != "processes" else 5.0) + _waited(case)
    if found.seconds > allowed:
        wrong.append(f"took {found.seconds:.1f} s, {allowed:.1f} allowed")
    if found.left:
        wrong.append(f"left {', '.join(found.left)}")
    if case.where == "close":
        return wrong + ([f"closing raised {error!r}"] if error is not None else [])
    if case.where in ("launch", "save") and case.kind in OWN:  # the caller's own code, as it is
        text = "\n".join([repr(error), *getattr(error, "__notes__", ())])
    wrong += [f"no {phrase!r} in: {text}" for phrase in _phrases(case) if not re.search(phrase, text)]
    wanted = _wanted(case)
    if not isinstance(error, wanted):
        wrong.append(f"a {type(error).__name__}, not a {' and '.join(kind.__name__ for kind in wanted)}: {text}")
    return wrong


def _waited(case: Case) -> float:
    """Seconds of a time limit that has to go by."""
    if case.kind not in ("sleep", "hold", "SIGSTOP") or case.where == "close":
        return 0.0
    return OPENING if case.where == "launch" else LIMIT


def _wanted(case):
    if case.where in ("launch", "save") and case.kind in OWN:
        return (OWN[case.kind],)
    if case.kind == "deadlock":
        return (DeadlockError,)
    if case.kind in ("sleep", "hold", "SIGSTOP"):
        return (TimeLimitError,)
    if case.kind.startswith("SIG") or case.kind == "quit":
        return (LostProcessError,)
    if case.kind == "nan":
        return (NonFiniteError,)
    return (StageError,) if case.where in (*IN_AN_ACTION, "update") else (PipelabError,)


def _phrases(case):
    if case.kind == "deadlock":
        return [
            "deadlock: device 0 waits for device 1 waits for device 0",
            "device 0 waits before 0B0 for the gradient",
        ]
    phrases = [rf"device {case.device}\b"]
    how = {"quit": "exited with 7", "exit": "SystemExit", "raise": "ValueError", "memory": "MemoryError"}
    if case.where in IN_AN_ACTION:
        phrases.append(rf"\b{case.device}{case.where}1\b")
        phrases.append("micro-batch 1")
    elif case.where == "update":
        phrases.append("update")
    if case.kind in ("SIGKILL", "SIGTERM", "SIGSEGV"):
        phrases.append(case.kind)
    elif case.kind in how and (case.where in (*IN_AN_ACTION, "update") or case.kind == "quit"):
        phrases.append(how[case.kind])
    elif case.kind == "SIGSTOP" and sys.platform == "linux" and case.where in ("launch", "save", "idle", "update"):
        phrases.append("its process is stopped")
    return phrases


@contextmanager
def fork_server():
    """Kept for all cases, with a rank that no case uses."""
    pool = pool_module.lease(1)
    try:
        yield
    finally:
        pool_module.release(pool)


def main() -> None:
    """Run all and print a table."""
    import pytest

    rows, worst = [], {}
    with fork_server():
        for case in tqdm(cases(), unit="fault"):
            with pytest.MonkeyPatch.context() as monkeypatch, tempfile.TemporaryDirectory() as folder:
                found = run(case, monkeypatch, Path(folder))
            wrong = complaints(case, found)
            beyond = found.seconds - _waited(case)
            worst[case.launch] = max(worst.get(case.launch, 0.0), beyond)
            first = str(found.error).splitlines()[0] if found.error is not None else "nothing raised"
            rows.append((case, beyond, type(found.error).__name__, first, wrong))
    print("| launch | fault | in | device | seconds | error | says | left or wrong |\n|" + " --- |" * 8)
    for case, beyond, kind, first, wrong in rows:
        cells = (case.launch, case.kind, case.where, case.device, f"{beyond:.2f}", kind, first, "; ".join(wrong) or "-")
        print("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")
    good = sum(not wrong for *_, wrong in rows)
    print(f"\n{good} of {len(rows)} found, named, and nothing left; slowest: ", end="")
    print(", ".join(f"{launch} {seconds:.2f} s" for launch, seconds in worst.items()))


if __name__ == "__main__":
    from tests.runtime.faults import matrix  # what is sent to processes has to be found there by its name

    matrix.main()
