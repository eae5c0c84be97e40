"""Watching a model run: which list of layers does its work, who is called and read when, and what comes of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipelab.models.call import Call, output_tensors
from pipelab.models.shell import Result, Watched

__all__ = ["NoStack", "Seen", "find_stack", "hooked", "run_model", "undisturbed", "units", "watch"]


class NoStack(Exception):
    """Why a model cannot be cut directly, in words that go on from "it is no plain stack:"."""


@dataclass
class Seen:
    """What was seen of one run. A moment is 2k before layer k (and after layer k - 1), 2k + 1 inside it."""

    moment: int = 0
    order: list[int] = field(default_factory=list)
    moments: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    results: dict[str, Result] = field(default_factory=dict)


def find_stack(
    model: nn.Module, call: Call, inputs: tuple[Tensor, ...], stages: int
) -> tuple[str, list[float], float]:  # fmt: skip
    """(name, work of each layer, share of the whole work) of the list that does most of it."""
    lists = {
        name: list(module.children())
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) >= max(stages, 2)
    }
    if not lists:
        raise NoStack(f"it has no ModuleList or Sequential of {stages} layers or more")
    calls: list[tuple[int, float]] = []  # of each child of any of them: (id, work done in it), in order of its end
    began: list[float] = []
    with FlopCounterMode(display=False) as counter, hooked() as hook:

        def start(*_: Any) -> None:
            began.append(counter.get_total_flops())

        def end(module: nn.Module, *_: Any) -> None:
            calls.append((id(module), counter.get_total_flops() - began.pop()))

        for child in {id(child): child for children in lists.values() for child in children}.values():
            hook(child.register_forward_pre_hook(start))
            hook(child.register_forward_hook(end))
        run_model(model, call, inputs)
        whole = counter.get_total_flops()
    if not whole:
        raise NoStack("it does no matrix products by which its layers could be weighed")
    by_id: dict[int, list[float]] = defaultdict(list)
    for key, work in calls:
        by_id[key].append(work)
    best, reason = None, "no list of layers in it does most of its work"
    for name, children in lists.items():
        keys = [id(child) for child in children]
        work = sum(sum(by_id[key]) for key in keys)
        if work < whole / 2 or (best is not None and work < 0.99 * best[0]):
            continue
        if [key for key, _ in calls if key in set(keys)] != keys:
            reason = f"the layers of '{name}' are not called once each, in order"
            continue
        best = (work, name, [by_id[key][0] for key in keys])
    if best is None:
        raise NoStack(reason)
    return best[1], best[2], best[0] / whole


def units(model: nn.Module, stack: str) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """(the modules above the stack, by name; the outermost others)."""
    parts = stack.split(".") if stack else []
    above = {"": model} | {
        ".".join(parts[:k]): model.get_submodule(".".join(parts[:k])) for k in range(1, len(parts) + 1)
    }
    outside = {}
    for name, module in above.items():
        for key, child in module.named_children():
            full = f"{name}.{key}" if name else key
            if full not in above and name != stack:
                outside[full] = child
    return above, outside


def watch(model: nn.Module, stack: str, call: Call, inputs: tuple[Tensor, ...]) -> Seen:
    """Who is called and whose parameters are read, at which moments, and what comes of it."""
    seen = Seen()
    above, outside = units(model, stack)

    def enter(k: int, *_: Any) -> None:
        seen.order.append(k)
        seen.moment = 2 * k + 1

    def leave(k: int, name: str, _: nn.Module, __: Any, value: Any) -> None:
        seen.results[name] = Result.of(value)
        seen.moment = 2 * k + 2

    def called(name: str, _: nn.Module, __: Any, value: Any) -> None:
        seen.moments[name].add(seen.moment)
        seen.results.setdefault(name, Result.of(value))

    def read(unit: str, name: str) -> None:
        seen.moments[unit or name].add(seen.moment)

    watched = [(name, "", module) for name, module in above.items()]
    watched += [(unit, unit, module) for unit, top in outside.items() for module in top.modules()]
    with hooked() as hook:
        for k, (key, layer) in enumerate(model.get_submodule(stack).named_children()):
            name = f"{stack}.{key}" if stack else key
            hook(layer.register_forward_pre_hook(partial(enter, k)))
            hook(layer.register_forward_hook(partial(leave, k, name)))
        for name, module in outside.items():
            hook(module.register_forward_hook(partial(called, name)))
        before = [(module, module._parameters) for _, _, module in watched]
        try:
            for name, unit, module in watched:
                vars(module)["_parameters"] = Watched(module._parameters, name, partial(read, unit))
            run_model(model, call, inputs)
        finally:
            for module, parameters in reversed(before):
                vars(module)["_parameters"] = parameters
    if seen.order != sorted(set(seen.order)):
        raise NoStack(f"the layers of '{stack}' are not called once each, in order")
    return seen


def run_model(model: nn.Module, call: Call, inputs: tuple[Tensor, ...]) -> Any:
    """What the loss gets of the model on these inputs."""
    args, kwargs = call.arguments(inputs)
    return output_tensors(model(*args, **kwargs))


@contextmanager
def undisturbed(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Run ``model`` in a mode, and have its buffers, its modes and the random generators as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {tensor.device for tensor in model.parameters() if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            if training != model.training:
                model.train(training)
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for module, entries in buffers:
                module._buffers.clear()
                module._buffers.update(entries)
            with torch.no_grad():
                for buffer, before in kept:
                    buffer.copy_(before)


@contextmanager
def hooked() -> Iterator[Any]:
    """Takes handles of hooks, and removes them at the end."""
    handles: list[Any] = []
    try:
        yield handles.append
    finally:
        for handle in handles:
            handle.remove()
