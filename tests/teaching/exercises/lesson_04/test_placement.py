"""What the check of placements accepts."""

import numpy as np

from tests.teaching.exercises.trying import open_parts


def test_placement_in_other_forms():
    def on(r, layers, p, v):
        return np.arange(layers).reshape(v, p, -1)[:, r]  # chunk by chunk

    assert not open_parts("placement", device_of=lambda s, p, v: np.int64(s % p), layers_on=on)
    assert not open_parts("placement", device_of=lambda s, p, v: float(s % p), layers_on=lambda *a: set(on(*a).flat))
    assert not open_parts("placement", device_of=lambda s, p, v: s % p, layers_on=lambda *a: list(on(*a)))
