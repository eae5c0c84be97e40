"""Jobs of a flow, as they are measured and run."""

import torch

from pipelab.flow import Flow, Resource, Stage


def test_a_profile_measures_jobs_on_one_core_as_they_run():
    """With a pool of threads in an operator, the CPU time of one of them was taken for the cost of the job."""
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        flow = Flow(Stage("look", lambda _: seen.append(torch.get_num_threads()), Resource("core")))
        flow.profile([0], progress=False)
        flow.run([0], progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1]
