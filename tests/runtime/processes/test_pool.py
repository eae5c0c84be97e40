"""Processes that a notebook or script has started: warm while they are needed, gone when they are not."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from contextlib import suppress

import psutil
import pytest
import torch
from torch import nn

from pipelab import ConfigurationError, PipelabError, build_schedule
from pipelab.errors import StageError
from pipelab.models import cut_layers
from pipelab.runtime import Pipeline
from pipelab.runtime.processes import pool as pool_module
from pipelab.runtime.processes import server as server_module
from tests.runtime.small import data, mlp, mse

SCHEDULE = build_schedule("1f1b", devices=3, microbatches=4)
others = set()
"""Children that are none of this module's."""


def adam(named):
    return torch.optim.Adam([p for _, p in named], lr=0.01)


def opened(model, schedule=SCHEDULE, **settings):
    return Pipeline(model, schedule, loss=mse, launch="processes", device="cpu", **settings)


def children():
    """What this module's tests have started, and what that has started; the browser's tests may have left a browser."""
    found = set()
    for child in psutil.Process().children():
        if child.pid not in others:
            with suppress(psutil.NoSuchProcess):
                found |= {child.pid, *(p.pid for p in child.children(recursive=True))}
    return found


def wait_until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def gone(pids):
    def check():
        return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)

    return check


@pytest.fixture(autouse=True)
def _no_one_needs_them_any_more():
    """Warm processes are handed from test to test."""
    yield
    gc.collect()


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_left():
    pool_module.stop_all()
    others.update(child.pid for child in psutil.Process().children())
    yield
    pool_module.stop_all()
    wait_until(lambda: not children())


@pytest.fixture
def cold():
    """No process is there yet."""
    pool_module.stop_all()
    wait_until(lambda: not children())


class Signed(nn.Module):
    """Does what a file in ``folder`` is named after."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.lin = str(folder), nn.Linear(6, 6).double()

    def forward(self, x):
        if os.path.exists(f"{self.folder}/raise"):
            raise ZeroDivisionError("one by nought")
        while os.path.exists(f"{self.folder}/wait"):
            open(f"{self.folder}/waiting", "w").close()
            time.sleep(0.01)
        if os.path.exists(f"{self.folder}/die"):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.lin(x)


@pytest.fixture
def signed(tmp_path):
    model = mlp()
    model[4] = Signed(tmp_path)

    def sign(name, on=True):
        (tmp_path / name).touch() if on else (tmp_path / name).unlink()

    return model, sign


# ---- coming and going ------------------------------------------------------------------------------------------------


def test_processes_stay_warm_between_steps_and_pipelines_and_go_when_the_last_is_closed(cold):
    x, y = data(8)
    first = opened(mlp())
    first.step(x, y)
    ranks = set(first._engine._pool.pids)
    assert len(ranks) == 3
    assert ranks < children()
    first.step(x, y)
    second = opened(mlp())
    assert set(second._engine._pool.pids) == ranks, "another pipeline of the same shape finds them warm"
    first.close()
    second.step(x, y)
    second.close()
    third = opened(mlp())
    assert set(third._engine._pool.pids) == ranks, "and so does one that is made at once after the last was closed"
    everyone = children()
    third.close()
    wait_until(gone(everyone))
    with pytest.raises(PipelabError, match="this Pipeline is closed"):
        third.step(x, y)


def test_a_forgotten_pipeline_lets_its_processes_go(cold):
    pipeline = opened(mlp())
    everyone = children()
    assert len(everyone) == 4, "three ranks and the fork server"
    del pipeline
    gc.collect()
    wait_until(gone(everyone))


@pytest.mark.parametrize("how", ["kill", *(pytest.param(one, marks=pytest.mark.slow) for one in ("exit", "exception"))])
def test_processes_end_with_the_caller_however_it_ends(how, tmp_path):
    """A plain script, without a guard around its main part, that leaves without closing."""
    end = {"exit": "", "kill": "os.kill(os.getpid(), 9)", "exception": "raise SystemError"}[how]
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, psutil, torch
            from pipelab import Pipeline, build_schedule
            class Net(torch.nn.Sequential):
                pass
            net = Net(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
            pipe = Pipeline(net, build_schedule("gpipe", 2, 2), loss=lambda a, b: (a - b).square().mean(),
                            launch="processes", device="cpu")
            pipe.step(torch.ones(4, 3), torch.ones(4, 3))
            print(*[p.pid for p in psutil.Process().children(recursive=True)], flush=True)
            {end}
            """
        )
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    pids = list(map(int, done.stdout.split()))
    assert len(pids) == 3, done.stderr
    wait_until(gone(pids))


