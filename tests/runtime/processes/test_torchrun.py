"""The same Pipeline under torchrun: one node, two nodes on loopback."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.setup import test_ties as ties

ROOT = Path(__file__).parents[3]
RANKS = Path(__file__).with_name("ranks.py")


LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


def environment(**more):
    """Over loopback: the name of a machine that runs tests may not resolve."""
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "GLOO_SOCKET_IFNAME": LOOPBACK}
    return os.environ | own | more


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def agents(command, *, nodes=1, ranks=4, env=None, timeout=200):
    """Run torchrun, one agent a node, and wait; returns them with their output."""
    port = free_port()
    each = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}", f"--nproc-per-node={ranks // nodes}"]
    each += ["--master-addr=127.0.0.1", f"--master-port={port}", "--monitor-interval=0.1"]
    running = [
        subprocess.Popen(
            [*each, f"--node-rank={node}", *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**(env or {})),
        )
        for node in range(nodes)
    ]
    try:
        outputs = [process.communicate(timeout=timeout) for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(running, outputs, strict=True)]


def results(folder, *cases, nodes=1, ranks=4):
    done = agents([RANKS, folder, *cases], nodes=nodes, ranks=ranks)
    assert all(code == 0 for code, _, _ in done), done[0][2][-3000:]
    files = [folder / f"{rank}.json" for rank in range(ranks)]
    return [json.loads(file.read_text()) if file.exists() else None for file in files]


EITHER = ("parity", "flushless", "halfway", "early", "failures", "frozen", "tied")
"""What is tried between two hosts, and in test-full between the processes of one host too."""


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Two agents of two processes each."""
    cases = (
        *(f"far_{case}" for case in EITHER),
        *("local_stages", "growing", "far_growing", "mesh", "disagreements", "watched", "patience", "muddle", "clocks"),
        *("far_deadlock", "far_outside", "far_collecting", "far_lending"),
    )
    return results(tmp_path_factory.mktemp("four"), *cases, nodes=2, ranks=4)


@pytest.fixture(scope="module", params=["far_", pytest.param("", marks=pytest.mark.slow)])
def either(request, tmp_path_factory):
    """By rank, what ``EITHER`` gave."""
    if request.param:
        return [{case: told[f"far_{case}"] for case in EITHER} for told in request.getfixturevalue("four")]
    return results(tmp_path_factory.mktemp("near"), *EITHER, nodes=2, ranks=4)


def test_two_nodes_give_what_threads_and_the_unsplit_model_give(either):
    for rank, told in enumerate(either):
        for name, found in told["parity"].items():
            assert found["loss"], (rank, name)
            assert found["verify"] < 1e-14
            assert found["peaks"]
            assert found["messages"] == {"naive": 6, "gpipe": 30, "1f1b": 30, "interleaved": 112}[name]
    for found in either[0]["parity"].values():
        assert found["gradients"] < 1e-12
        assert found["weights"], "what rank 0 gathers is, bit for bit, what threads train"


def test_without_a_flush_two_nodes_train_as_threads_do(either):
    peaks = {"pipedream": [4, 3, 2, 1], "vertical-sync": [4, 4, 4, 4], "2bw": [2, 2, 2, 2]}
    for told in either:
        for name, found in told["flushless"].items():
            assert found["loss"] and found["weights"], name
            assert found["versions"] == peaks[name]
            assert found["under_way"] == 3
            assert "saving is not possible while micro-batches are under way (3)" in found["refused"]


def test_a_step_that_fails_halfway_leaves_nothing_under_way_on_any_rank(either):
    """Only the rank that failed had forgotten; and a rank that left by an exception had trained on before."""
    for rank, told in enumerate(either):
        found = told["halfway"]
        assert "ValueError on device 0, stage 0" in found["late"]
        assert found["under_way"] == 0
        assert "saving is not possible after a step that has failed" in found["refused"]
        assert found["weights"]
        assert found["left"].startswith("KeyError" if rank == 1 else "LostProcessError"), found["left"]
        assert rank == 1 or found["left_under_way"] == 0


