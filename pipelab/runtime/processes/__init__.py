"""Launch ``processes``: one process per device, joined by ``torch.distributed``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from pipelab.errors import ConfigurationError
from pipelab.runtime.engine import Engine
from pipelab.runtime.setup.assembly import make_stages
from pipelab.runtime.setup.devices import DeviceChoice
from pipelab.runtime.setup.settings import Settings
from pipelab.runtime.setup.ties import refuse_ties_out_of_sight

if TYPE_CHECKING:
    from pipelab.runtime.processes.remote import RemoteEngine

__all__ = ["open_engine"]


def open_engine(
    settings: Settings, model: Any, cuts: Sequence[int] | None, device: DeviceChoice, group: Any
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
        if group is not None:
            raise ConfigurationError("group= is for processes that are in a torch.distributed group already")
        from pipelab.runtime.processes.remote import RemoteEngine

        return RemoteEngine(settings, model, cuts, device)
    schedule = settings.schedule
    peers = join(schedule.devices, device, group)
    try:
        require_agreement(peers, settings, model, cuts)
        here = schedule.stages_on(peers.rank)
        parts = peers.agree_own(lambda: make_stages(model, schedule, cuts, here))
        if parts.whole is None:
            peers.agree_own(lambda: refuse_ties_out_of_sight(parts.stages, settings.tied))
        return peers.agree_own(lambda: Engine(settings, parts, peers.places, peers))
    except BaseException:
        peers.close()
        raise
