"""What optimizers and learning-rate schedulers remember, by the unsplit model's names.

The form is that of ``torch.distributed.checkpoint.state_dict``: ``{"state": {name: {...}}, "param_groups": [{"params":
[names], "lr": ...}]}``, whatever stages the model is cut into; ``"step_number"``, which keys the dropout, stands beside
it, and ``"lr_scheduler"`` and ``"grad_scaler"`` where there are such.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipelab.errors import ConfigurationError
from pipelab.models.shards import like, whole

__all__ = ["OptimizerState", "merge", "on_cpu", "plan", "read", "renamed", "require_names", "scheduler_state"]

OptimizerState = dict[str, Any]
"""See this module's docstring."""


def read(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> OptimizerState:
    """The state of one optimizer; ``names`` are those of its parameters, by id."""
    state = {names[id(p)]: {key: whole(value) for key, value in kept.items()} for p, kept in optimizer.state.items()}
    told = [{key: value for key, value in group.items() if key != "param_names"} for group in optimizer.param_groups]
    groups = [{**group, "params": [names[id(p)] for p in group["params"]]} for group in told]
    return {"state": state, "param_groups": groups}


def merge(parts: Iterable[Mapping[str, Any]]) -> OptimizerState:
    """The states of several stages as one; groups that agree in all but their parameters are one group."""
    merged: OptimizerState = {"state": {}, "param_groups": [], "lr_scheduler": []}
    for part in parts:
        merged["state"].update(part["state"])
        for group in part["param_groups"]:
            twin = next((other for other in merged["param_groups"] if _alike(other, group)), None)
            if twin is None:
                merged["param_groups"].append({**group, "params": list(group["params"])})
            else:
                twin["params"] += [name for name in group["params"] if name not in twin["params"]]
        known = [entry["params"] for entry in merged["lr_scheduler"]]
        merged["lr_scheduler"] += [e for e in part.get("lr_scheduler", []) if e["params"] not in known]
        merged |= {key: part[key] for key in ("grad_scaler", "step_number") if key in part}
    if not merged["lr_scheduler"]:
        del merged["lr_scheduler"]
    return merged


def renamed(state: Mapping[str, Any], aliases: Mapping[str, str]) -> OptimizerState:
    """A state with the names that tied parameters are known under."""
    groups = [
        {**g, "params": list(dict.fromkeys(aliases.get(n, n) for n in g["params"]))} for g in state["param_groups"]
    ]
    kept = {aliases.get(name, name): held for name, held in state["state"].items()}
    schedulers = [
        {**entry, "params": sorted({aliases.get(name, name) for name in entry["params"]})}
        for entry in state.get("lr_scheduler", [])
    ]
    return {**state, "state": kept, "param_groups": groups, "lr_scheduler": schedulers}


def on_cpu(value: Any) -> Any:
    """A copy whose tensors are on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        copied = {key: on_cpu(inner) for key, inner in value.items()}
        return Counter(copied) if isinstance(value, Counter) else copied  # MultiStepLR asks its milestones for more
    return type(value)([on_cpu(inner) for inner in value]) if type(value) in (list, tuple) else value


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


def plan(optimizer: torch.optim.Optimizer, names: Mapping[int, str], state: Mapping[str, Any]) -> dict[str, Any]:
    """What ``optimizer.load_state_dict`` is to get, to go on from ``state``; nothing is changed yet.

    Raises ConfigurationError if it is another kind's, or if this one's groups cut across those saved.
    """
    saved = {name: group for group in state["param_groups"] for name in group["params"]}
    of_name = {names[id(p)]: p for group in optimizer.param_groups for p in group["params"]}
    order = list(of_name)
    _require_kin(optimizer, of_name, saved, state["state"])
    number = {name: k for k, name in enumerate(order)}
    groups = []
    for group in optimizer.param_groups:
        own = [names[id(p)] for p in group["params"]]
        first = saved[own[0]] if own else group
        for name in own:
            if not _alike(first, saved[name]):
                raise ConfigurationError(
                    f"'{own[0]}' and '{name}' are in one group of this optimizer, and were saved with other settings "
                    "each; make the optimizer with the groups that it had"
                )
        called = {key: value for key, value in group.items() if key == "param_names"}
        groups.append({**first, **called, "params": [number[name] for name in own]})
    kept = {
        number[name]: {key: _as_held(value, of_name[name]) for key, value in state["state"][name].items()}
        for name in order
        if name in state["state"]
    }
    # A copy: torch keeps the tensors that it is given, and would go on in the saved ones.
    return copy.deepcopy({"state": kept, "param_groups": groups})


def _as_held(value: Any, parameter: Tensor) -> Any:
    """A value of an optimizer's state for ``parameter``, of which this process may hold a part."""
    return like(parameter, value) if isinstance(value, Tensor) else value


def _require_kin(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    saved: Mapping[str, Mapping[str, Any]],
    state: Mapping[str, Mapping[str, Any]],
) -> None:
    """Raise ConfigurationError if the state is another kind of optimizer's, or of tensors of other shapes."""
    kept = {name: held for name, held in state.items() if name in parameters and held}
    fullest = max(kept.values(), key=len, default={})
    for name, parameter in parameters.items():
        lacking = sorted(set(optimizer.defaults) - set(saved[name])) or sorted(
            set(fullest) - set(kept.get(name, fullest))
        )
        if lacking:
            raise ConfigurationError(
                f"the state of '{name}' has no '{lacking[0]}': it was saved from another kind of optimizer than this "
                f"{type(optimizer).__name__}, or not whole"
            )
        for key, value in kept.get(name, {}).items():
            # Factored moments have a dimension of 1 in place of a parameter's.
            alike = not isinstance(value, Tensor) or value.dim() != parameter.dim() or not value.dim()
            if not alike and any(a not in (1, b) for a, b in zip(value.shape, parameter.shape, strict=True)):
                raise ConfigurationError(
                    f"{name} is {list(parameter.shape)}, its '{key}' in the optimizer's state is {list(value.shape)}"
                )


def scheduler_state(state: Mapping[str, Any], names: Sequence[str]) -> Any:
    """What the scheduler of the stage with parameters ``names`` goes on from.

    Raises ConfigurationError if that cannot be told.
    """
    saved = state.get("lr_scheduler")
    if not saved:
        raise ConfigurationError("this Pipeline has a learning-rate scheduler, and the state has none")
    for entry in saved:
        if entry["params"] == sorted(names):
            return entry["state"]
    first, *others = (entry["state"] for entry in saved)
    if all(_same(first, other) for other in others):
        return first
    raise ConfigurationError(
        f"the stages' schedulers were saved in different states, and none is of a stage with '{min(names)}' to "
        f"'{max(names)}'; load it into the stages that it was saved from"
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