def test_every_rank_steps_early_and_takes_it_back_from_where_it_was(either):
    for rank, told in enumerate(either):
        assert told["early"]["weights"]
        for step, (early, rolled_back, updates, from_the_same) in enumerate(told["early"]["steps"]):
            assert rolled_back == bool(step % 2)
            assert 0 < len(early) < 4 if rolled_back else early == [0, 1, 2, 3]
            assert updates == (2 if rolled_back and rank in early else 1)
            assert from_the_same


def test_layers_are_built_only_where_they_live(four):
    for rank, told in enumerate(four):
        found = told["local_stages"]
        assert found["built"] == [rank, rank + 4]
        assert {name.split(".")[1] for name in found["names"] if "layers" in name} == {str(rank), str(rank + 4)}
        assert any(name.startswith("embed.") for name in found["names"]) == (rank == 0)
        assert found["loaded"], "each rank takes its own from the whole model's state"
        assert "the state does not match this model: head.norm.bias" in found["refused"]


def test_what_two_ranks_hold_is_trained_as_one_and_saved_once(either):
    for rank, told in enumerate(either):
        found = told["tied"]
        assert found["verify"] < 1e-13 and found["after"] < 1e-13, "the copy of the model gets the weights of all ranks"
        assert ties.same(found["steps"], ties.trained(ties.LM()))
        assert found["again"], "weights and what the optimizers remember, gathered and loaded, go on as before"
        assert found["fifth"] == either[0]["tied"]["fifth"]
        assert "the state has no 'embed.weight'" in found["odd"]
        assert found["states"] == sorted(name for name, _ in ties.LM().named_parameters())
        assert found["weights"] == found["states"]
        if rank in (0, 3):
            assert "is held by a" in found["unseen"] and "say so, tied=[(name, its name there)]" in found["unseen"]
        assert found["said"] < 1e-13


def test_what_goes_wrong_on_one_rank_is_the_same_sentence_on_all(either):
    for told in either:
        found = told["failures"]
        assert found["stage"].startswith("StageError: ZeroDivisionError on device 3, stage 3, action 3F0")
        assert found["again"] < found["good"], "no rank has stepped, and all go on"
        assert "disagree about the number of sequences: 8 on rank 0, 7 on rank 1" in found["batch"]
        assert "inputs must be a tensor or a tuple of tensors, got NoneType" in found["inputs"]
        assert "disagree about what to run: 'evaluate' on rank 0, 'step' on rank 1" in found["what"]
        assert found["end"] < found["again"]


def test_ranks_have_patience_with_each_other_and_name_who_is_missing(four):
    """A rank that was busy for more than a minute had cost the others their connections."""
    for rank, told in enumerate(four):
        assert told["patience"]["falls"]
        if rank:
            assert f"rank {rank} has waited 2 s for rank 0 to come" in told["patience"]["missing"]
    assert "rank 0 cannot connect to the others" in four[0]["patience"]["missing"], "they were there, and have left"


def test_a_failure_is_said_in_the_store_too(four):
    for told in four:
        assert "ZeroDivisionError on device 1, stage 1" in told["watched"]["told"]
        assert told["watched"]["seen"]
        assert told["watched"]["again"] == "nothing was raised"


def test_ranks_that_call_different_things_are_told(four):
    assert all("the ranks of this pipeline disagree about what to do" in told["muddle"] for told in four)


def test_a_frozen_first_stage_is_waited_for(either):
    """Its gradient messages are empty: once they were not sent at all, and used before they were there."""
    assert all(told["frozen"] for told in either)


def test_shapes_may_differ_from_message_to_message_but_not_between_hosts(four):
    """Rank 1's go to rank 2, of the other host."""
    for told in four:
        assert told["growing"] == "nothing was raised"
        assert "stage 1 sends float64[4, " in told["far_growing"]
        assert "between hosts shapes may depend on sizes only" in told["far_growing"]


