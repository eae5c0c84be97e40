"""States of the explorer for tests."""

from hypothesis import strategies as st

from pipelab.teaching.explorer import Settings
from pipelab.teaching.explorer.settings import BATCH, CONTROLS, MICROBATCH, explored
from tests.strategies import shapes

NAMES = list(explored())

COSTS = (0.125, 1.0, 2.0, 3.5)


@st.composite
def even(draw, max_p=6, max_m=16, max_v=3):
    """Settings for which the papers' formulas are meant: instant messages, micro-batches and groups of one size."""
    name, p, m, v = draw(shapes(NAMES, max_p, max_m, max_v))
    if name in ("interleaved", "interleaved-zb"):
        m = -(-m // p) * p  # in groups of p
    m = max(m, {"looped-bfs": p, "zb-h1": p, "zb-v": 2 * p}.get(name, 1))
    forward, backward = draw(st.sampled_from(COSTS)), draw(st.sampled_from(COSTS))
    tI, tW = sorted(draw(st.lists(st.sampled_from(COSTS), min_size=2, max_size=2)), reverse=True)
    if name == "chimera":
        backward = forward
    elif name == "zb-v":
        tI = tW = forward
    elif name == "dualpipev":
        forward, backward = tI, tI + tW
    elif name == "zb-h2":
        tI = min(tI, 2 * tW)
    return Settings(
        schedule=name,
        devices=p,
        microbatches=m,
        chunks=v,
        forward=max(forward, tW) if name in ("zb-h1", "zb-h2", "interleaved-zb") else forward,
        backward=backward,
        input_gradient=tI,
        weight_gradient=tW,
        overhead=draw(st.sampled_from([0.0, 0.0, 0.25, 2.0])) if name != "dualpipev" else 0.0,
        fixed=draw(st.sampled_from([BATCH, MICROBATCH])),
        batch=m * draw(st.sampled_from([1, 3, 4])),
        recompute=draw(st.booleans()) and name != "dualpipev",
    )


@st.composite
def anything(draw, max_p=16, max_m=128, **fixed):
    """Any state that the controls can be brought into: many of them impossible."""

    def whole(name, most):
        return st.integers(int(CONTROLS[name].low), min(most, int(CONTROLS[name].high)))

    values = {
        "schedule": st.sampled_from(NAMES),
        "compare": st.sampled_from(["", "", *NAMES]),
        "devices": whole("devices", max_p),
        "microbatches": whole("microbatches", max_m),
        "chunks": whole("chunks", 8),
        "warmup": st.sampled_from([0, 0, -8, -1, 1, 3, 8]),
        "forward": st.sampled_from([0.1, 1.0, 10.0]),
        "backward": st.sampled_from([0.1, 1.0, 2.0, 10.0]),
        "input_gradient": st.sampled_from([None, 0.1, 1.0, 10.0]),
        "weight_gradient": st.sampled_from([None, 0.1, 1.0, 10.0]),
        "overhead": st.sampled_from([0.0, 0.5, 5.0]),
        "latency": st.sampled_from([0.0, 0.5, 5.0]),
        "fixed": st.sampled_from([BATCH, MICROBATCH]),
        "batch": whole("batch", 512),
        "limit": st.sampled_from([None, None, 1.0, 20.0, 60.0, 200.0]),
        "recompute": st.booleans(),
    }
    return Settings(**{name: fixed[name] if name in fixed else draw(value) for name, value in values.items()})