@pytest.mark.slow
def test_where_a_fork_is_not_safe_each_rank_starts_by_itself(monkeypatch):
    """As on macOS, or where a library has started threads: slower, said in a sentence, and the same otherwise."""
    boot = server_module._SERVER.replace(
        "import main;",
        "import main; import pipelab.runtime.processes.server as s; s.unsafe_to_fork = lambda: 'a test';",
    )
    monkeypatch.setattr(server_module, "_SERVER", boot)
    monkeypatch.setattr(pool_module._here, "warned", False)
    pool_module.stop_all()
    x, y = data(8)
    schedule = build_schedule("gpipe", devices=2, microbatches=2)
    with pytest.warns(UserWarning, match=r"cannot be forked here \(a test\)"):
        pipeline = opened(mlp(), schedule)
    assert pipeline.step(x, y).loss > 0
    assert pipeline.verify(x, y) < 1e-12
    everyone = children()
    pipeline.close()
    wait_until(gone(everyone))


@pytest.mark.slow
def test_a_forked_child_of_the_caller_neither_uses_nor_ends_its_processes():
    pipeline = opened(mlp())
    pid = os.fork()
    if pid == 0:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                opened(mlp())
        except ConfigurationError:
            pool_module.stop_all()
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert pipeline.step(*data(8)).loss > 0


def test_a_forked_child_that_lives_on_keeps_no_process_alive():
    """A data loader's worker, say, that holds copies of all open files."""
    pipeline = opened(mlp())
    everyone = children()
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(0)
    try:
        pipeline.close()
        pool_module.stop_all()
        wait_until(gone(everyone))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.slow
def test_a_pipeline_may_be_forgotten_in_the_middle_of_anothers_step(monkeypatch):
    """Garbage collection runs at any moment: what it sets off must wait for no lock that the moment holds."""
    pipeline, doomed = opened(mlp()), [opened(mlp())]
    doomed[0].itself = doomed[0]
    collect = pool_module.Pool._collect

    def collect_garbage_too(self, *given):
        doomed.clear()
        gc.collect()
        return collect(self, *given)

    monkeypatch.setattr(pool_module.Pool, "_collect", collect_garbage_too)
    assert pipeline.step(*data(8)).loss > 0
    wait_until(lambda: pipeline._engine._pool.users == 1)