def test_ranks_that_build_different_things_are_told_the_difference(four):
    for told in four:
        found = told["disagreements"]
        assert "rank 0 has '1f1b' for 4 devices, 4 micro-batches, rank 3 has 'gpipe'" in found["schedule"]
        assert "0.0.weight is float64[6, 5] on rank 0 and float64[7, 5] on rank 3" in found["layers"]
        assert "seed is 0 on rank 0 and 1 on rank 3" in found["seed"]
        assert "tied is () on rank 0 and (('0.0.weight', '1.0.weight'),) on rank 3" in found["tied"], "they had hung"
        assert "grad_scaler is None on rank 0 and {'scale': 65536.0" in found["scaler"]
        assert "the schedule has 5 devices, but 4 processes were started" in found["devices"]
        assert found["fine"] == "nothing was raised"


def test_clocks_of_two_hosts_are_aligned(four):
    for told in four:
        found = told["clocks"]
        assert found["offsets"] == [0, 0, -100, -100]
        assert 0 < found["slack"] < 0.1
        assert found["on rank 0's clock"]
        assert 0 < found["makespan"] < 50, "not a hundred seconds apart"
        assert "a link is modelled between processes of one host only" in found["modelled"]


def test_data_parallelism_fits_around_it(four):
    for rank, told in enumerate(four):
        found = told["mesh"]
        assert found["error"] < 1e-14
        assert found["rank"] == rank % 2, "ranks count within the pipeline's own group"
        assert "the schedule has 3 devices, but 2 processes were started" in found["size"]


@pytest.mark.slow  # in make test: in threads and processes
def test_a_slot_that_differs_is_named_and_a_two_way_table_is_proved(tmp_path):
    found = results(tmp_path, "disagreements", "two_way", ranks=2)
    for told in found:
        assert max(told["two_way"]) < 1e-13, "verify had compared what two ranks told of one stage, to sort it"
        assert "slot 2 of device 0 is 0B0 on rank 0 and 0F2 on rank 1" in told["disagreements"]["slot"]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """One thing after another goes wrong; each is answered, and the next Pipeline is none the worse."""
    cases = ("listening", "deadlock", "stuck", "stopped", "outside", "collecting", "lending", "quits")
    return results(tmp_path_factory.mktemp("three"), *cases, ranks=3)


@pytest.mark.slow  # test_pool.py looks at sockets too
def test_the_ranks_of_one_host_listen_on_loopback_only(three):
    assert [one["listening"] for one in three if one] == [["127.0.0.1"]] * 3


@pytest.mark.slow  # in make test: in processes
def test_a_deadlock_is_seen_within_a_host_and_between_hosts(three, four):
    for each, name, a, b in ((three, "deadlock", 0, 1), (four, "far_deadlock", 1, 2)):
        for told in (one[name] for one in each):
            assert f"DeadlockError: deadlock: device {a} waits for device {b} waits for device {a}" in told["said"], (
                told
            )
            assert f"device {a} waits before {a}B1 for the gradient of {b}B1 from device {b}" in told["said"]
            assert told["seconds"] < 5


@pytest.mark.slow
@pytest.mark.parametrize("case", ["stuck", "stopped"])
def test_a_rank_that_does_not_answer_is_named_by_one_that_waits(three, case):
    told = [one[case] for one in three]
    assert any("TimeLimitError" in one["said"] and "within 2 s" in one["said"] for one in told), told
    assert any(re.search("device 1 is (still )?(in 1F|waiting before)", one["said"]) for one in told[::2]), told
    assert all(one["seconds"] < 7 for rank, one in enumerate(told) if rank != 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "where"),
    [
        ("outside", "device 2 is in the update"),
        ("collecting", "device 2 is in the update"),
        ("lending", "device 2 is still at the beginning of a call, in another process"),
    ],
)
def test_a_rank_that_is_stopped_between_steps_is_named(three, case, where):
    told = [one[case]["said"] for one in three]
    assert any(where in text and "TimeLimitError" in text for text in told), told


