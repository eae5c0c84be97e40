"""Launch ``processes``: one process per device, joined by ``torch.distributed``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from pipelab.errors import ConfigurationError
from pipelab.runtime.engine import Engine
from pipelab.runtime.peers import Alone, Peers
from pipelab.runtime.setup.assembly import make_stages
from pipelab.runtime.setup.devices import DeviceChoice, choose_devices
from pipelab.runtime.setup.settings import Settings
from pipelab.runtime.setup.ties import refuse_ties_out_of_sight

if TYPE_CHECKING:
    from pipelab.runtime.processes.remote import RemoteEngine

__all__ = ["open_engine", "open_replica"]


def open_engine(
    settings: Settings, model: Any, cuts: Sequence[int] | None, device: DeviceChoice, group: Any, mesh: Any = None
) -> Engine | RemoteEngine:
    """This process's engine in the group that it was started in, or one that speaks for processes started here."""
    from pipelab.runtime.processes.agreement import require_agreement
    from pipelab.runtime.processes.join import in_group, join

    if not dist.is_available():
        raise ConfigurationError("launch='processes' needs torch.distributed, which this torch has not; use 'threads'")
    if settings.outstanding is not None:
        raise ConfigurationError(
            "sends= and outstanding= make the wire of threads strict; leave them out for launch='processes', which "
            "sends asynchronously"
        )
    if not in_group():
        for name, given in (("group", group), ("mesh", mesh)):
            if given is not None:
                raise ConfigurationError(
                    f"{name}= is for processes that are in a torch.distributed group already, and this one was started "
                    f"alone; start the script with torchrun, or leave {name}= out"
                )
        from pipelab.runtime.processes.remote import RemoteEngine

        return RemoteEngine(settings, model, cuts, device)
    schedule, shape = settings.schedule, None
    if mesh is not None:
        from pipelab.runtime.processes.mesh import group_of_pipeline, replicate, split_stages

        shape, group = group_of_pipeline(settings, mesh, launch="processes")
    members = join(schedule.devices, device, group)
    peers: Peers = members
    try:
        data = None
        if shape is None:
            require_agreement(members, settings, model, cuts)
        else:
            data = replicate(members, shape, settings, model, cuts, launch="processes")
            peers = data.peers
        here = schedule.stages_on(members.rank)
        parts = peers.agree_own(lambda: make_stages(model, schedule, cuts, here))
        if parts.whole is None:
            peers.agree_own(lambda: refuse_ties_out_of_sight(parts.stages, settings.tied))
        if data is not None:
            parts = peers.agree_own(partial(split_stages, data, parts, settings, members.places[members.rank]))
        engine = peers.agree_own(lambda: Engine(settings, parts, members.places, peers, data=data))
        engine.start_alike()
        return engine
    except BaseException:
        peers.close()
        raise


def open_replica(settings: Settings, model: Any, cuts: Sequence[int] | None, device: DeviceChoice, mesh: Any) -> Engine:
    """An engine that drives all devices of one replica of a pipeline."""
    from pipelab.runtime.processes.mesh import group_of_pipeline, replicate

    schedule = settings.schedule
    shape, _ = group_of_pipeline(settings, mesh, launch="threads")
    places = choose_devices(device, schedule.devices)
    data = replicate(Alone(schedule.devices), shape, settings, model, cuts, launch="threads")
    try:
        parts = data.peers.agree_own(lambda: make_stages(model, schedule, cuts, range(schedule.stages)))
        engine = data.peers.agree_own(lambda: Engine(settings, parts, places, data.peers, data=data))
        engine.start_alike()
        return engine
    except BaseException:
        data.peers.close()
        data.close()
        raise
