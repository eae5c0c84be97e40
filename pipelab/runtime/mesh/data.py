"""Data parallelism around a pipeline: each replica has its share of the batch, and gradients are summed over replicas.

A stage's gradients are summed as soon as its last backward of the step is over, while other micro-batches and stages go
on. Losses are weighted by the terms of the whole batch, so it is a sum and no mean: shares may be of any size.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, LostProcessError, PipelabError
from pipelab.models.shards import is_split, local, with_part
from pipelab.runtime.mesh.across import Across
from pipelab.runtime.mesh.shape import START_AGAIN, Shape
from pipelab.runtime.mesh.sharded import Sharded
from pipelab.runtime.mesh.tensor import add_partial
from pipelab.runtime.messages import Reduction
from pipelab.runtime.peers import Peers, Share
from pipelab.runtime.setup.microbatches import join_batches
from pipelab.runtime.setup.replicas import Replicas

__all__ = ["DataParallel"]

T = TypeVar("T")

_LOOKS, _LEFT = 0.5, 5.0
"""Seconds between two looks whether another process has failed; and how many this one then has to come to its end."""
_WAIT = timedelta(minutes=30)
"""How long a sum may take once all replicas have come to the same step."""


@dataclass
class _Bucket:
    """The gradients of one stage on one device, in one piece of memory for each dtype, on their way."""

    parameters: list[nn.Parameter]
    pieces: list[Tensor] = field(default_factory=list)
    works: list[Any] = field(default_factory=list)
    begun: float = 0.0
    ended: float = 0.0

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(piece.nbytes for piece in self.pieces)


class DataParallel:
    """The replicas of this process's stages. ``peers.column``: the processes that hold them (see ``Shape.column``).

    ``groups[r]`` is the torch.distributed group that sums what device r of this process has; threads have one each,
    because a group's messages have an order. ``give_back`` is called at the end, if nothing is left in them.
    """

    def __init__(self, shape: Shape, peers: Across, groups: dict[int, Any], *, give_back: Callable[[], None]) -> None:
        self.shape, self.peers, self.column, self._groups = shape, peers, peers.column, groups
        self.sharded: dict[int, Sharded] = {}
        self._give_groups_back = give_back
        self._buckets: dict[tuple[int, int], _Bucket] = {}
        self._lock = threading.Lock()
        self._broken = self._open = False
        self._walk, self._looks, self._failed = 0, 0.0, False
        self._order: list[tuple[int, int]] = []
        self._buffers: dict[tuple[int, int], list[Tensor]] = {}
        """Copies of those that a checkpoint has, as all replicas had them last."""
        self._replicas: Replicas

    def belong(self, replicas: Replicas) -> None:
        """Sum the gradients of ``replicas``, which start from what the first replica of the pipeline holds."""
        self._replicas = replicas
        for (r, s), module in replicas.modules.items():
            for tensor in (*module.parameters(), *module.buffers()):
                if self.shape.sizes["tp"] > 1 and not is_split(tensor):
                    _take([tensor], self.shape.ranks("tp")[0], self.shape.group("tp"))
                if self.shape.sizes["dp"] > 1 and not _is_shared_out(tensor):
                    _take([local(tensor)], self.shape.ranks("dp")[0], self._groups[r])
            self._buffers[r, s] = [buffer.clone() for buffer in _buffers(module)]

    # ---- the batch -----------------------------------------------------------------------------------------------

    def share(self, call: Mapping[str, Any], look: Callable[[], tuple[int, float]]) -> Share:
        """What comes before this replica's part; ``look`` says (sequences, loss terms) of that, or fails everywhere.

        Raises ConfigurationError everywhere unless all processes make the same ``call``: what it is about, by topic.
        """
        takes = [p.requires_grad for module in self._replicas.modules.values() for p in module.parameters()]
        call = {**call, "which parameters take a gradient": f"{sum(takes)} of {len(takes)}"}
        everyone = self.column.agree(lambda: (call, takes, look()))
        for place, (its, its_takes, _) in enumerate(everyone):
            replica = place // self.shape.sizes["tp"]
            for topic, value in everyone[0][0].items():
                last = topic == "which parameters take a gradient"
                if its[topic] != value or (last and its_takes != everyone[0][1]):
                    raise ConfigurationError(
                        f"the replicas of this pipeline disagree about {topic}: {value} in replica 0, {its[topic]} in "
                        f"replica {replica}; every rank must do the same"
                    )
        told = [part for *_, part in self._one_each(everyone)]
        return Share(sum(size for size, _ in told[: self.shape.replica]), sum(terms for _, terms in told))

    def total(self, loss: float | None) -> float | None:
        """The loss of the whole batch, from each replica's part of it."""
        told = [part for part in self._one_each(self.column.exchange(loss)) if part is not None]
        return sum(told) if told else None

    def whole(self, given: Any) -> Any:
        """The whole batch's tensors, from each replica's; None where this process has none."""
        parts = self._one_each(self.column.exchange(given))
        return None if given is None else join_batches(parts)

    def first_says(self, work: Callable[[Peers], T]) -> T:
        """What ``work`` comes to in the processes of the first replica, told to all."""
        found: list[T] = self.column.agree(lambda: None if self.column.rank else work(self.peers.inner))
        return found[0]

    def of_replicas(self, tell: Callable[[], T]) -> list[T]:
        """What the processes of this column have to tell, one entry a replica."""
        return self._one_each(self.column.agree(tell))

    def _one_each(self, told: Sequence[T]) -> list[T]:
        """One entry a replica: slices of one replica have the same batch."""
        return list(told[:: self.shape.sizes["tp"]])

    # ---- gradients -----------------------------------------------------------------------------------------------

    def prepare(self, order: Sequence[tuple[int, int]] | None) -> None:
        """A step begins, in all replicas; ``order`` is that of the stages' last backwards (None: an evaluation)."""
        self._walk, self._failed = self._walk + 1, False
        if order is not None:
            self._prepare(order)
        for stage in self.sharded.values():
            stage.begin(training=order is not None)

    def close(self) -> None:
        """Let go of the groups."""
        if not self._broken:
            self._give_groups_back()
        self._broken = True

    def before_last(self, key: tuple[int, int]) -> None:
        """The next backward of stage s is its last one in this step."""
        if key[1] in self.sharded:
            self.sharded[key[1]].before_last()

    def _prepare(self, order: Sequence[tuple[int, int]]) -> None:
        if self._broken:
            raise PipelabError(
                "an earlier step has lost a replica, or failed halfway within a layer; make a new Pipeline"
            )
        self._buckets, self._open = {}, True
        late = [key for key in sorted(self._replicas.modules) if key not in order or self._waits(key)]
        self._order = [key for key in order if key not in late] + late

    def send(self, key: tuple[int, int]) -> None:
        """Stage s on device r has its gradients: sum them over the replicas, while others go on."""
        if not self._waits(key):
            self._begin(key)

    def finish(self) -> list[Reduction]:
        """At the flush: all gradients are those of the whole batch. Says what was moved, and when."""
        self._settle()
        if self.sharded:
            here = (p for module in self._replicas.modules.values() for p in module.parameters())
            used = [p.grad is not None for p in here]
            if any(other != used for other in self.column.exchange(used)):
                raise ConfigurationError(
                    "shard sums the gradients of a layer in one piece, and in this step replicas have gradients of "
                    "different parameters; leave shard out where the data decide which layers are used"
                )
        moved = [(key, bucket) for key, bucket in self._buckets.items() if bucket.works]
        found = [Reduction(s, r, bucket.size, bucket.begun, bucket.ended) for (r, s), bucket in moved]
        self._give_back()
        self._even_buffers()
        return found

    @property
    def _within(self) -> bool:
        """Whether processes that hold a stage together wait for each other within it."""
        return self.shape.sizes["tp"] > 1 or bool(self.sharded)

    @property
    def _failing(self) -> str:
        """What is said in the store when this walk has failed: to all replicas, if they share weights out."""
        return f"failed {self._walk} {0 if self.sharded else self.shape.replica}"

    def fail(self) -> None:
        """This process's walk has failed: tell those who may wait for its part of a layer, where nothing wakes them."""
        if self._within:
            with suppress(RuntimeError):  # the store may be gone, too
                self.column.store.set(self._failing, b"")

    def left(self) -> float:
        """How many seconds a walk may still take: few, once another process that holds the same stage has failed."""
        now = time.monotonic()
        if self._within and not self._failed and now >= self._looks:
            self._looks = now + _LOOKS
            with suppress(RuntimeError):
                self._failed = self.column.store.check([self._failing])
        return _LEFT if self._failed else math.inf

    def give_up(self, error: BaseException) -> None:
        """After a step that failed in all replicas: nothing may be left on its way."""
        lost = isinstance(error, LostProcessError) or bool(getattr(error, "stuck", None))
        if not lost and self._left_waiting(error):
            error.add_note(f"A process was left waiting within a layer; {START_AGAIN}.")
            self._broken = True
            self.shape.give_up()
        if not self._open:
            return
        if self._broken or self.sharded or lost:
            self._broken, self._open = True, False
            return
        try:
            self._settle(failed=True)
        except Exception:  # noqa: BLE001 (the step's own error is raised)
            self._broken = True
        self._buckets, self._open = {}, False

    def _left_waiting(self, error: BaseException) -> bool:
        """Whether ``error``, if all have heard of it, has left a thread anywhere in the middle of a layer."""
        if not (self._within and getattr(error, "_known_to_all", False)):
            return False
        return any(self.column.exchange(any(self.peers.exchange(bool(self._replicas.busy)))))

    def rest(self) -> None:
        """A walk is over, well or not: of what is shared out, each replica keeps its part."""
        for stage in self.sharded.values():
            stage.rest()

    def _settle(self, *, failed: bool = False) -> None:
        """Begin what has not begun, in the same order in all replicas, and wait for all of it."""
        for key in self._order:
            if key not in self._buckets:
                self._begin(key, failed=failed)
        with self._lost():
            for bucket in self._buckets.values():
                for work in bucket.works:
                    work.wait(min(_WAIT, timedelta(seconds=min(self.peers.limit.seconds, 1e6))))
                bucket.ended = bucket.ended or time.perf_counter()

    def _waits(self, key: tuple[int, int]) -> bool:
        """Whether gradients of other devices are added first."""
        return self._replicas.needs_others(key[1])

    def _begin(self, key: tuple[int, int], *, failed: bool = False) -> None:
        owned = [p for _, p in self._replicas.owned(key[1], self._replicas.modules[key]) if p.requires_grad]
        if not failed:  # else processes may have gradients of different micro-batches
            add_partial(owned)
        if self.shape.sizes["dp"] == 1:
            return
        owned = [p for p in owned if not _is_shared_out(p)]
        bucket = _Bucket(owned, begun=time.perf_counter())
        for dtype in sorted({p.dtype for p in owned}, key=str):
            same = [p for p in owned if p.dtype == dtype]
            there = torch.tensor([_mark(p.grad) for p in same], dtype=dtype, device=same[0].device)
            grads = [local(torch.zeros_like(p) if p.grad is None else _dense(p.grad)).reshape(-1) for p in same]
            bucket.pieces.append(torch.cat([there, *(grad.detach() for grad in grads)]))
        with self._lost():
            for piece in bucket.pieces:
                bucket.works.append(dist.all_reduce(piece, group=self._groups[key[0]], async_op=True))
        if bucket.works and bucket.pieces[-1].device.type == "cpu":
            bucket.works[-1].get_future().then(lambda _: setattr(bucket, "ended", time.perf_counter()))
        with self._lock:
            self._buckets[key] = bucket

    def _even_buffers(self) -> None:
        """What the step has changed in a buffer of any replica, as running statistics: the first replica's for all."""
        now = {key: _buffers(module) for key, module in sorted(self._replicas.modules.items())}
        if self.shape.sizes["dp"] == 1 or not any(now.values()):
            return
        mine = [not torch.equal(a, b) for key in now for a, b in zip(now[key], self._buffers[key], strict=True)]
        changed = iter([any(each) for each in zip(*self.column.exchange(mine), strict=True)])
        for key, buffers in now.items():
            pairs = [pair for pair in zip(buffers, self._buffers[key], strict=True) if next(changed)]
            if pairs:
                with self._lost():
                    _take([buffer for buffer, _ in pairs], self.shape.ranks("dp")[0], self._groups[key[0]])
            for buffer, kept in pairs:
                kept.copy_(buffer)

    def _give_back(self) -> None:
        """Sums into the parameters; where no replica has a gradient, there is none."""
        for (r, _), bucket in sorted(self._buckets.items()):
            pieces = iter(bucket.pieces)
            for dtype in sorted({p.dtype for p in bucket.parameters}, key=str):
                same, piece = [p for p in bucket.parameters if p.dtype == dtype], next(pieces)
                there = piece[: len(same)].tolist()
                sums = piece[len(same) :].split([local(p).numel() for p in same])
                for parameter, found, total in zip(same, there, sums, strict=True):
                    grad = with_part(parameter, total.view_as(local(parameter))) if found else None
                    if grad is not None and found < 1:
                        grad = self._by_rows(grad, parameter.grad, self._groups[r])
                    parameter.grad = grad
        self._buckets, self._open = {}, False

    def _by_rows(self, total: Tensor, own: Tensor | None, group: Any) -> Tensor:
        """``total`` as a sparse tensor of those rows that a replica has a gradient of, zero or not."""
        touched = torch.zeros(len(total), device=total.device)
        if own is not None:
            touched[own._indices()[0]] = 1
        with self._lost():
            dist.all_reduce(touched, group=group)
        rows = touched.nonzero().T
        return torch.sparse_coo_tensor(rows, total[rows[0]], total.shape, is_coalesced=True)

    @contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, PipelabError):
                raise
            self._broken = True
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise LostProcessError(
                f"a process of another replica is gone, or the network between them: {reason}; go on from the last "
                "checkpoint"
            ) from None


