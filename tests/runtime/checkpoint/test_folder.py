"""A crash at any moment leaves the last complete checkpoint; nothing is left behind, none is removed too early."""

import errno
import json
import os
import shutil
import sys
import threading

import pytest

from pipelab import ConfigurationError, PipelabError, newest_checkpoint
from pipelab.runtime.checkpoint import folder as folders
from pipelab.runtime.checkpoint.export import export_safetensors
from tests.runtime.checkpoint.small import model, momentum, opened, state, trained


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def small(seed=0):
    return opened(built=model(seed, plain=False), optimizer=momentum, schedule=("naive", 1, 1))


# ---- crashes ---------------------------------------------------------------------------------------------------------

TOUCHING = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "fcntl.flock", "fsync"}


def ended_at(k, work):
    """Do ``work`` in a process that dies, as by SIGKILL, just before it touches the disk for the k-th time."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    count, fsync = 0, os.fsync

    def heard(event, arguments):
        nonlocal count
        if event in TOUCHING or (event == "open" and "w" in str(arguments[1])):
            count += 1
            if count == k:
                os._exit(9)

    try:
        os.fsync = lambda file: (sys.audit("fsync", file), fsync(file))
        sys.addaudithook(heard)
        work()
        os._exit(0)
    finally:
        os._exit(1)


def test_a_crash_at_any_moment_leaves_the_old_or_the_new_one_whole(tmp_path):
    """Also one that repeats a step, so that it replaces what is there."""
    base, folder = tmp_path / "base", tmp_path / "folder"
    with small() as pipeline:
        for _ in range(3):
            trained(pipeline, [pipeline.step_number])
            pipeline.save(base)
        before = state(pipeline)
        (base / ".step-00000009.0123").mkdir()  # an earlier crash's
        for again in (False, True):
            if not again:
                trained(pipeline, [3])
            after = state(pipeline)
            seen, k = [], 0
            while True:
                k += 1
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(base, folder)
                code = ended_at(k, lambda: pipeline.save(folder))
                with small(seed=k) as other:
                    for path in folder.glob("step-*"):
                        other.load(path)  # what has a name is whole
                    other.load(folder)
                    seen.append(state(other))
                    assert seen[-1] in (before, after), f"after {k - 1} operations"
                    if k % 5 == 1:
                        other.save(folder)
                        steps = {name.split(".")[0] for name in names(folder)}
                        assert len(names(folder)) == len(steps) == 2, "what the crash has left is gone"
                if code == 0:
                    break
                assert code == 9
            assert k > 15 and seen[0] == before and seen[-1] == after
            assert seen.index(after) == len(seen) - seen[::-1].index(before) or again, "one moment decides"
            shutil.rmtree(base)
            shutil.copytree(folder, base)
            before = after


@pytest.mark.parametrize("k", range(1, 6))
def test_what_fails_leaves_nothing_and_takes_nothing_away(k, tmp_path, monkeypatch):
    """Each of: tensors, folder, index, description, folder."""
    calls, fsync = [], os.fsync

    def full(file):
        calls.append(file)
        if len(calls) == k:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    with small() as pipeline:
        trained(pipeline, [0])
        pipeline.save(tmp_path)
        trained(pipeline, [1])
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            pipeline.save(tmp_path)
        assert names(tmp_path) == ["step-00000001"]
        pipeline.save(tmp_path)
        assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert len(calls) > 6


def test_ctrl_c_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with small() as pipeline:
        monkeypatch.setattr(folders, "sync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pipeline.save(tmp_path)
        monkeypatch.undo()
        assert names(tmp_path) == []
        pipeline.save(tmp_path)


def test_a_checkpoint_is_saved_even_if_an_older_one_stays(tmp_path, monkeypatch):
    with small() as pipeline:
        pipeline.save(tmp_path)
        trained(pipeline, [0])

        def stuck(path, **_):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(shutil, "rmtree", lambda path, **how: None if how else stuck(path))
        with pytest.warns(UserWarning, match=r"is saved, but an older checkpoint could not be removed: .*denied"):
            path = pipeline.save(tmp_path, keep=1)
        assert newest_checkpoint(tmp_path) == path


# ---- which are kept --------------------------------------------------------------------------------------------------


def test_the_last_few_are_kept_and_a_step_may_be_saved_again(tmp_path):
    with small() as pipeline:
        for number in (1, 2, 3):
            pipeline.step_number = number
            assert pipeline.save(tmp_path).name == f"step-0000000{number}"
        assert names(tmp_path) == ["step-00000002", "step-00000003"]
        assert pipeline.save(tmp_path).name == "step-00000003.1"
        assert pipeline.save(tmp_path).name == "step-00000003.2"
        assert names(tmp_path) == ["step-00000002", "step-00000003.2"]
        pipeline.step_number = 2
        assert pipeline.save(tmp_path, keep=1).name == "step-00000002.1"
        assert names(tmp_path) == ["step-00000002.1", "step-00000003.2"], "a later one is left alone"
        assert newest_checkpoint(tmp_path).name == "step-00000003.2"
        for number in (10, 11, 123456789):
            pipeline.step_number = number
            pipeline.save(tmp_path, keep=None)
        assert len(names(tmp_path)) == 5
        assert newest_checkpoint(tmp_path).name == "step-123456789"
        with pytest.raises(ConfigurationError, match="keep must be a whole number of at least 1, got 0"):
            pipeline.save(tmp_path, keep=0)


def test_two_saves_at_once_are_refused_and_the_running_one_is_left_alone(tmp_path, monkeypatch):
    reached, go_on, write = threading.Event(), threading.Event(), folders.publish

    def waiting(*told):
        reached.set()
        assert go_on.wait(60)
        return write(*told)

    with small() as one, small() as two:
        monkeypatch.setattr("pipelab.runtime.checkpoint.save.publish", waiting)
        running = threading.Thread(target=one.save, args=[tmp_path])
        running.start()
        assert reached.wait(60)
        with pytest.raises(PipelabError, match=r"another Pipeline is saving into .*give each run a folder of its own"):
            two.save(tmp_path)
        go_on.set()
        running.join()
        assert names(tmp_path) == ["step-00000000"]
        assert one.load(tmp_path).step_number == 0


# ---- what cannot be found --------------------------------------------------------------------------------------------


def test_what_is_no_checkpoint_is_said(tmp_path):
    with small() as pipeline:
        path = pipeline.save(tmp_path / "run", data=1)
        half, other = tmp_path / "half", tmp_path / "other"
        shutil.copytree(path, half / ".step-00000001.ab")
        shutil.copytree(path, other / "step-00000001")
        (other / "step-00000001" / "pipelab.json").unlink()

        def refused(folder, message):
            before = state(pipeline)
            with pytest.raises(ConfigurationError, match=message):
                pipeline.load(folder)
            assert state(pipeline) == before

        refused(tmp_path / "none", "there is no folder .*none to load from")
        refused(tmp_path / "run" / "step-00000007", "step-00000000 is the newest beside it")
        refused(tmp_path, r"there is no checkpoint in .*; Pipeline.save\('.*'\) writes one")
        refused(half, "no checkpoint in .*half, only what a save had not finished")
        refused(other, "there is no checkpoint in .*other")
        refused(other / "step-00000001", "has no pipelab.json: it was not written by Pipeline.save, or not whole")
        told = json.loads((path / "pipelab.json").read_text())
        (path / "pipelab.json").write_text(json.dumps(told | {"format": 3, "pipelab": "7.1"}))
        refused(path, "is of format 3, written by pipelab 7.1; this one reads format 2: update pipelab")
        (path / "pipelab.json").write_text(json.dumps(told | {"format": 1}))
        refused(path, "is of format 1, .* rows of qkv in TransformerLM lie in another order since, so train it anew")
        with pytest.raises(ConfigurationError, match="is of format 1"):
            export_safetensors(path, tmp_path / "weights.safetensors")
        for text in ("{", "[]", "{}"):
            (path / "pipelab.json").write_text(text)
            refused(path, "step-00000000 is damaged")
        assert newest_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize("k", range(3))
def test_a_damaged_file_is_said_with_what_is_whole_beside_it(k, tmp_path):
    with small() as pipeline:
        pipeline.save(tmp_path)
        trained(pipeline, [0])
        path = pipeline.save(tmp_path)
        before = state(pipeline)
        file = sorted(path.iterdir())[k]
        for data in (file.read_bytes()[: file.stat().st_size // 2], b""):
            file.write_bytes(data)
            with pytest.raises(ConfigurationError, match=r"step-00000001 is damaged.*; beside it: step-00000000"):
                pipeline.load(tmp_path)
        file.unlink()
        if file.name == "pipelab.json":
            assert pipeline.load(tmp_path).step_number == 0, "not complete: the one before it counts"
        else:
            with pytest.raises(ConfigurationError, match=r"is damaged: FileNotFoundError.*beside it: step-00000000"):
                pipeline.load(tmp_path)
            assert state(pipeline) == before
        assert pipeline.load(path.with_name("step-00000000")).step_number == 0


@pytest.mark.parametrize("inside", ["", "below"])
def test_where_no_folder_can_be_made_a_sentence_says_so(inside, tmp_path):
    (tmp_path / "file").write_text("somebody's")
    folder = tmp_path / "file" / inside
    with opened() as pipeline, pytest.raises(ConfigurationError, match="cannot be made a folder for checkpoints: "):
        pipeline.save(folder)
    assert (tmp_path / "file").read_text() == "somebody's"
