"""One file, as most programs read weights; there whole or not at all."""

import os

import pytest
from safetensors.torch import load_file

from pipelab import ConfigurationError, export_safetensors
from tests.runtime.checkpoint.small import model, opened, trained


def test_the_unsplit_model_reads_it(tmp_path, monkeypatch):
    with opened(built=model()) as pipeline:
        trained(pipeline, range(1))
        path = pipeline.save(tmp_path / "run")
        true = {name: tensor.clone() for name, tensor in pipeline.state_dict().items()}
    for source in (path, tmp_path / "run"):
        file = export_safetensors(source, tmp_path / "model.safetensors")
        plain = model(9)
        plain.load_state_dict(load_file(file))
        assert all(true[name].equal(tensor) for name, tensor in plain.state_dict().items())
    before = file.read_bytes()

    def crash(*_):
        raise OSError("crash")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="crash"):
        export_safetensors(path, file)
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "run"]


def test_what_cannot_be_exported_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no checkpoint in"):
        export_safetensors(tmp_path, tmp_path / "x")
    with opened() as pipeline:
        pipeline.save(tmp_path)
    with pytest.raises(ConfigurationError, match=r"must be a file in a folder that is there; try .*model.safetensors"):
        export_safetensors(tmp_path, tmp_path)
