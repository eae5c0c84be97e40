"""A process that ends, or hangs, ends the wait of all replicas; and says so."""

import json

import pytest

from tests.runtime.mesh.test_data import RANKS
from tests.runtime.processes.test_torchrun import agents


@pytest.mark.parametrize("case", ["killed", pytest.param("hangs", marks=pytest.mark.slow)])
def test_who_loses_a_replica_is_told(tmp_path, case):
    agents([RANKS, tmp_path, case], ranks=4, timeout=90)
    told = [json.loads((tmp_path / f"{rank}.json").read_text())[case] for rank in range(3)]
    for error, after in told:
        assert error.startswith(("LostProcessError", "TimeLimitError")), error
        assert after.startswith("LostProcessError") or "make a new" in after
    if case == "killed":
        assert "device 1 has ended, in 1F2" in told[0][0]  # in the other replica, as a note says
        assert "a process of this mesh is gone" in told[1][0]
