"""The caller's torch settings, carried into worker threads.

Threads do not inherit autocast, default device, CUDA device or stream, nor context variables, nor who looks at each
operator (a TorchDispatchMode, such as FlopCounterMode); workers re-enter them.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

__all__ = ["CallerSettings"]

T = TypeVar("T")


class CallerSettings:
    """A snapshot of the calling thread, taken when it is made."""

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._context = contextvars.copy_context()
        self._autocast = [
            (kind, torch.get_autocast_dtype(kind))
            for kind in sorted({"cpu", *(device.type for device in devices)})
            if torch.is_autocast_enabled(kind)
        ]
        self.casts = bool(self._autocast)
        self._cache = torch.is_autocast_cache_enabled()
        mode = torch.get_default_device()
        self._modes = _get_current_dispatch_mode_stack()
        self._default_device = mode if mode != torch.device("cpu") else None
        cuda = sorted({device.index or 0 for device in devices if device.type == "cuda"})
        # All threads use the caller's stream of each GPU, so that what one enqueues the next finds done.
        self._streams = [torch.cuda.current_stream(index) for index in cuda]

    def run(self, work: Callable[[], T], device: torch.device) -> T:
        """Run ``work`` for ``device`` as if the caller had."""

        def inside() -> T:
            with ExitStack() as stack:
                for stream in self._streams:
                    stack.enter_context(torch.cuda.stream(stream))
                if device.type == "cuda":
                    stack.enter_context(torch.cuda.device(device))
                if self._default_device is not None:
                    stack.enter_context(self._default_device)
                for mode in self._modes:
                    if mode not in _get_current_dispatch_mode_stack():  # another thread than the caller's
                        stack.enter_context(mode)
                return work()

        return self._context.copy().run(inside)

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The caller's autocast. Entered per action: its cache of cast weights must not outlive one graph."""
        with ExitStack() as stack:
            for kind, dtype in self._autocast:
                stack.enter_context(torch.autocast(kind, dtype=dtype, cache_enabled=self._cache))
            yield
