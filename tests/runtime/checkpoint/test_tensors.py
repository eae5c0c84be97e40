"""PyTorch reads what is written; what is read runs no code, whoever wrote it."""

import pickle
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import BytesStorageMetadata

from pipelab import ConfigurationError
from tests.runtime.checkpoint.small import model, opened, state, trained


@pytest.fixture
def saved(tmp_path):
    """(a Pipeline, its checkpoint)."""
    with opened() as pipeline:
        trained(pipeline, range(2))
        yield pipeline, pipeline.save(tmp_path / "run")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning", "ignore:TypedStorage is deprecated")
def test_plain_pytorch_reads_it(saved, tmp_path):
    pipeline, path = saved
    plain = model(3)
    kept = pipeline.optimizer_state()["state"]
    into = {
        "model": plain.state_dict(),
        "optimizer": {
            "state": {name: {k: torch.zeros_like(t) for k, t in held.items()} for name, held in kept.items()}
        },
    }
    dcp.load(into, checkpoint_id=path)
    plain.load_state_dict(into["model"])
    for name, tensor in pipeline.state_dict().items():
        assert plain.state_dict()[name].equal(tensor)
    for name, held in kept.items():
        assert all(into["optimizer"]["state"][name][key].equal(tensor) for key, tensor in held.items())
    dcp_to_torch_save(path, tmp_path / "all.pt")
    whole = torch.load(tmp_path / "all.pt", weights_only=True)
    assert whole["model"].keys() == plain.state_dict().keys()


def test_where_it_was_written_is_not_told(saved):
    assert b"step-" not in (saved[1] / ".metadata").read_bytes()


class Evil:
    def __reduce__(self):
        return exec, ("import builtins; builtins.pipelab_was_fooled = True",)


def fooled():
    import builtins

    return hasattr(builtins, "pipelab_was_fooled")


def refused(pipeline, path, message):
    before = state(pipeline)
    with pytest.raises(ConfigurationError, match=message):
        pipeline.load(path)
    assert not fooled(), "code of the checkpoint was run"
    assert state(pipeline) == before


def test_no_index_runs_code(saved):
    pipeline, path = saved
    index = pickle.loads((path / ".metadata").read_bytes())
    index.planner_data = Evil()
    for evil in (Evil(), index):
        (path / ".metadata").write_bytes(pickle.dumps(evil))
        refused(pipeline, path, r"UnpicklingError, its .metadata asks for builtins.exec, which no checkpoint needs")


def test_no_tensor_runs_code(saved):
    pipeline, path = saved
    index = pickle.loads((path / ".metadata").read_bytes())
    torch.save(Evil(), path / "evil.distcp")
    key, place = next((key, place) for key, place in index.storage_data.items() if key.fqn == "model.0.weight")
    place.relative_path, place.offset, place.length = "evil.distcp", 0, (path / "evil.distcp").stat().st_size
    (path / ".metadata").write_bytes(pickle.dumps(index))
    refused(pipeline, path, "is damaged: UnpicklingError, Weights only load failed")
    index.state_dict_metadata["model.0.weight"] = BytesStorageMetadata()  # torch would unpickle whatever it is
    (path / ".metadata").write_bytes(pickle.dumps(index))
    refused(pipeline, path, "model.0.weight is no tensor")
    assert key.fqn == "model.0.weight"


def test_no_file_elsewhere_is_read(saved, tmp_path):
    pipeline, path = saved
    shutil.copy(path / "__0_0.distcp", tmp_path / "elsewhere")
    data = (path / ".metadata").read_bytes()
    for other in ("../../elsewhere", str(tmp_path / "elsewhere")):
        index = pickle.loads(data)
        for place in index.storage_data.values():
            place.relative_path = other
        (path / ".metadata").write_bytes(pickle.dumps(index))
        refused(pipeline, path, "elsewhere is not in the checkpoint's folder")
