"""Tensors on the disk, by ``torch.distributed.checkpoint``: each process writes its own and reads those it needs.

Its writers, readers and planners do all the work. What processes have to tell each other goes through ``Peers`` in
``save``, in place of torch's collectives: a process that fails, or is gone, is then known to all at once. Reading
unpickles nothing but what a list here allows.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan

from pipelab.errors import ConfigurationError
from pipelab.runtime.checkpoint.folder import damaged, sync

__all__ = ["TensorReader", "TensorWriter"]


_METADATA = "torch.distributed.checkpoint.metadata."
_KNOWN = {
    *(f"{_METADATA}{name}" for name in ("Metadata", "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING")),
    *(f"{_METADATA}{name}" for name in ("TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata")),
    f"{_METADATA}TensorProperties",
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "torch.serialization._get_layout",
    "torch.Size",
}


class TensorWriter:
    """One process's part of writing a checkpoint's tensors into ``folder``; the ``first`` process writes the index."""

    def __init__(self, folder: Path, tensors: dict[str, Any], *, first: bool) -> None:
        self._folder, self._tensors, self._first = folder, tensors, first
        self._planner = DefaultSavePlanner()
        # To copy ahead from several GPUs it would wait for one of them only.
        self._writer = _Writer(folder, per_thread_copy_ahead=0)

    def plan(self) -> SavePlan:
        """What this process would write. Raises ConfigurationError if it does not see the folder."""
        if not self._folder.is_dir():
            raise ConfigurationError(
                f"{self._folder.parent} is not the same folder on all ranks: one that all nodes see is needed"
            )
        self._planner.set_up_planner(self._tensors, is_coordinator=self._first)
        self._writer.set_up_storage_writer(self._first)
        return self._writer.prepare_local_plan(self._planner.create_local_plan())

    def share_out(self, plans: Sequence[SavePlan]) -> list[SavePlan]:
        """In the first process: who writes what, each tensor once."""
        plans, self._metadata = self._planner.create_global_plan(list(plans))
        return self._writer.prepare_global_plan(plans)

    def write(self, plan: SavePlan) -> Any:
        """Write this process's part, to the disk; returns where each tensor is."""
        results = self._writer.write_data(self._planner.finish_plan(plan), self._planner).value()
        sync(self._folder)
        return results

    def finish(self, results: Sequence[Any]) -> None:
        """In the first process: the index, once all files are there."""
        files = {told.storage_data.relative_path for each in results for told in each}
        unseen = sorted(name for name in files if not (self._folder / name).is_file())
        if unseen:
            raise ConfigurationError(f"rank 0 does not see {unseen[0]}: a folder that all nodes see is needed")
        self._writer.finish(self._metadata, list(results))


class _Writer(FileSystemWriter):
    def storage_meta(self) -> StorageMeta:
        """Without the path, which will change."""
        return StorageMeta(save_id=self.save_id)


class TensorReader:
    """The tensors of the checkpoint at ``path``. Raises ConfigurationError if it is damaged, or would run code."""

    def __init__(self, path: Path) -> None:
        self._path, self._reader = path, FileSystemReader(path)
        try:
            self._metadata = _read_index((path / ".metadata").read_bytes())
        except Exception as error:  # noqa: BLE001 (anything may come out of a damaged pickle)
            raise damaged(path, error) from None
        told: Any = self._metadata.state_dict_metadata.items()
        self.shapes: dict[str, Sequence[int]] = {name: one.size for name, one in told}
        """By name."""

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Those tensors, on the CPU."""
        index: Any = self._metadata.state_dict_metadata
        try:
            told = [(name, index[name].size, index[name].properties.dtype) for name in names]
            found = {name: torch.empty(size, dtype=dtype, device="cpu") for name, size, dtype in told}
            planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
            planner.set_up_planner(found, self._metadata, True)
            self._reader.set_up_storage_reader(self._metadata, True)
            self._reader.read_data(planner.create_local_plan(), planner).wait()
        except Exception as error:  # noqa: BLE001 (a file that is cut off may raise anything)
            raise damaged(self._path, error) from None
        return found


def _read_index(data: bytes) -> Metadata:
    """A pickle, of which only what an index consists of is made. Raises if there is anything else in it."""
    found = _Index(io.BytesIO(data)).load()
    for name, told in found.state_dict_metadata.items():
        if not isinstance(told, TensorStorageMetadata):  # what else it is would be unpickled
            raise pickle.UnpicklingError(f"{name} is no tensor")
    for place in found.storage_data.values():
        if Path(place.relative_path).name != place.relative_path:
            raise pickle.UnpicklingError(f"{place.relative_path} is not in the checkpoint's folder")
    return found


class _Index(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Raises UnpicklingError for all that no index names."""
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not dtype and f"{module}.{name}" not in _KNOWN:
            raise pickle.UnpicklingError(f"its .metadata asks for {module}.{name}, which no checkpoint needs; beware")
        return super().find_class(module, name)