def test_a_rank_that_is_stopped_on_another_host_is_named(four):
    """Of its state there nothing is known but what it said last."""
    for case in ("far_outside", "far_collecting", "far_lending"):
        told = [one[case]["said"] for one in four]
        assert any("TimeLimitError" in text and "device 3 is" in text for text in told[:2]), told


@pytest.mark.slow
def test_where_a_rank_was_is_told_when_it_is_gone(three):
    assert "quits" not in three[1]
    for rank in (0, 2):
        assert "the process of device 1 has ended, in 1F0 (stage 1, micro-batch 0)" in three[rank]["quits"]["said"]
        assert three[rank]["quits"]["seconds"] < 5


@pytest.mark.slow  # between two calls instead of in an action
def test_a_rank_that_is_gone_is_noticed_by_the_others(tmp_path):
    found = results(tmp_path, "dies", ranks=3)
    for rank in (0, 2):
        assert "LostProcessError: the process of device 1 has ended, between two calls" in found[rank]["dies"]["said"]


# ---- the command line ------------------------------------------------------------------------------------------------

SMALL = shlex.split("--layers 4 --width 16 --heads 2 --tokens 8 --batch 8 --dtype float64 --steps 2")


def test_pipelab_run_joins_the_group_and_only_rank_0_speaks(tmp_path):
    command = ["-m", "pipelab", "run", "1f1b", "-m", "4", *SMALL, "--json", "-", "--trace", tmp_path / "trace.json"]
    ((code, out, _),) = agents(command, ranks=2)
    assert code == 0
    found = json.loads(out)
    assert (found["devices"], found["launch"], found["backend"]) == (2, "processes", "gloo")
    assert found["max_gradient_error"] < 1e-12
    assert found["measured"]["messages"] == 8
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


@pytest.mark.parametrize(
    ("command", "env", "message"),
    [
        (["1f1b", "-p", "4"], {}, "the schedule has 4 devices, but 2 processes were started"),
        pytest.param(
            *(["interleaved", "-m", "5"], {}, "m = 5, p = 2 cannot make 2 equal groups; try 4 or 6"),
            marks=pytest.mark.slow,  # the catalogue's sentence, on the way of the line above
        ),
        pytest.param(
            *(["1f1b", "--launch", "threads"], {}, "--launch threads runs all devices in one process"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["1f1b"],
            {"GLOO_SOCKET_IFNAME": "eth77"},
            "GLOO_SOCKET_IFNAME=eth77: this host has no network interface",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_cannot_work_under_torchrun_is_one_sentence(command, env, message):
    ((code, _, err),) = agents(["-m", "pipelab", "run", *command, *SMALL], ranks=2, env=env)
    assert code != 0
    lines = [line for line in err.splitlines() if line.startswith("pipelab")]
    assert any(message in line for line in lines), err[-2000:]
    assert "pipelab/__main__.py" not in err, "a sentence, and no traceback of ours"


def test_a_port_that_is_in_use_is_a_sentence():
    """Started by hand: rank 0 cannot listen where something else does."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = environment(RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        command = [sys.executable, "-m", "pipelab", "run", "1f1b", *SMALL]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert f"rank 0 of 2 cannot join the others at 127.0.0.1:{port}" in done.stderr
    assert "Is the port free there" in done.stderr


def test_a_half_set_environment_is_a_sentence():
    env = environment(RANK="0", WORLD_SIZE="2")
    env.pop("MASTER_ADDR", None)
    command = [sys.executable, "-m", "pipelab", "run", "1f1b", *SMALL]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "RANK and WORLD_SIZE are set, but not MASTER_ADDR and MASTER_PORT" in done.stderr
