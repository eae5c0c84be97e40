"""Meshes: processes in which a pipeline is replicated, and what joins them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from pipelab.errors import ConfigurationError, PipelabError, whole_number
from pipelab.models.cut import NamedStage
from pipelab.models.shards import is_split
from pipelab.runtime.measuring.bare import bare
from pipelab.runtime.mesh.across import Across
from pipelab.runtime.mesh.data import DataParallel
from pipelab.runtime.mesh.shape import AXES, Shape, require_ranks, shape_of
from pipelab.runtime.mesh.sharded import Sharded
from pipelab.runtime.mesh.tensor import parallelize
from pipelab.runtime.peers import Peers
from pipelab.runtime.processes.agreement import require_agreement
from pipelab.runtime.processes.group import Group
from pipelab.runtime.processes.join import enter_world, in_group, make_group
from pipelab.runtime.setup.assembly import Parts, refuse_redrawn_masks
from pipelab.runtime.setup.by_name import named_parameters
from pipelab.runtime.setup.settings import Settings

__all__ = ["group_of_pipeline", "make_mesh", "replicate", "split_stages"]


def make_mesh(dp: int = 1, pp: int = 1, tp: int = 1, device: str | None = None) -> DeviceMesh:
    """A mesh of dp x pp x tp processes, with axes of these names: what ``Pipeline(mesh=...)`` takes.

    All processes that torchrun has started make this call. Ranks that differ in tp alone are next to each other, those
    of one pipeline tp apart, replicas pp * tp apart. ``device``: "cpu" or "cuda" (default: where there is a GPU).

    Raises ConfigurationError unless there are so many processes.
    """
    sizes = {axis: whole_number(axis, axis, size) for axis, size in zip(AXES, (dp, pp, tp), strict=True)}
    if not in_group():
        raise ConfigurationError(
            "a mesh is of processes, and this one was started alone; start them with torchrun: torchrun "
            f"--nproc-per-node {dp * pp * tp} script.py"
        )
    enter_world()
    require_ranks(sizes, dist.get_world_size())
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return init_device_mesh(kind, tuple(sizes.values()), mesh_dim_names=AXES)


def group_of_pipeline(settings: Settings, mesh: Any, *, launch: str) -> tuple[Shape, Any]:
    """What ``mesh`` says, and the torch.distributed group of this process's pipeline (None with threads).

    Raises ConfigurationError for what cannot be replicated.
    """
    shape, schedule = shape_of(mesh), settings.schedule
    pp = shape.sizes["pp"]
    if launch == "threads" and (pp > 1 or shape.sizes["tp"] > 1):
        raise ConfigurationError(
            f"launch='threads' has all devices of a pipeline in each process, so the mesh has a 'dp' axis alone, got "
            f"pp = {pp} and tp = {shape.sizes['tp']}; use launch='processes', or make_mesh(dp={len(shape.column) * pp})"
        )
    if launch == "processes" and pp != schedule.devices:
        raise ConfigurationError(
            f"the schedule has {schedule.devices} devices, and the mesh has pp = {pp}; make the mesh with "
            f"pp={schedule.devices}, or a schedule for {pp}"
        )
    if launch == "threads":
        return shape, None
    alone = "pp" not in (mesh.mesh_dim_names or ())
    return shape, _alone(dist.group.WORLD, shape.pipeline) if alone else shape.group("pp")


@cache
def _alone(world: Any, ranks: tuple[int, ...]) -> Any:
    return dist.new_group(list(ranks), use_local_synchronization=True)


def _require_replicable(settings: Settings, shape: Shape, launch: str) -> None:
    """Raise ConfigurationError for settings that cannot be in a mesh."""
    schedule = settings.schedule
    if "U" in schedule.ops:
        raise ConfigurationError(
            f"schedule '{schedule.name}' updates weights while micro-batches are on their way, and the gradients of "
            "replicas are summed at the flush; use '1f1b', which flushes, or leave mesh out"
        )
    if settings.post_validation:
        raise ConfigurationError(
            "post_validation updates a device before the others' gradients are known, and a replica has to wait for "
            "the other replicas'; leave post_validation or mesh out"
        )
    _require_splittable(settings, shape, launch)


def replicate(peers: Peers, shape: Shape, settings: Settings, model: Any, cuts: Any, *, launch: str) -> DataParallel:
    """Join the processes that hold the same stages; ``peers`` are those of this pipeline.

    Raises ConfigurationError on all of them if they were not made alike.
    """
    across = Across(peers, make_group(shape.column, torch.device("cpu"), "column"))
    groups: dict[int, Any] = {}
    numbers: list[int] = []
    theirs = (dist.group.WORLD, *shape.ranks("dp"))
    try:
        across.agree_own(lambda: _require_replicable(settings, shape, launch))
        across.agree_own(lambda: require_agreement(peers, settings, model, cuts))
        require_agreement(across.column, settings, model, cuts)
        if shape.sizes["dp"] > 1 and len(peers.own) == 1:
            groups[peers.own[0]] = shape.group("dp")
        elif shape.sizes["dp"] > 1:  # in one group, the order of sums would be that of threads
            numbers = _lend(across.column, theirs, len(peers.own))
            groups = {r: _groups[theirs][number] for r, number in zip(peers.own, numbers, strict=True)}
    except BaseException:
        across.close()
        raise
    return DataParallel(shape, across, groups, give_back=lambda: _free[theirs].update(numbers))


_groups: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
_free: dict[tuple[Any, ...], set[int]] = defaultdict(set)
"""The groups made here, by the world and its ranks, and which of them no Pipeline has. Torch names a new group after
how many there are: once one is destroyed, a later one would meet what is left of it in the store."""


def _lend(column: Group, theirs: tuple[Any, ...], count: int) -> list[int]:
    """The numbers of ``count`` of ``theirs`` that are free in all of ``column``, made where there are none."""
    made, free, ranks = _groups[theirs], _free[theirs], list(theirs[1:])
    told = column.exchange((len(made), sorted(free)))
    if len({size for size, _ in told}) > 1:
        raise PipelabError(f"ranks {ranks} have made {[size for size, _ in told]} groups; start the job again")
    found = sorted(set.intersection(*(set(numbers) for _, numbers in told)))[:count]
    everyone = len(ranks) == dist.get_world_size()
    while len(found) < count:
        found.append(len(made))
        made.append(dist.new_group(ranks, use_local_synchronization=not everyone))
    free.difference_update(found)
    return found


def _require_splittable(settings: Settings, shape: Shape, launch: str) -> None:
    """Raise ConfigurationError for what cannot be within a stage that several processes hold."""
    schedule, dp, tp = settings.schedule, shape.sizes["dp"], shape.sizes["tp"]
    if settings.tensor_plan is not None and tp == 1:
        raise ConfigurationError(
            "tensor_plan says how layers are split over the axis 'tp', and the mesh has tp = 1; make it with tp=2, or "
            "leave tensor_plan out"
        )
    if settings.shard is not None and (dp == 1 or launch == "threads"):
        raise ConfigurationError(
            f"shard gives each replica a part of the weights, and needs dp > 1 and a process for each device, got dp = "
            f"{dp} and launch='{launch}'; use launch='processes' and make_mesh(dp=2, ...), or leave shard out"
        )
    if tp == 1 and settings.shard is None:
        return
    what = "shard" if settings.shard is not None else "tp"
    if any(len(homes) > 1 for homes in schedule.placement):
        raise ConfigurationError(
            f"schedule '{schedule.name}' has stages that live on two devices, and {what} splits a stage over the "
            f"processes of one; use 'interleaved', or leave {what} out"
        )
    if settings.shard is not None and "I" in schedule.ops:
        raise ConfigurationError(
            f"schedule '{schedule.name}' splits backwards in I and W, and shard gathers weights for a backward in one "
            "piece; use '1f1b' or 'interleaved', or leave shard out"
        )


def split_stages(data: DataParallel, parts: Parts, settings: Settings, place: torch.device) -> Parts:
    """``parts`` with each stage split over the processes of "tp", and its weights shared out over those of "dp".

    Raises ConfigurationError for what cannot be split.
    """
    shape = data.shape
    if shape.sizes["tp"] == 1 and settings.shard is None:
        return parts
    whole = bare(parts.whole)
    if shape.sizes["tp"] > 1:
        why = "each of the processes that hold this stage would draw a mask of its own"
        refuse_redrawn_masks(parts.stages, why, "a mesh without 'tp'")
    for s, stage in parts.stages.items():
        stage.to(place)
        known = [(name, id(p)) for name, p in stage.named_parameters(remove_duplicate=False)]
        ids = [one for _, one in known]
        twice = [name for name, one in known if ids.count(one) > 1]
        if shape.sizes["tp"] > 1:
            parallelize(stage, shape.mesh["tp"], settings.tensor_plan)
        if settings.shard is not None:
            data.sharded[s] = Sharded(stage, shape.mesh["dp"], again=settings.shard == "regather")
        now = dict(stage.named_parameters(remove_duplicate=False))
        if untied := [name for name in twice if is_split(now[name])]:
            raise _is_tied(stage.unsplit_name(untied[0]) if isinstance(stage, NamedStage) else untied[0])
    tied = {name for group in (*parts.tied, *settings.tied) for name in group}
    held = [name for s, stage in parts.stages.items() for name, p in named_parameters(s, stage) if is_split(p)]
    if both := sorted(tied.intersection(held)):
        raise _is_tied(both[0])
    return replace(parts, whole=whole)


def _is_tied(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"'{name}' is tied to another parameter, and several processes hold a part of it; leave it out of tensor_plan, "
        "or shard out"
    )
