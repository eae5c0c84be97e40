"""What does not fit is named, before anything changes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError
from tests.runtime.checkpoint.small import LAUNCHES, model, momentum, opened, state, trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with opened() as pipeline:
        trained(pipeline, range(2))
        return pipeline.save(tmp_path_factory.mktemp("saved")).parent


def wider():
    return nn.Sequential(*(nn.Linear(6, 9) if k == 0 else layer for k, layer in enumerate(model())))


def longer():
    return nn.Sequential(*model(), nn.Linear(3, 3))


def shorter():
    return model()[:-1]


REFUSED = {
    "wider": (
        wider,
        {},
        r"0.weight is \[9, 6\], the checkpoint .*step-00000002 has \[8, 6\]; make the model as it was",
    ),
    "longer": (longer, {}, r"does not fit this model: it has no '8.weight' and 1 more"),
    "shorter": (shorter, {}, r"does not fit this model: it also has '7.bias' and 1 more"),
    "optimizer": (model, {"optimizer": momentum}, "saved from another kind of optimizer than this SGD"),
    "scheduler": (
        model,
        {"lr_scheduler": None},
        "the state has a learning-rate scheduler's",
    ),
}


def _changed(change):
    def damage(path):
        told = json.loads((path / "pipelab.json").read_text())
        change(told)
        (path / "pipelab.json").write_text(json.dumps(told))

    return damage


NO_GENERATOR = {"cpu": {"$tensor": "model.0.bias"}, "cuda": []}
DAMAGED = {
    "nothing in it": lambda path: (path / "pipelab.json").write_text('{"format": 2}'),
    "too deep": lambda path: (path / "pipelab.json").write_text('{"format": 2, "data": ' + "[" * 10**5),
    "no number": _changed(lambda told: told.update(step_number="x")),
    "no pairs": _changed(lambda told: told.update(data={"$pairs": 3})),
    "no optimizer": _changed(lambda told: told.update(optimizer=[1])),
    "no generator": _changed(lambda told: told.update(random=dict.fromkeys(["0", "caller"], NO_GENERATOR))),
}


@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_description_that_someone_has_changed_is_damaged_and_changes_nothing(damage, launch, folder, tmp_path):
    path = Path(shutil.copytree(folder, tmp_path / "copy")) / "step-00000002"
    DAMAGED[damage](path)
    with opened(launch) as pipeline:
        before, drawn = state(pipeline), torch.get_rng_state()
        with pytest.raises(ConfigurationError, match="step-00000002 is damaged"):
            pipeline.load(path)
        assert state(pipeline) == before
        assert torch.get_rng_state().equal(drawn)


@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_changes_nothing(case, launch, folder):
    built, more, message = REFUSED[case]
    with opened(launch, built(), **more) as pipeline:
        before, drawn = state(pipeline), torch.get_rng_state()
        with pytest.raises(ConfigurationError, match=message):
            pipeline.load(folder)
        assert state(pipeline) == before
        assert torch.get_rng_state().equal(drawn)
