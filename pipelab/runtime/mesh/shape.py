"""What a DeviceMesh says: how many replicas there are of how many stages, in how many slices, and where we are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from pipelab.errors import ConfigurationError

__all__ = ["AXES", "START_AGAIN", "Shape", "shape_of"]

AXES = ("dp", "pp", "tp")
"""Data, pipeline and tensor parallel, the outermost first: ranks that differ in tp alone are next to each other."""


START_AGAIN = "start the processes again, and go on from the last checkpoint"
_given_up: set[str] = set()
"""Groups in which a process was left waiting, by name: two meshes may have one in common."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a mesh and this process's place in it, by axis; an axis that is absent has size 1.

    ``column`` are the ranks that hold what this process holds: its stages, in all replicas and slices, replicas first.
    ``pipeline`` are the ranks of this process's pipeline.
    """

    mesh: DeviceMesh
    sizes: Mapping[str, int]
    place: Mapping[str, int]
    column: tuple[int, ...]
    pipeline: tuple[int, ...]

    @property
    def replica(self) -> int:
        """Which share of the batch this process works on."""
        return self.place["dp"]

    def group(self, axis: str) -> Any:
        """The torch.distributed group of ranks that differ from this one in ``axis`` alone."""
        return self.mesh.get_group(axis)

    def give_up(self) -> None:
        """A process is left waiting in a group of layers: no pipeline can be made in it any more."""
        _given_up.update(self.group(axis).group_name for axis in self.mesh.mesh_dim_names or () if axis != "pp")

    def ranks(self, axis: str) -> list[int]:
        """The ranks of :meth:`group`."""
        return _ranks(self.mesh, (axis,), self.place)


def shape_of(mesh: Any) -> Shape:
    """Raises ConfigurationError for what is no mesh of these axes, or has no place for this process."""
    if not isinstance(mesh, DeviceMesh):
        raise ConfigurationError(
            f"mesh must be a DeviceMesh, got {type(mesh).__name__}; make one with pipelab.make_mesh(dp=2, pp=2)"
        )
    names = tuple(mesh.mesh_dim_names or ())
    if not names or set(names) - set(AXES):
        told = f"of the axes {', '.join(map(repr, names))}" if names else "without names for its axes"
        raise ConfigurationError(
            f"mesh must have axes named 'dp', 'pp' and 'tp', any of them absent, got one {told}; make one with "
            "pipelab.make_mesh(dp=2, pp=2)"
        )
    if any(mesh.get_group(axis).group_name in _given_up for axis in names):
        raise ConfigurationError(f"a step has failed and left a process waiting in a group of this mesh; {START_AGAIN}")
    place = mesh.get_coordinate()
    if place is None:
        raise ConfigurationError(f"this process has no place in the mesh of ranks {mesh.mesh.flatten().tolist()}")
    sizes = dict.fromkeys(AXES, 1) | dict(zip(names, mesh.shape, strict=True))
    at = dict.fromkeys(AXES, 0) | dict(zip(names, place, strict=True))
    return Shape(mesh, sizes, at, tuple(_ranks(mesh, ("dp", "tp"), at)), tuple(_ranks(mesh, ("pp",), at)))


def require_ranks(sizes: Mapping[str, int], ranks: int) -> None:
    """Raise ConfigurationError unless a mesh of ``sizes`` has a place for each of ``ranks`` processes, and no more."""
    needed = prod(sizes.values())
    if needed != ranks:
        told = " x ".join(f"{axis} = {size}" for axis, size in sizes.items())
        raise ConfigurationError(
            f"{told} is a mesh of {needed} processes, and {ranks} {'was' if ranks == 1 else 'were'} started; start "
            f"{needed} (with torchrun, --nnodes times --nproc-per-node), or choose sizes whose product is {ranks}"
        )


def _ranks(mesh: DeviceMesh, axes: tuple[str, ...], place: Mapping[str, int]) -> list[int]:
    """The ranks that differ from ``place`` in ``axes`` alone, the first of AXES outermost."""
    names = tuple(mesh.mesh_dim_names or ())
    found: Tensor = mesh.mesh.permute([names.index(axis) for axis in AXES if axis in names])
    ordered = [axis for axis in AXES if axis in names]
    where = tuple(slice(None) if axis in axes else place[axis] for axis in ordered)
    return [int(rank) for rank in found[where].flatten()]
