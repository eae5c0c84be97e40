"""A profile predicts any schedule, m, v and recomputation, and survives being sent round."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest

from pipelab import ConfigurationError, CostProfile, Costs, Link, Links, build_schedule, simulate
from tests.tuning.profiles import MB, profile


@pytest.mark.parametrize("name", ["naive", "gpipe", "1f1b", "interleaved"])
@pytest.mark.parametrize("m", [4, 8, 64])
def test_on_balanced_stages_it_is_the_textbook(name, m):
    """alpha + beta * b for every action is one number a micro-batch: what Costs would say."""
    schedule, b = build_schedule(name, 4, m), 64 / m if name != "naive" else 64
    found = profile().predict(schedule, 64)
    v = schedule.chunks
    costs = Costs(forward=[(0.002 + 0.0005 * b) / v] * 4 * v, backward=[2 * (0.002 + 0.0005 * b) / v] * 4 * v)
    expected = simulate(build_schedule(name, 4, m) if name != "naive" else build_schedule(name, 4, 1), costs)
    assert found.makespan == pytest.approx(expected.makespan)
    assert found.unit == "s"


def test_uneven_micro_batches_cost_what_they_hold():
    """64 in 12: four of 6 and eight of 5. On one device the step is the sum."""
    schedule = build_schedule("gpipe", 1, 12)
    alone = profile(1, (1,)).predict(schedule, 64)
    assert alone.makespan == pytest.approx(3 * (12 * 0.002 + 64 * 0.0005))
    spans = [span.duration for span in alone.spans if span.slot.op == "F"]
    assert spans[:4] == pytest.approx([0.002 + 0.003] * 4) and spans[4:] == pytest.approx([0.002 + 0.0025] * 8)


def test_what_is_recomputed_runs_a_bare_forward_first():
    """F that keeps only its input, then R and B: alpha/2 + alpha + 2 alpha, and one more beta."""
    schedule = build_schedule("gpipe", 1, 4, recompute=True)
    found = profile(1, (1,)).predict(schedule, 64)
    assert found.makespan == pytest.approx(4 * 3.5 * 0.002 + 64 * 4 * 0.0005)


@pytest.mark.parametrize(
    ("name", "m", "recompute", "sequences"),
    [("gpipe", 4, False, 64), ("gpipe", 64, False, 64), ("1f1b", 16, False, 16), ("gpipe", 16, True, 4)],
)
def test_memory_is_what_is_in_flight_and_what_stays(name, m, recompute, sequences):
    """Device 0. At a fixed batch gpipe holds all of it whatever m, 1f1b min(p, m) / m, recomputation one micro-batch
    and the inputs of the others."""
    made = profile()
    timeline = made.predict(build_schedule(name, 4, m, recompute=recompute), 64)
    held = made.memory(timeline)[0]
    assert held.model_states.total == 4 * MB
    inputs = 0.01 * MB * (64 - sequences if recompute else 0)
    gradient = 0.01 * MB * 64 / m  # it is there while the backward runs
    assert held.activations == pytest.approx(sequences * MB + inputs + gradient, abs=2)
    assert held.total == held.model_states.total + held.activations


def test_a_link_is_modelled_on_top_or_measured():
    schedule, made = build_schedule("gpipe", 4, 4), profile()
    free = made.predict(schedule, 64).makespan
    assert made.predict(schedule, 64, latency=0.01).makespan == pytest.approx(free + 2 * 3 * 0.01), "there and back"
    measured = made.costs(64, link=True)
    assert measured.latency == 2e-5 and measured.bandwidth == pytest.approx(1e9)
    with pytest.raises(ConfigurationError, match="bandwidth must be positive"):
        made.costs(64, link=True, bandwidth=0)
    nodes = Links.nodes(1, inside=Link(), between=Link(1e-5, 1e9))
    assert made.costs(64, links=nodes, link=True).links.of(0, 1).latency == pytest.approx(3e-5)
    both = made.costs(64, link=True, bandwidth=1e9, latency=1e-5)
    assert both.latency == pytest.approx(3e-5) and both.bandwidth == pytest.approx(5e8)


def test_m_star_is_where_the_formula_is_least():
    made = profile(alpha=0.001, beta=0.0005)
    star = made.best_microbatches(64)
    assert star == pytest.approx(math.sqrt(3 * 0.0005 * 64 / 0.001))

    def makespan(m):
        return (m + 3) * 3 * (0.001 + 0.0005 * 64 / m)

    assert makespan(star) < min(makespan(star * 0.99), makespan(star * 1.01))
    whole = min((m for m in range(1, 65)), key=lambda m: made.predict(build_schedule("gpipe", 4, m), 64).makespan)
    assert abs(whole - star) <= 2
    assert profile(alpha=0.0).best_microbatches(64) == math.inf


def test_it_is_the_same_after_a_round_trip(tmp_path):
    made = profile()
    made.save(tmp_path / "p.json")
    assert CostProfile.load(tmp_path / "p.json") == made


def test_scaled_is_the_same_model_on_another_device():
    made = profile().scaled(alpha=4.0)
    assert made.line().alpha == pytest.approx(4 * profile().line().alpha)
    assert made.line().beta == pytest.approx(profile().line().beta)
    assert made.best_microbatches(64) == pytest.approx(profile().best_microbatches(64) / 2)
    assert made.memory(made.predict(build_schedule("1f1b", 4, 8), 64)) == profile().memory(
        profile().predict(build_schedule("1f1b", 4, 8), 64)
    )


def test_a_backward_cut_in_two_costs_and_holds_what_its_halves_do():
    """On one device: F, I and W of 1, 1.2 and 0.9 forwards. What waits for W is less than what waited for I."""
    schedule = build_schedule("zb-h1", 4, 8)
    found = profile().predict(schedule, 64)
    spans = [(s.slot.op, s.duration) for s in found.on_device(0)]
    assert sum(t for op, t in spans if op in "IW") == pytest.approx(8 * 2.1 * (0.002 + 8 * 0.0005))
    plain = {n: tuple(replace(s, waiting=s.kept) for s in cut) for n, cut in profile().stages.items()}
    assert sum(found.peak_bytes) < sum(replace(profile(), stages=plain).predict(schedule, 64).peak_bytes)
    assert profile().scaled(alpha=2, beta=2).predict(schedule, 64).makespan == pytest.approx(2 * found.makespan)


def test_a_profile_without_halves_says_so_and_is_still_read(tmp_path):
    """As all were that were taken before."""
    path = tmp_path / "older.json"
    profile().save(path)
    told = json.loads(path.read_text())
    for cut in told["stages"].values():
        for stage in cut:
            del stage["input_gradient"], stage["weight_gradient"], stage["waiting"]
    path.write_text(json.dumps(told))
    older = CostProfile.load(path)
    assert not older.splits and profile().splits
    assert older.predict(build_schedule("1f1b", 4, 8), 64) == profile().predict(build_schedule("1f1b", 4, 8), 64)
    with pytest.raises(ConfigurationError, match=r"without the halves of a backward .*take a profile with split=True"):
        older.predict(build_schedule("zb-h1", 4, 8), 64)


def test_a_cut_that_was_not_profiled_is_refused_with_what_there_is():
    with pytest.raises(ConfigurationError, match=r"cut into 4, 8 stages .* not into 12"):
        profile().predict(build_schedule("interleaved", 4, 4, 3), 64)


def test_a_file_that_calls_model_states_resident_is_read(tmp_path):
    """As they were called before: profiles are kept for months."""
    path = tmp_path / "older.json"
    profile().save(path)
    path.write_text(path.read_text().replace('"model_states"', '"resident"'))
    assert CostProfile.load(path).stages == profile().stages


@pytest.mark.parametrize(
    "damage",
    [
        lambda told: told.pop("stages"),
        lambda told: told["stages"]["4"].pop(),
        lambda told: told["stages"]["4"][0].pop("backward"),
        lambda told: told["stages"]["4"][0]["forward"].update(alpha=-1),
        lambda told: told["stages"]["4"][0]["forward"].update(alpha="x"),
        lambda told: told["stages"]["4"][0]["weight_gradient"].update(alpha=-1),
        lambda told: told["stages"]["4"][0].pop("waiting"),
        lambda told: told.update(stages=[]),
        lambda told: told.update(format="something else"),
        lambda told: told.update(devices=0),
        lambda told: told.update(devices=4.7),
        lambda told: told.update(tokens="many"),
        lambda told: told.update(about=None),
        lambda told: told["stages"]["4"][0].update(update=float("nan")),
        lambda told: told["stages"]["4"][0].update(update=-1),
        lambda told: told["stages"]["4"][0]["model_states"].update(weights=-1),
        lambda told: told["stages"]["4"][0]["forward"].update(beta=1e308),
    ],
)
def test_a_damaged_file_is_said_to_be(damage, tmp_path):
    path = tmp_path / "p.json"
    profile().save(path)
    told = json.loads(path.read_text())
    damage(told)
    path.write_text(json.dumps(told))
    with pytest.raises(ConfigurationError, match=r"p\.json"):
        CostProfile.load(path)


def test_what_is_no_file_is_said_to_be(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        CostProfile.load(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(ConfigurationError, match="no cost profile"):
        CostProfile.load(tmp_path / "text.json")
    with pytest.raises(ConfigurationError, match="there is worked_example"):
        CostProfile.shipped("mine")


def test_the_shipped_profile_is_loaded_by_name_where_no_file_has_it_and_has_halves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = CostProfile.load("worked_example")
    assert found == CostProfile.shipped() and found.splits and found.recomputes
    for stage in (one for cut in found.stages.values() for one in cut[1:]):
        both = stage.input_gradient(8) + stage.weight_gradient(8)
        assert stage.backward(8) < both < 1.7 * stage.backward(8), "as measured: two passes take more than one"
        assert stage.waiting(8) > stage.kept(8)
    replace(found, devices=2).save("worked_example")
    assert CostProfile.load("worked_example").devices == 2


def test_the_shipped_profile_is_of_the_worked_example_and_needs_no_torch():
    code = (
        "import sys; from pipelab import CostProfile, shortlist\n"
        "made = CostProfile.shipped(); best = shortlist(made, 64).best\n"
        "assert made.devices == 4 and sorted(made.stages) == [4, 8] and made.tokens == 32, made\n"
        "assert 5 < made.best_microbatches(64) < 12, made\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "CostProfile(p = 4, cut into 4 and 8 stages: t(b) =" in repr(CostProfile.shipped())
