"""Does each stage's output fit the next, and is the loss a scalar? Found out before anything starts.

The modules run once as throw-away copies, so that nothing the model remembers is touched. Small ones run on the
micro-batch itself; large ones on ``meta`` tensors, which have shapes and no data: that takes as long for models of any
width, a second or two at the first. Some models cannot run without data; where that try fails it is repeated on the
micro-batch, and only what fails there too counts. An exception that the model's own code raises is no misfit: it is
left to the run, which reports it from where it happened.
"""

from __future__ import annotations

import copy
import dis
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pipelab.errors import ConfigurationError
from pipelab.models.cut import call_layer
from pipelab.models.shards import is_split
from pipelab.runtime.device.caller_settings import CallerSettings
from pipelab.runtime.device.payload import Payload, describe, flatten
from pipelab.runtime.device.threads import Overdue, run_threads
from pipelab.runtime.faults.limit import TimeLimit, stuck_error

__all__ = ["FitCheck", "check_fit"]

_CPU = torch.device("cpu")
_LITTLE = 5e9
"""Multiplications that are done sooner than shapes are asked of ``meta`` tensors."""


class FitCheck:
    """Checks ``stages`` and ``loss`` once per kind of micro-batch, within the time that a step may take.

    Of stages that several processes hold in parts no one has a copy to try.
    """

    def __init__(
        self, stages: Mapping[int, nn.Module], loss: Callable[[Any, Any], Tensor] | None, limit: TimeLimit
    ) -> None:
        self._stages, self._loss, self._limit = list(stages.values()), loss, limit
        self._seen: set[Any] = set()
        self._tries = not any(is_split(p) for stage in self._stages for p in stage.parameters())

    def check(self, inputs: Payload, targets: Any) -> None:
        """``inputs`` and ``targets`` are one micro-batch. Raises ConfigurationError, see :func:`check_fit`."""
        first = inputs.tensors[0] if inputs.single else inputs.tensors
        tensors = [t for value in (first, targets) if value is not None for t in flatten(value, "targets")[0]]
        signature = tuple((tuple(t.shape[1:]), t.dtype) for t in tensors)
        if self._tries and signature not in self._seen:
            loss, limit, at = self._loss if targets is not None else None, self._limit.seconds, list[int]()
            caller = CallerSettings(sorted({t.device for t in tensors}, key=str))

            def work() -> None:
                with caller.autocast():
                    check_fit(self._stages, loss, first, targets, at)

            try:
                run_threads(
                    [partial(caller.run, work, _CPU)], lambda: None, one_core_each=False, limit=limit, waits=False
                )
            except Overdue:
                where = f"stage {at[-1]}" if at and at[-1] < len(self._stages) else "the loss" if at else "a copy"
                what = f"{where}, tried before the step to see whether stages fit,"
                raise stuck_error(what, limit) from None
            self._seen.add(signature)


def _is_little(stages: Sequence[nn.Module], inputs: Any) -> bool:
    """Whether the CPU runs a forward at once: each number of the input meets each parameter at most about once."""
    tensors = flatten(inputs, "inputs")[0]
    parameters = [p for stage in stages for p in stage.parameters()]
    if any(tensor.device.type != "cpu" for tensor in (*tensors, *parameters)):
        return False
    return sum(t.numel() for t in tensors) * sum(p.numel() for p in parameters) <= _LITTLE


class _Misfit(Exception):
    """One stage refused its input."""

    def __init__(self, stage: int, took: Sequence[Tensor], error: BaseException) -> None:
        super().__init__(stage)
        self.stage, self.took, self.error = stage, took, error


def check_fit(
    stages: Sequence[nn.Module],
    loss: Callable[[Any, Any], Tensor] | None,
    inputs: Any,
    targets: Any,
    at: list[int] | None = None,
) -> None:
    """Raise ConfigurationError naming the stages if one cannot take what the one before it gives, or the loss fails.

    ``inputs`` and ``targets`` are one micro-batch. The stages that are reached are noted down in ``at``.
    """
    at = [] if at is None else at
    for s, stage in enumerate(stages):
        lazy = [name for name, parameter in stage.named_parameters() if is_lazy(parameter)]
        if lazy:
            given = describe(flatten(inputs, "inputs")[0])
            raise ConfigurationError(
                f"stage {s} cannot take the inputs {given} yet: '{lazy[0]}' is an uninitialized parameter; run the "
                "model once on a batch before a Pipeline is made of it"
            )
    if any(module._forward_hooks or module._forward_pre_hooks for stage in stages for module in stage.modules()):
        return  # hooks look at real runs, and may change what a layer takes: the run itself will tell
    if not _is_little(stages, inputs):
        try:
            _walk(stages, loss, inputs, targets, at, meta=True)
            return
        except ConfigurationError:
            raise
        except Exception:  # noqa: BLE001 (anything may come out of a model that is run without data)
            pass
    misfit = _try(stages, loss, inputs, targets, at, graph=False)
    if misfit is not None and not _raised_by_model(misfit.error):
        misfit = _try(stages, loss, inputs, targets, at, graph=True)  # a layer may differentiate in its forward
    if misfit is not None and not _raised_by_model(misfit.error):
        raise ConfigurationError(_sentence(misfit, len(stages))) from misfit.error


