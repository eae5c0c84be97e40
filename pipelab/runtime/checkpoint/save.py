"""Writing a checkpoint: everyone its own tensors at once, then one rename."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelab.errors import ConfigurationError
from pipelab.runtime.checkpoint.folder import DESCRIPTION, FORMAT, drafted, publish, require_keep, write_durably
from pipelab.runtime.checkpoint.plain import Keys, nested, to_plain
from pipelab.runtime.checkpoint.tensors import TensorWriter
from pipelab.runtime.peers import Peers
from pipelab.runtime.setup.optimizer_state import OptimizerState, merge
from pipelab.version import __version__

__all__ = ["Contents", "save"]


@dataclass(frozen=True)
class Contents:
    """What one process has to save: of its own stages, of its own generators (by the name of the process)."""

    step_number: int
    model: Mapping[str, Tensor]
    optimizer: OptimizerState | None
    random: Mapping[str, Any]
    data: Any


def save(peers: Peers, folder: Path, contents: Contents, keep: int | None) -> Path:
    """Where it is now. All processes of the pipeline call it, and what fails in one of them fails in all.

    ``data`` is the first process's.
    """
    me = peers.own[0]
    first = me == 0
    tensors: dict[Keys, Tensor] = {}
    with ExitStack() as stack:

        def begin() -> tuple[dict[str, Any], str]:
            require_keep(keep)
            told = _described(contents, me, tensors)
            draft = stack.enter_context(drafted(folder, contents.step_number)).name if first else ""
            return told, draft

        said = peers.agree(begin)
        told = [each for each, _ in said]
        _require_one_step(told)
        draft = folder / said[0][1]
        writer = TensorWriter(draft, nested(tensors), first=first)
        plans = peers.agree(writer.plan)
        own = peers.agree(lambda: writer.share_out(plans) if first else [])[0][me]
        results = peers.agree(lambda: writer.write(own))

        def finish() -> str:
            if not first:
                return ""
            writer.finish(results)
            write_durably(draft / DESCRIPTION, json.dumps(_joined(told)).encode())
            return publish(draft, told[0]["step_number"], keep).name

        return folder / peers.agree(finish)[0]


def _described(contents: Contents, me: int, tensors: dict[Keys, Tensor]) -> dict[str, Any]:
    """One process's part of the description; the tensors go into ``tensors``."""
    tensors |= {("model", name): tensor.detach() for name, tensor in contents.model.items()}
    optimizer = None
    if contents.optimizer is not None:
        rest = {key: value for key, value in contents.optimizer.items() if key != "state"}
        optimizer = to_plain(rest, ("optimizer", str(me)), tensors)
        optimizer["state"] = to_plain(contents.optimizer["state"], ("optimizer", "state"), tensors)
    return {
        "step_number": contents.step_number,
        "optimizer": optimizer,
        "random": to_plain(contents.random, ("random",), tensors),
        "data": to_plain(contents.data, ("data",), tensors) if me == 0 else None,
    }


def _require_one_step(told: Sequence[Mapping[str, Any]]) -> None:
    numbers = [each["step_number"] for each in told]
    if len(set(numbers)) > 1:
        raise ConfigurationError(f"the ranks of this pipeline disagree about the number of the step: {numbers}")


def _joined(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole description."""
    optimizer = None if told[0]["optimizer"] is None else merge(each["optimizer"] for each in told)
    return {
        "format": FORMAT,
        "pipelab": __version__,
        "torch": torch.__version__,
        **told[0],
        "optimizer": optimizer,
        "random": {name: state for each in told for name, state in each["random"].items()},
    }
