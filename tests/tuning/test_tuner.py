"""The tuner on real models: nothing is chosen that does not run, and the model is left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError, Link, Links, profile_costs, tune
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.tuning import Candidate, Line

BATCH = text_batch(0, 16)


def adam(named):
    return torch.optim.AdamW([p for _, p in named], lr=1e-3)


def small():
    return TransformerLM(layers=8, width=16, heads=2)


QUICK = {"loss": next_byte_loss, "optimizer": adam, "rounds": 2, "steps": 1, "progress": False}


@pytest.fixture(scope="module")
def profile():
    return profile_costs(small(), *BATCH, loss=next_byte_loss, sizes=(2, 4), repeats=1, optimizer=adam, progress=False)


def test_the_best_few_are_really_run_and_the_model_left_alone(profile):
    model = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = tune(model, *BATCH, profile=profile, measure=2, **QUICK)
    assert len(found.measured) >= 2 and found.best in found.measured
    assert set(found.ranked) == set(found.measured)
    assert any(c.microbatches == 16 for c in found.measured), "4p, where practitioners start"
    for candidate, row in found.measured.items():
        assert len(row.seconds) == 2 and min(row.seconds) > 0
        assert max(held.total for held in row.memory) == pytest.approx(found[candidate].peak_bytes, rel=0.05)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_is_measured_has_the_links_that_were_predicted(profile):
    """One message from device 1 to 2 takes longer than all else, and its gradient again."""
    links, few = Links(pairs={(1, 2): Link(1.0)}), {"schedules": ["1f1b"], "microbatches": [4], "recompute": [False]}
    found = tune(small(), *BATCH, profile=profile, links=links, **few, **QUICK)
    (row,), (predicted,) = found.measured.values(), found.forecasts
    assert predicted.makespan > 2 and row.makespan == pytest.approx(predicted.makespan, rel=0.1)


def test_a_limit_keeps_out_what_would_cross_it(profile):
    free = tune(small(), *BATCH, profile=profile, measure=0, **QUICK)
    limit = 0.5 * max(f.peak_bytes for f in free.forecasts)
    found = tune(small(), *BATCH, profile=profile, measure=2, memory_limit=limit, **QUICK)
    assert all(f.peak_bytes <= limit for f in found.fitting) and len(found.fitting) < len(found.forecasts)
    assert all(row.failed is None for row in found.measured.values())


def halved(profile):
    """A profile that says that a sequence keeps half of what it does."""
    cuts = {n: tuple(replace(s, kept=Line(0.0, s.kept.beta / 2)) for s in cut) for n, cut in profile.stages.items()}
    return replace(profile, stages=cuts)


def test_a_prediction_that_was_wrong_about_memory_is_found_out(profile):
    """The runs meet the wall, and the next few are tried: 1f1b at m = 16 holds a quarter."""
    wrong = halved(profile)
    settings = QUICK | {
        "profile": wrong,
        "schedules": ["gpipe", "1f1b"],
        "recompute": [False],
        "microbatches": [2, 4, 16],
    }
    free = tune(small(), *BATCH, measure=0, **settings)
    limit = 1.2 * max(f.peak_bytes for f in free.forecasts)
    found = tune(small(), *BATCH, measure=1, memory_limit=limit, **settings)
    failed = [row.failed for row in found.measured.values() if row.failed]
    assert failed and all("out of memory on device" in why for why in failed)
    assert found.measured[found.best].failed is None


def test_when_all_that_is_tried_fails_it_says_so(profile):
    wrong = halved(profile)
    settings = QUICK | {"profile": wrong, "schedules": ["gpipe"], "recompute": [False], "microbatches": [2, 4, 8]}
    limit = 1.2 * max(f.peak_bytes for f in tune(small(), *BATCH, measure=0, **settings).forecasts)
    with pytest.raises(
        ConfigurationError, match=r"none of the 3 candidates that were tried ran to the end.*out of memory"
    ):
        tune(small(), *BATCH, measure=1, memory_limit=limit, **settings)


def test_a_layer_of_ones_own_that_redraws_keeps_recomputation_out():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.1)) for _ in range(8)))
    data = torch.randn(16, 6), torch.randn(16, 6)
    found = tune(model, *data, measure=0, **(QUICK | {"loss": nn.functional.mse_loss}))
    assert not any(f.candidate.recompute for f in found.forecasts)
    assert any("draw another mask" in entry.reason for entry in found.discarded)


def test_the_profile_is_handed_over_before_anything_can_fail(profile):
    kept = []
    with pytest.raises(ConfigurationError, match="no candidate fits"):
        tune(small(), *BATCH, profile=profile, memory_limit="1kB", on_profile=kept.append, **QUICK)
    assert kept == [profile]


def test_it_profiles_by_itself_and_shows_progress(capsys):
    settings = QUICK | {"progress": True}
    found = tune(small(), *BATCH, measure=1, schedules=["1f1b"], microbatches=[4, 8], recompute=[False], **settings)
    assert found.best in (Candidate("1f1b", 4), Candidate("1f1b", 8))
    err = capsys.readouterr().err
    assert "profile" in err and "measure" in err


def test_it_cuts_where_the_busiest_device_has_least_to_do():
    """Eight small layers and a wide one: the device that has the wide one gets few others, and runs them so."""
    wide = [nn.Sequential(nn.Linear(16, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 16))]
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(8)), *wide)
    x, y = torch.randn(16, 16), torch.randn(16, 16)
    quick = {"optimizer": adam, "rounds": 1, "steps": 1, "progress": False}
    found = tune(model, x, y, loss=nn.functional.mse_loss, devices=2, schedules=["1f1b"], plan=True, **quick)
    (at,) = found.profile.about["cuts"]["2"]
    assert at > 5  # cut evenly it would be 5
    assert found.measured and f"begin with layers [{at}]" in found.report()


def test_a_cut_that_the_model_does_not_have_is_left_out_with_its_reason():
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(6)))
    data = torch.randn(8, 6), torch.randn(8, 6)
    settings = QUICK | {"loss": nn.functional.mse_loss}
    found = tune(model, *data, measure=0, **settings)
    assert {f.candidate.chunks for f in found.forecasts} == {1}
    (why,) = [entry.reason for entry in found.discarded if "stages" in entry.reason]
    assert "interleaved" in why and "zb-v" in why and "with v = 2" in why


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"devices": 32}, "cannot fill p = 32"),
        ({"memory_limit": "1kB"}, "no candidate fits in 1.0 kB per device: .* needs least"),
        ({"schedules": []}, "there is no candidate"),
        ({"rounds": 0}, "rounds must be"),
        ({"measure": -1}, "measure must be"),
        ({"memory_limit": "much"}, "memory_limit must be"),
        ({"devices": 2}, "the profile is for p = 4 devices, not for 2"),
        ({"clock": "unit"}, "clock must be 'device' or 'wall'"),
        ({"measure": False}, "measure must be"),
        ({"schedules": ["interleaved"], "chunks": [64]}, "no candidate left. interleaved with v = 64"),
    ],
)
def test_what_cannot_work_is_said(settings, says, profile):
    with pytest.raises(ConfigurationError, match=says):
        tune(small(), *BATCH, **({"profile": profile, "measure": 1} | QUICK | settings))
