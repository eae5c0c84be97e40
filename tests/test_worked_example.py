"""The main job: 48 layers, p = 4, m = 4, 64 text sequences, through all four schedules from the command line."""

from __future__ import annotations

import json

import pytest

from pipelab import OutOfMemoryError, Pipeline, build_schedule
from pipelab.__main__ import main
from pipelab.models import TransformerLM, next_byte_loss, text_batch

CASES = {
    "naive": ([], 0.75, 0.03, [1, 1, 1, 1], [64, 64, 64, 64]),
    "gpipe": ([], 3 / 7, 0.03, [4, 4, 4, 4], [64, 64, 64, 64]),
    "1f1b": ([], 3 / 7, 0.03, [4, 3, 2, 1], [64, 48, 32, 16]),
    "interleaved": (["-v", "2"], 3 / 11, 0.04, [4, 4, 3.5, 2.5], [64, 64, 56, 40]),
}


def run(capsys, name, *more):
    args = ["run", name, "-p", "4", "-m", "4", "--layers", "48", "--dtype", "float64", "--json", "-", *more]
    assert main([*args, *CASES[name][0]]) == 0
    return json.loads(capsys.readouterr().out)


# The lessons measure all of these too; here the one that is compared most.
LONG = [pytest.mark.slow]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "1f1b" else LONG) for n in CASES])
def test_predicted_and_measured_and_proven_against_the_unsplit_model(name, capsys):
    _, bubble, tolerance, microbatches, sequences = CASES[name]
    out = run(capsys, name, "--steps", "5")
    assert out["schedule"] == name
    assert (out["devices"], out["microbatches"], out["layers"]) == (4, 4, 48)
    assert out["chunks"] == (2 if name == "interleaved" else 1)
    assert (out["launch"], out["clock"]) == ("threads", "device")
    assert 4 < out["loss"] < 7
    assert out["max_gradient_error"] <= 1e-10
    assert out["predicted"]["bubble_fraction"] == pytest.approx(bubble)
    assert out["measured"]["bubble_fraction"] == pytest.approx(bubble, abs=tolerance)
    for side in ("predicted", "measured"):
        assert out[side]["makespan"] > 0
        assert out[side]["peak_microbatches"] == microbatches
        assert out[side]["peak_sequences"] == sequences
    peaks = out["measured"]["peak_activation_bytes"]
    for found, held in zip(peaks, sequences, strict=True):
        assert found / peaks[0] == pytest.approx(held / sequences[0], rel=0.1)


FILLED = ("looped-bfs", "zb-h1", "zb-h2", "interleaved-zb", "zb-v", "v-half", "v-min", "dualpipev", "chimera")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILLED)
def test_the_bubble_filled_as_predicted_from_what_stages_cost(name, capsys):
    assert main(["run", name, "-p", "4", "-m", "8", "--dtype", "float64", "--json", "-"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["max_gradient_error"] <= 1e-10
    assert out["measured"]["bubble_fraction"] == pytest.approx(out["predicted"]["bubble_fraction"], abs=0.08)
    assert out["measured"]["peak_activation_bytes"] == pytest.approx(out["predicted"]["peak_bytes"], rel=0.02)


TEXTBOOK = {"naive": 32, "gpipe": 14, "1f1b": 14, "interleaved": 11}


@pytest.mark.parametrize(
    ("name", "makespan"), [pytest.param(*pair, marks=[] if pair[1] == 11 else LONG) for pair in TEXTBOOK.items()]
)
def test_with_the_unit_clock_exactly_the_textbook(name, makespan, capsys):
    out = run(capsys, name, "--clock", "unit", "--steps", "1", "--dropout", "0.1")
    assert out["measured"]["makespan"] == out["predicted"]["makespan"] == makespan
    assert out["measured"]["bubble_fraction"] == pytest.approx(CASES[name][1])
    assert out["max_gradient_error"] <= 1e-10


@pytest.mark.slow
def test_gpipe_with_recomputation_as_its_paper_has_it(capsys):
    out = run(capsys, "gpipe", "--recompute", "--steps", "2", "--dropout", "0.1")
    assert out["max_gradient_error"] <= 1e-10
    assert out["recompute"] is True
    plain = run(capsys, "gpipe", "--steps", "2")["measured"]["peak_activation_bytes"]
    for kept, recomputed in zip(plain, out["measured"]["peak_activation_bytes"], strict=True):
        assert recomputed < 0.35 * kept


LIMIT = "60MB"
WHOLE = (1, 2, 4, 8, 12, 16, 20, 32, 64)


@pytest.fixture(scope="module")
def model():
    return TransformerLM()


def step(model, name, m, batch, recompute=False):
    schedule = build_schedule(name, 4, m, recompute=recompute)
    limited = {"memory_limit": LIMIT, "device": "cpu", "clock": "wall"}
    return Pipeline(model, schedule, loss=next_byte_loss, **limited).step(*text_batch(0, batch))


@pytest.mark.parametrize("m", [pytest.param(m, marks=[] if m == 8 else LONG) for m in WHOLE])
def test_at_a_fixed_batch_gpipe_meets_the_memory_wall_whatever_m(m, model):
    """It holds the whole batch; the micro-batch in which the wall comes is the only thing that m moves."""
    with pytest.raises(OutOfMemoryError) as caught:
        step(model, "gpipe", m, 64)
    assert caught.value.action.endswith(f"F{caught.value.microbatch}")
    assert 0.4 <= caught.value.microbatch / m <= 0.6 or m < 4


def test_under_the_same_limit_1f1b_and_recomputation_run(model):
    held = [max(d.total for d in step(model, *kind).memory) for kind in (("1f1b", 16, 64), ("gpipe", 16, 64, True))]
    assert max(held) < 40e6


@pytest.mark.slow  # lesson 5 does it too
def test_at_a_fixed_micro_batch_of_4_gpipe_fails_beyond_some_m_and_1f1b_does_not(model):
    """Device 0 has room for 8 micro-batches of 4 sequences: m is bounded from above, for GPipe only."""
    assert step(model, "gpipe", 8, 8 * 4).loss > 0
    for m in (9, 12):
        with pytest.raises(OutOfMemoryError):
            step(model, "gpipe", m, m * 4)
    assert step(model, "1f1b", 12, 12 * 4).loss > 0