def test_pipelines_of_one_pool_may_be_stepped_from_two_threads():
    pipelines, losses = [opened(mlp()), opened(mlp())], [[], []]
    threads = [
        threading.Thread(target=lambda k=k: losses[k].extend(pipelines[k].step(*data(8)).loss for _ in range(5)))
        for k in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert losses[0] == losses[1]
    assert len(losses[0]) == 5


def test_sockets_listen_on_loopback_only(cold):
    pipeline = opened(mlp(), build_schedule("interleaved", devices=2, microbatches=2))
    pipeline.step(*data(8))
    found = [c for pid in [os.getpid(), *children()] for c in psutil.Process(pid).net_connections("inet")]
    listening = {c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}, "there are some, and none can be reached from outside"
    assert {c.laddr.ip for c in found} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_stage_that_raises_is_told_as_in_threads_and_training_goes_on(signed):
    """Nobody is left waiting; weights and optimizer state are those of the last step that was finished."""
    model, sign = signed
    twin = mlp()
    twin[4] = Signed(model[4].folder)
    twin.load_state_dict(model.state_dict())
    x, y = data(8)
    pipeline, threads = opened(model, optimizer=adam), Pipeline(twin, SCHEDULE, loss=mse, optimizer=adam, device="cpu")
    for early in (True, False):  # in the first step, before shapes are known, and in a later one
        sign("raise")
        for pipe in (pipeline, threads):
            with pytest.raises(ZeroDivisionError, match="on device 1, stage 1, action 1F0") as caught:
                pipe.step(x, y)
            assert isinstance(caught.value, StageError)
            assert (caught.value.device, caught.value.stage, caught.value.microbatch) == (1, 1, 0)
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
        sign("raise", on=False)
        del caught
        for _ in range(2):
            assert pipeline.step(x, y).loss == threads.step(x, y).loss, f"early: {early}"
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_the_learners_own_line_is_in_the_error(signed):
    model, sign = signed
    sign("raise")
    pipeline = opened(model)
    with pytest.raises(StageError) as caught:
        pipeline.step(*data(8))
    notes = "".join(caught.value.__cause__.__notes__)
    assert "In the process of device 1" in notes
    assert 'raise ZeroDivisionError("one by nought")' in notes


class Sealed(Exception):
    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")

    def __reduce__(self):
        raise TypeError("cannot be pickled")


class RaisesSealed(nn.Module):
    def forward(self, x):
        raise Sealed(3, "why not")


def test_an_exception_that_cannot_be_pickled_still_tells_its_story():
    model = mlp()
    model[4] = RaisesSealed()
    pipeline = opened(model)
    with pytest.raises(StageError, match="Sealed on device 1, stage 1, action 1F0, micro-batch 0: 3: why not"):
        pipeline.step(*data(8))


def interrupt_once_waiting(folder):
    def watch():
        wait_until(lambda: os.path.exists(f"{folder}/waiting"))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_an_interrupt_stops_the_step_on_all_devices_and_nothing_is_lost(signed):
    model, sign = signed
    x, y = data(8)
    pipeline = opened(model, optimizer=adam)
    pipeline.step(x, y)
    ranks, before = pipeline._engine._pool.pids, [p.clone() for p in model.parameters()]
    sign("wait")
    thread = interrupt_once_waiting(model[4].folder)
    timer = threading.Timer(1.0, sign, ("wait", False))  # the action ends some time after the interrupt
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        pipeline.step(x, y)
    thread.join()
    timer.join()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert pipeline.step(x, y).loss > 0
    assert pipeline._engine._pool.pids == ranks


def test_a_stage_that_does_not_stop_is_ended(signed, monkeypatch):
    monkeypatch.setattr(pool_module, "GRACE", 0.5)
    model, sign = signed
    x, y = data(8)
    pipeline = opened(model, optimizer=adam)
    pipeline.step(x, y)
    before = [p.clone() for p in model.parameters()]
    sign("wait")
    thread = interrupt_once_waiting(model[4].folder)
    with pytest.raises(KeyboardInterrupt):
        pipeline.step(x, y)
    thread.join()
    with pytest.raises(PipelabError, match=r"did not stop when it was interrupted.*holds the weights of the last"):
        pipeline.step(x, y)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    sign("wait", on=False)
    assert opened(model, optimizer=adam).step(x, y).loss > 0, "a new Pipeline goes on from there"


def test_a_process_that_dies_is_told_with_its_cause_and_takes_the_others_along(signed):
    model, sign = signed
    x, y = data(8)
    pipeline = opened(model, optimizer=adam)
    pipeline.step(x, y)
    ranks, before = pipeline._engine._pool.pids, [p.clone() for p in model.parameters()]
    sign("die")
    for _ in range(2):
        with pytest.raises(PipelabError, match=r"the process of device 1 was ended by signal 9 \(SIGKILL\)"):
            pipeline.step(x, y)
    wait_until(gone(ranks))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_process_that_dies_while_no_step_runs_is_noticed_at_the_next():
    pipeline = opened(mlp())
    os.kill(pipeline._engine._pool.pids[2], signal.SIGKILL)
    with pytest.raises(PipelabError, match="the process of device 2 was ended by signal 9"):
        pipeline.step(*data(8))


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.guard = {"lock": threading.Lock()}


def test_a_model_that_cannot_be_sent_names_the_attribute():
    model = mlp()
    model[4].add_module("inner", Locked())
    with pytest.raises(ConfigurationError, match=r"model\.4\.inner\.guard\['lock'\] cannot be sent to another process"):
        opened(model)


@pytest.mark.parametrize("what", ["loss", "optimizer"])
def test_a_function_that_cannot_be_sent_names_its_variable(what):
    lock = threading.Lock()

    def function(*given):
        return lock

    with pytest.raises(ConfigurationError, match=rf"settings\.{what} \(its variable lock\) cannot be sent"):
        Pipeline(mlp(), SCHEDULE, **{"loss": mse, what: function}, launch="processes", device="cpu")


def test_what_raises_while_a_pipeline_is_made_reaches_the_caller_and_the_processes_live_on():
    def refuses(named):
        raise ArithmeticError("no optimizer today")

    good = opened(mlp())
    with pytest.raises(ArithmeticError, match="no optimizer today"):
        opened(mlp(), optimizer=refuses)
    with pytest.raises(ConfigurationError, match="optimizer must return a torch optimizer, got int"):
        opened(mlp(), optimizer=lambda named: 3)
    assert good.step(*data(8)).loss > 0


class Growing(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.calls = nn.Linear(6, 6).double(), 0

    def forward(self, x):
        self.calls += 1
        return torch.cat([self.lin(x), x[:, : self.calls]], 1)


def test_shapes_may_differ_from_message_to_message():
    """Through gloo they may not: see test_torchrun.py."""
    schedule = build_schedule("gpipe", devices=2, microbatches=2)
    models = [nn.Sequential(*mlp()[:4], Growing(), nn.AdaptiveAvgPool1d(3)) for _ in range(2)]
    with Pipeline(models[1], schedule, loss=mse, device="cpu", cuts=[5]) as threads:
        assert opened(models[0], schedule, cuts=[5]).step(*data(8)).loss == threads.step(*data(8)).loss


def test_longer_sequences_and_other_batches_in_later_steps_are_no_problem():
    from pipelab.models import TransformerLM, next_byte_loss, text_batch

    model = TransformerLM(layers=4, width=16, heads=2, tokens=16).double()
    schedule = build_schedule("1f1b", devices=2, microbatches=4)
    with Pipeline(model, schedule, loss=next_byte_loss, launch="processes", device="cpu") as pipeline:
        for batch, tokens in ((8, 8), (8, 16), (10, 8), (8, 8)):
            assert pipeline.verify(*text_batch(0, batch, tokens)) < 1e-12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"outstanding": 1}, "sends= and outstanding= make the wire of threads strict"),
        ({"sends": "batched"}, "leave them out for launch='processes'"),
        ({"group": object()}, "group= is for processes that are in a torch.distributed group already"),
        ({"mesh": object()}, "this one was started alone; start the script with torchrun, or leave mesh= out"),
        ({"device": "cuda:7"}, "cuda:7 was asked for, but"),
        ({"cuts": [1]}, "3 stages need 2 cuts"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_starts(settings, message, cold):
    with pytest.raises(ConfigurationError, match=message):
        Pipeline(mlp(), SCHEDULE, loss=mse, launch="processes", **settings)
    assert not children()


def test_bad_batches_are_refused_as_in_threads():
    pipeline, (x, y) = opened(mlp()), data(8)
    for inputs, targets, message in (
        (x, y[:5], "same length along the batch, got 8 and 5"),
        (x[:3], y[:3], "need a batch of at least 4 sequences, got 3"),
        (None, y, "inputs must be a tensor or a tuple of tensors, got NoneType"),
        (x, None, "a training step needs loss=... in the Pipeline and targets"),
        (x[:, :4], y, "stage 0 cannot take the inputs"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            pipeline.step(inputs, targets)
    assert pipeline.step(x, y).loss > 0


# ---- stories: what a cold review found -------------------------------------------------------------------------------


class Keeps(nn.Module):
    def forward(self, x):
        self.last = x * 1
        return self.last


def test_a_stage_that_cannot_be_copied_is_a_sentence_in_verify_and_no_hang():
    """The copy failed on one rank, before it told the others: they waited for ever."""
    model = mlp()
    model[4].append(Keeps())
    pipeline = opened(model)
    pipeline.step(*data(8))
    assert pipeline.verify(*data(8)) < 1e-12, "the caller's own model is compared with, and no copy of it"
    layers = list(model)
    devices = pipeline.schedule.devices
    built = opened(lambda s: nn.Sequential(*(layers[k] for k in cut_layers(len(layers), devices)[s])))
    built.step(*data(8))
    with pytest.raises(ConfigurationError, match="verify takes a copy here, and one cannot be made"):
        built.verify(*data(8))
    assert built.step(*data(8)).loss > 0


def test_a_model_that_changes_after_opening_is_refused_and_the_next_batch_is_the_right_one():
    """A batch that had never arrived counted as sent: the next of its size ran on an old one, without a word."""
    model = mlp()
    pipeline = opened(model)
    x, y = data(8)
    pipeline.evaluate(x, y)
    weight = model[3][0].weight.data
    model[3][0].weight.data = torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(ConfigurationError, match=r"float64\[6, 6\] is now float64\[2, 2\]; make a new Pipeline"):
        pipeline.evaluate(x[:4], y[:4])
    model[3][0].weight.data = weight
    with torch.no_grad():
        assert pipeline.evaluate(x[:4], y[:4]).loss == pytest.approx(float(mse(model(x[:4]), y[:4])))
    model[1].append(nn.ReLU())
    with pytest.raises(ConfigurationError, match="modules have changed since this Pipeline was made"):
        pipeline.step(x, y)


def test_a_forked_child_cannot_use_or_close_its_parents_pipeline():
    pipeline = opened(mlp())
    pid = os.fork()
    if pid == 0:
        try:
            pipeline.step(*data(8))
        except PipelabError:
            pipeline.close()
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert pipeline.step(*data(8)).loss > 0


def test_modules_that_were_edited_are_imported_anew(tmp_path, monkeypatch):
    """Classes of a module travel by name, and warm ranks had imported the old one."""
    monkeypatch.syspath_prepend(tmp_path)
    source = textwrap.dedent(
        """
        import torch
        class Scaled(torch.nn.Linear):
            def forward(self, x):
                return super().forward(x) * {}
        """
    )
    file = tmp_path / "edited_by_a_learner.py"
    file.write_text(source.format(1))
    import importlib

    import edited_by_a_learner

    def loss_of(launch):
        torch.manual_seed(0)
        model = nn.Sequential(*[edited_by_a_learner.Scaled(5, 5) for _ in range(3)]).double()
        pipeline = Pipeline(model, SCHEDULE, loss=lambda a, b: (a - 1).square().mean(), launch=launch, device="cpu")
        return pipeline, pipeline.evaluate(*data(8)).loss

    first, before = loss_of("processes")
    assert before == loss_of("threads")[1]
    file.write_text(source.format(50))
    os.utime(file, (1, 1))
    importlib.reload(edited_by_a_learner)
    _, after = loss_of("processes")
    assert after == loss_of("threads")[1] != before
    assert first.evaluate(*data(8)).loss == before, "who was open before goes on with what it had"


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.tensor(0.0))

    def forward(self, x):
        self.count = self.count + 1
        return x


def test_a_buffer_that_a_forward_replaces_comes_back():
    model = mlp()
    model[4].append(Counts())
    pipeline = opened(model)
    for _ in range(2):
        pipeline.step(*data(8))
    assert float(model[4][-1].count) == 8


def test_tensors_that_share_memory_are_refused():
    """The copy of a weight in a buffer stayed as it was and was written over what had been trained."""
    model = mlp()
    model[4].register_buffer("alias", model[4][0].weight.detach())
    with pytest.raises(
        ConfigurationError,
        match="of stage 1 share memory without being one parameter, and in another process they would not",
    ):
        opened(model)


def test_what_hangs_on_a_parameter_reaches_the_optimizer():
    model = mlp()
    model[0][0].bias.still = True

    def optimizer(named):
        still = [p for _, p in named if getattr(p, "still", False)]
        moving = [p for _, p in named if not getattr(p, "still", False)]
        return torch.optim.SGD([{"params": still, "lr": 0.0}, {"params": moving}], lr=0.1)

    before = {name: p.clone() for name, p in model.named_parameters()}
    opened(model, optimizer=optimizer).step(*data(8))
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == ["0.0.bias"]


def test_an_update_that_went_through_before_a_scheduler_raised_is_not_lost():
    model, twin = mlp(), mlp()

    def scheduler(optimizer):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=1)

    for net, launch in ((model, "processes"), (twin, "threads")):
        pipe = Pipeline(net, SCHEDULE, loss=mse, optimizer=adam, lr_scheduler=scheduler, launch=launch, device="cpu")
        with pytest.raises(ValueError, match="Tried to step"):
            for _ in range(3):
                pipe.step(*data(8))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_evaluating_leaves_the_callers_graph_alone():
    model, (x, y) = mlp(), data(8)
    pipeline = opened(model)
    loss = mse(model(x), y)
    pipeline.evaluate(x, y)
    pipeline.verify(x, y)
    loss.backward()


def test_inference_mode_around_one_call_spoils_no_other():
    pipeline, (x, y) = opened(mlp()), data(8)
    with torch.inference_mode():
        pipeline.evaluate(x, y)
    assert pipeline.step(x, y).loss > 0


class Shy(Exception):
    def __str__(self):
        raise ValueError("no words")


def test_an_exception_that_cannot_be_shown_leaves_no_one_waiting():
    def terms(targets):
        raise Shy

    with pytest.raises((Shy, PipelabError)):
        opened(mlp(), loss_terms=terms).step(*data(8))


def test_opening_can_be_interrupted(monkeypatch):
    monkeypatch.setattr(pool_module, "GRACE", 0.5)

    def build_stage(s):
        time.sleep(60)

    pool_module.release(pool_module.lease(3))  # warm
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        opened(build_stage)
    assert time.monotonic() - begun < 30
    timer.join()
