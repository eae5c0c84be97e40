"""All shapes of dp, pp and tp, each 1 or 2: against the unsplit model, and against what the planner of shapes says."""

import pytest

from tests.runtime.mesh.test_tensor import results


@pytest.mark.slow  # in make test: each axis alone, in test_data.py, test_sharded.py and test_tensor.py
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_gradients_twenty_steps_and_bytes(tmp_path, ranks):
    for rank in results(tmp_path, "cube", "planned", ranks=ranks):
        for shape, errors in rank["cube"].items():
            assert max(errors) < 1e-10, shape
        for shape, ratio in rank["planned"].items():
            assert ratio == pytest.approx(1, abs=0.1), shape