def _try(
    stages: Sequence[nn.Module],
    loss: Callable[[Any, Any], Tensor] | None,
    inputs: Any,
    targets: Any,
    at: list[int],
    *,
    graph: bool,
) -> _Misfit | None:
    try:
        _walk(stages, loss, inputs, targets, at, meta=False, graph=graph)
    except ConfigurationError:
        raise
    except _Misfit as misfit:
        return misfit
    except Exception:  # noqa: BLE001 (a copy could not be made, say: the run itself will tell)
        pass
    return None


def _walk(
    stages: Sequence[nn.Module],
    loss: Callable[[Any, Any], Tensor] | None,
    x: Any,
    targets: Any,
    at: list[int],
    *,
    meta: bool,
    graph: bool = False,
) -> None:
    with torch.set_grad_enabled(graph), torch.random.fork_rng(devices=[]):
        if not meta:  # a stage may work in place
            x, targets = (_map(value, Tensor.clone) for value in (x, targets))
        for s, stage in enumerate(stages):
            at.append(s)
            copied = _copy(stage, meta=meta)
            x = _map(x, lambda t, m=copied: t.to("meta" if meta else _home(m, t)))  # type: ignore[misc]
            took = flatten(x, "inputs")[0]
            if graph and s:
                x = _map(x, lambda t: t.detach().requires_grad_(t.is_floating_point()))
            try:
                x = call_layer(copied, x)
            except (Exception, SystemExit) as error:
                raise _Misfit(s, took, error) from error
            flatten(x, f"the output of stage {s}")
        if loss is None or targets is None:
            return
        at.append(len(stages))
        gave = flatten(x, "output")[0]
        fn = _copy(loss, meta=meta) if isinstance(loss, nn.Module) else loss
        try:
            value = fn(x, _map(targets, lambda t: t.to(gave[0].device)))
        except (Exception, SystemExit) as error:
            raise _Misfit(len(stages), gave, error) from error
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ConfigurationError(
                f"the loss must be a scalar, got {describe([value])}; reduce it, for example with .mean()"
            )
        if not isinstance(value, Tensor):
            raise ConfigurationError(f"the loss must return a scalar tensor, got {type(value).__name__}")


def _copy(module: Any, *, meta: bool) -> Any:
    """A copy with Python state of its own; on ``meta`` its tensors are stand-ins without data."""
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if meta:
            stand_in = torch.empty_like(tensor, device="meta")
            is_parameter = isinstance(tensor, nn.Parameter)
            memo[id(tensor)] = nn.Parameter(stand_in, tensor.requires_grad) if is_parameter else stand_in
        elif isinstance(tensor, nn.Parameter):
            memo[id(tensor)] = tensor  # read, never written: shared
    return copy.deepcopy(module, memo)


def _home(module: nn.Module, default: Tensor) -> torch.device:
    return next((p.device for p in module.parameters()), default.device)


def _map(value: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return fn(value)
    return tuple(fn(tensor) for tensor in value) if value is not None else None


def _raised_by_model(error: BaseException) -> bool:
    """Whether a ``raise`` or ``assert`` outside torch threw it, rather than an operation that did not fit."""
    if isinstance(error, SystemExit):
        return True
    last: TracebackType | None = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    code = last.tb_frame.f_code
    if "torch" in last.tb_frame.f_globals.get("__name__", "").split(".")[:1]:
        return False
    return code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _sentence(misfit: _Misfit, stages: int) -> str:
    given, reason = describe(misfit.took), str(misfit.error).splitlines()[0]
    if misfit.stage == stages:
        return f"the loss cannot take the last stage's output {given}: {reason}"
    if misfit.stage == 0:
        return f"stage 0 cannot take the inputs {given}: {reason}"
    return f"stage {misfit.stage} cannot take what stage {misfit.stage - 1} gives, {given}: {reason}"