def _take(tensors: Sequence[Tensor], source: int, group: Any) -> None:
    """Their values in process ``source``; as bytes, for there are numbers that are not sent."""
    sent = torch.cat([tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in tensors])
    dist.broadcast(sent, source, group=group)
    with torch.no_grad():
        for tensor, part in zip(tensors, sent.split([tensor.nbytes for tensor in tensors]), strict=True):
            tensor.copy_(part.clone().view(tensor.dtype).view_as(tensor))


def _buffers(module: nn.Module) -> list[Tensor]:
    """Those that a checkpoint has."""
    if next(module.buffers(), None) is None:
        return []
    state = module.state_dict(keep_vars=True).values()
    return [local(tensor) for tensor in state if isinstance(tensor, Tensor) and not isinstance(tensor, nn.Parameter)]


def _is_shared_out(tensor: Tensor) -> bool:
    """Whether replicas have a part of it each, which FSDP2 sums."""
    return is_split(tensor) and "dp" in tensor.device_mesh.mesh_dim_names  # type: ignore[attr-defined]


def _mark(grad: Tensor | None) -> float:
    """Whether there is one, in a word that is summed with it: below 1 in the end where all of them are rows."""
    if grad is None:
        return 0.0
    return 2.0**-12 if grad.layout == torch.sparse_coo and grad.sparse_dim() == 1 else 1.0


def _dense(grad: Tensor) -> Tensor:
    return grad.to_dense() if grad.layout != torch.strided else grad
