"""What optimizers and learning-rate schedulers remember, by the unsplit model's names.

The form is that of ``torch.distributed.checkpoint.state_dict``: ``{"state": {name: {...}}, "param_groups": [{"params":
[names], "lr": ...}]}``, whatever stages the model is cut into; ``"lr_scheduler"`` and ``"grad_scaler"`` stand beside it
where there are such.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipelab.errors import ConfigurationError

__all__ = ["OptimizerState", "load_into", "merge", "on_cpu", "read", "renamed", "require_names", "scheduler_state"]

OptimizerState = dict[str, Any]
"""See this module's docstring."""


def read(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> OptimizerState:
    """The state of one optimizer; ``names`` are those of its parameters, by id."""
    state = {names[id(p)]: dict(kept) for p, kept in optimizer.state.items()}
    told = [{key: value for key, value in group.items() if key != "param_names"} for group in optimizer.param_groups]
    groups = [{**group, "params": [names[id(p)] for p in group["params"]]} for group in told]
    return {"state": state, "param_groups": groups}


def merge(parts: Iterable[Mapping[str, Any]]) -> OptimizerState:
    """The states of several stages as one; groups that agree in all but their parameters are one group."""
    merged: OptimizerState = {"state": {}, "param_groups": []}
    for part in parts:
        merged["state"].update(part["state"])
        for group in part["param_groups"]:
            twin = next((other for other in merged["param_groups"] if _alike(other, group)), None)
            if twin is None:
                merged["param_groups"].append({**group, "params": list(group["params"])})
            else:
                twin["params"] += [name for name in group["params"] if name not in twin["params"]]
        merged.setdefault("lr_scheduler", {}).update(part.get("lr_scheduler", {}))
        if "grad_scaler" in part:
            merged["grad_scaler"] = part["grad_scaler"]
    if not merged.get("lr_scheduler"):
        merged.pop("lr_scheduler", None)
    return merged


def renamed(state: Mapping[str, Any], aliases: Mapping[str, str]) -> OptimizerState:
    """A state with the names that tied parameters are known under."""
    groups = [
        {**g, "params": list(dict.fromkeys(aliases.get(n, n) for n in g["params"]))} for g in state["param_groups"]
    ]
    kept = {aliases.get(name, name): held for name, held in state["state"].items()}
    return {**state, "state": kept, "param_groups": groups}


def on_cpu(value: Any) -> Any:
    """A copy whose tensors are on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: on_cpu(inner) for key, inner in value.items()}
    return [on_cpu(inner) for inner in value] if type(value) in (list, tuple) else value


def require_names(state: Any, known: set[str], aliases: Mapping[str, str]) -> None:
    """Raise ConfigurationError unless ``state`` is an optimizer's, and about the parameters ``known``."""
    if not isinstance(state, Mapping) or not {"state", "param_groups"} <= set(state):
        raise ConfigurationError(
            "an optimizer's state has the keys 'state' and 'param_groups', by the unsplit model's names, as "
            f"Pipeline.optimizer_state() gives it; got {type(state).__name__}"
        )
    told = {name for group in state["param_groups"] for name in group["params"]}
    numbers = [name for name in told if not isinstance(name, str)]
    if numbers:
        raise ConfigurationError(
            "the state numbers its parameters, as torch.optim does; by names it is what "
            "torch.distributed.checkpoint.state_dict.get_optimizer_state_dict(model, optimizer) returns"
        )
    odd = sorted({aliases.get(name, name) for name in told} ^ known)
    if odd:
        whose = "the state has no" if odd[0] in known else "this model has no trained"
        raise ConfigurationError(f"the optimizer's state does not match this model: {whose} '{odd[0]}'")


def load_into(optimizer: torch.optim.Optimizer, names: Mapping[int, str], state: Mapping[str, Any]) -> None:
    """Make ``optimizer`` go on from ``state``. Raises ConfigurationError if its groups cut across those saved."""
    saved = {name: group for group in state["param_groups"] for name in group["params"]}
    order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    number = {name: k for k, name in enumerate(order)}
    groups = []
    for group in optimizer.param_groups:
        own = [names[id(p)] for p in group["params"]]
        first = saved[own[0]]
        for name in own:
            if not _alike(first, saved[name]):
                raise ConfigurationError(
                    f"'{own[0]}' and '{name}' are in one group of this optimizer, and were saved with other settings "
                    "each; make the optimizer with the groups that it had"
                )
        called = {key: value for key, value in group.items() if key == "param_names"}
        groups.append({**first, **called, "params": [number[name] for name in own]})
    kept = {number[name]: state["state"][name] for name in order if name in state["state"]}
    # A copy: torch keeps the tensors that it is given, and would go on in the saved ones.
    optimizer.load_state_dict(copy.deepcopy({"state": kept, "param_groups": groups}))


def scheduler_state(state: Mapping[str, Any], s: int) -> Any:
    """What the scheduler of stage s goes on from. Raises ConfigurationError if that cannot be told."""
    saved = state.get("lr_scheduler")
    if not saved:
        raise ConfigurationError("this Pipeline has a learning-rate scheduler, and the state has none")
    if s in saved:
        return saved[s]
    first, *others = saved.values()
    if all(_same(first, other) for other in others):
        return first
    raise ConfigurationError(
        f"the schedulers of the stages were saved in different states ({sorted(saved)}), and stage {s} is none of "
        "them; load it into as many stages as it was saved from"
    )


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return _same({k: v for k, v in one.items() if k != "params"}, {k: v for k, v in other.items() if k != "params"})


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, Sequence) and isinstance(other, Sequence) and not isinstance(one, str):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
