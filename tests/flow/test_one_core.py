"""A worker is one core, whatever libraries do by themselves."""

import torch

from pipelab.flow import Flow, Resource, Stage
from pipelab.flow.one_core import _numpy_threads, one_core_each


def counts(_=None):
    told = _numpy_threads()
    return torch.get_num_threads(), 1 if told is None else told[0]()


def test_inside_each_library_has_one_thread_and_afterwards_as_many_as_before():
    before = counts()
    told = _numpy_threads()
    if told is not None:
        told[1](2)
    try:
        with one_core_each():
            assert counts() == (1, 1)
        assert told is None or told[0]() == 2
    finally:
        if told is not None:
            told[1](before[1])
    assert counts() == before


def test_jobs_run_so():
    flow = Flow(Stage("a", counts, Resource("core", 2)))
    assert flow.run(range(3), progress=False).results == [(1, 1)] * 3


def test_two_flows_at_once_leave_all_as_it_was():
    before = counts()
    first, second = one_core_each(), one_core_each()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert counts()[1:] == (1,) * len(counts()[1:])
    second.__exit__(None, None, None)
    assert counts() == before
