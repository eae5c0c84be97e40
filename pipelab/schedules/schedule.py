"""A schedule is data: one program per device, and where each stage lives.

numpy is loaded when arrays are first asked for: whoever only names schedules does without.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipelab.errors import ConfigurationError, ScheduleError
from pipelab.schedules.action import BACKWARD_OPS, Action, Slot, Updating, Words, actions_of, format_slot
from pipelab.schedules.dependencies import SlotGraph, earliest_slots
from pipelab.schedules.text import draw_grid, read_csv, read_grid, read_rows, write_csv

if TYPE_CHECKING:
    from pipelab.schedules.compiled import Compiled
    from pipelab.schedules.table import Array, Table
__all__ = ["Program", "Schedule", "TimeTable"]

Program = tuple[Slot, ...]
_HEAVIEST = 1e12
_PIPELINE = Words()


def _infer_placement(programs: Sequence[Sequence[Slot | None]]) -> tuple[tuple[int, ...], ...]:
    """Stage -> devices, read from where each stage's actions stand."""
    homes: dict[int, set[int]] = {}
    for device, program in enumerate(programs):
        for slot in program:
            for action in actions_of(slot) if slot is not None else ():
                homes.setdefault(action.stage, set()).add(device)
    return tuple(tuple(sorted(homes.get(stage, ()))) for stage in range(max(homes, default=-1) + 1))


def _infer_microbatches(programs: Sequence[Sequence[Slot | None]]) -> int:
    found = (action.microbatch for row in programs for slot in row if slot is not None for action in actions_of(slot))
    return max(found, default=-1) + 1


@dataclass(frozen=True)
class Schedule:
    """What runs, on which device, in which order.

    ``programs[r]`` is the program of device r: slots in the order in which it runs them.
    ``placement[s]`` is the tuple of devices that hold stage s (one device, but two in two-way pipelines).
    ``weights[i]`` is the size of micro-batch i relative to batch / m: 1 for even micro-batches, m for the single
    micro-batch of the naive schedule. ``updating`` is of schedules without a flush, which list their updates.

    Beneath it are arrays, :attr:`table`. A schedule that was made of those writes out ``programs`` when somebody looks.
    """

    name: str
    programs: tuple[Program, ...]
    placement: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]
    updating: Updating | None = None

    def __post_init__(self) -> None:
        if not self.devices:
            raise ConfigurationError("a schedule needs at least one device; give a program for each")
        for stage, homes in enumerate(self.placement):
            if len(set(homes)) < len(homes):
                raise ConfigurationError(f"placement names a device twice for stage {stage}: {tuple(homes)}")
            if any(device not in range(self.devices) for device in homes):
                raise ConfigurationError(
                    f"placement puts stage {stage} on devices {tuple(homes)}, there are devices 0..{self.devices - 1}"
                )
        if self.updating is not None and not isinstance(self.updating, Updating):
            raise ConfigurationError(
                f"updating is an Updating, got {self.updating!r}; try Updating('newest'), from pipelab.schedules"
            )
        if any(not 0 < weight < _HEAVIEST for weight in self.weights):
            raise ConfigurationError(
                f"weights must be positive and below {_HEAVIEST:.0e}, got {self.weights}; 1 is batch / m"
            )

    @classmethod
    def of_table(
        cls,
        name: str,
        table: Table,
        placement: tuple[tuple[int, ...], ...],
        weights: tuple[float, ...],
        updating: Updating | None = None,
    ) -> Schedule:
        """The schedule of a table of arrays."""
        made = cls.__new__(cls)
        made.__dict__.update(name=name, _arrays=table, placement=placement, weights=weights, updating=updating)
        made.__post_init__()
        return made

    def _with(self, **changed: Any) -> Schedule:
        """A schedule that differs in weights or slots, without a look at its programs."""
        given = {"table": self.table, "placement": self.placement, "weights": self.weights, **changed}
        given.setdefault("updating", self.updating)
        return Schedule.of_table(self.name, **given)

    if not TYPE_CHECKING:  # to a type checker ``programs`` is there like any other field

        def __getattr__(self, name: str) -> Any:
            if name != "programs" or "_arrays" not in self.__dict__:
                raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
            origin = self.__dict__.get("_origin")
            programs = self.__dict__["programs"] = self.table.programs() if origin is None else origin.programs
            return programs

    def __getstate__(self) -> dict[str, object]:
        """What is sent to another process: the table, and nothing that was worked out from it."""
        slots = "_arrays" if "_arrays" in self.__dict__ else "programs"
        return {name: getattr(self, name) for name in ("name", slots, "placement", "weights", "updating")}

    @cached_property
    def table(self) -> Table:
        """The arrays of its actions."""
        from pipelab.schedules.table import Table

        made: Table | None = self.__dict__.get("_arrays")
        return Table.of_programs(self.programs) if made is None else made

    @cached_property
    def resolved(self) -> Compiled | None:
        """The table compiled, once for all who walk through it; None if anything is wrong with it."""
        from pipelab.schedules.compiled import resolve

        return resolve(self.table, self.placement, self.microbatches, self.updating)

    @cached_property
    def kept(self) -> dict[Any, Any]:
        """What others have worked out from this schedule, by name, so that it is worked out once."""
        return {}

    @cached_property
    def graph(self) -> SlotGraph:
        """The table with its needs resolved, as objects, once for all who ask."""
        origin: Schedule | None = self.__dict__.get("_origin")
        return origin.graph if origin is not None else SlotGraph(self.programs, self.placement)

    def lives(self, table: Table) -> tuple[Array, Array]:
        """Of actions that leave something on their device: the F, and the action whose end lets it go; -1 for none."""
        return table.lives

    @property
    def words(self) -> Words:
        """What its things are called."""
        return _PIPELINE

    @property
    def devices(self) -> int:
        """p, the number of devices."""
        made: Table | None = self.__dict__.get("_arrays")
        return len(self.programs) if made is None else made.devices

    @property
    def stages(self) -> int:
        """The number of stages: p * v where each device holds v chunks."""
        return len(self.placement)

    @property
    def microbatches(self) -> int:
        """The number of micro-batches in the table (1 for naive, whatever m it was built with)."""
        return len(self.weights)

    @cached_property
    def chunks(self) -> int:
        """v, the largest number of stages on one device."""
        return max((len(self.stages_on(device)) for device in range(self.devices)), default=0)

    @property
    def share(self) -> float:
        """One stage's part of a full device share of the model: p / stages, that is 1 / v."""
        return self.devices / self.stages if self.stages else 0.0

    @cached_property
    def ops(self) -> frozenset[str]:
        """The ops that occur in the table."""
        return self.table.ops

    @cached_property
    def recomputed(self) -> frozenset[tuple[int, int]]:
        """(stage, micro-batch) of what is recomputed: there is an R for it."""
        return self.table.pairs("R")

    @property
    def forward_only(self) -> bool:
        """Whether this is an evaluation schedule: forwards and nothing else."""
        return not self.ops & (BACKWARD_OPS | {"R", "U"})

    def stages_on(self, device: int) -> tuple[int, ...]:
        """The stages that ``device`` holds, in ascending order."""
        return tuple(stage for stage, homes in enumerate(self.placement) if device in homes)

    def actions(self) -> Iterator[tuple[int, int, Action]]:
        """Every (device, position, action) of the table, device by device."""
        for device, program in enumerate(self.programs):
            for position, slot in enumerate(program):
                for action in actions_of(slot):
                    yield device, position, action

    def microbatch_sizes(self, batch: int) -> tuple[int, ...]:
        """How many of ``batch`` sequences each micro-batch gets, as ``torch.tensor_split`` cuts even weights.

        Raises ConfigurationError if there are fewer sequences than micro-batches, or if uneven weights do not give
        whole numbers of sequences.
        """
        m = self.microbatches
        if batch < m:
            raise ConfigurationError(
                f"m = {m} micro-batches need a batch of at least {m} sequences, got {batch}; try m = {max(batch, 1)}"
            )
        if not m:
            return ()
        if len(set(self.weights)) == 1:
            small, rest = divmod(batch, m)
            return tuple(small + (i < rest) for i in range(m))
        sizes = [weight * batch / sum(self.weights) for weight in self.weights]
        whole = tuple(round(size) for size in sizes)
        if any(abs(a - b) > 1e-6 for a, b in zip(sizes, whole, strict=True)) or min(whole) < 1:
            shown = ", ".join(f"{size:g}" for size in sizes)
            raise ConfigurationError(
                f"weights {self.weights} cut a batch of {batch} into {shown} sequences, which are not whole numbers; "
                f"try for_batch({batch}) on the schedule without weights"
            )
        return whole

    def for_batch(self, batch: int) -> Schedule:
        """The same table with the weights that a batch of ``batch`` sequences gives its micro-batches.

        >>> build_schedule("1f1b", devices=4, microbatches=12).for_batch(64).weights[0]   # 6 of 64 / 12 sequences
        1.125
        """
        known, made = self.kept.get("batch", (None, None))
        if known != batch:
            nominal = sum(self.weights)
            made = self._with(weights=tuple(size * nominal / batch for size in self.microbatch_sizes(batch)))
            made.__dict__.update(_origin=self, resolved=self.resolved)  # the same slots
            self.kept["batch"] = (batch, made)
        assert isinstance(made, Schedule)
        return made

    def with_sizes(self, sizes: Sequence[int]) -> Schedule:
        """The same table with the weights of micro-batches of these sizes."""
        whole, nominal = sum(sizes), sum(self.weights)
        made = self._with(weights=tuple(size * nominal / whole for size in sizes))
        made.__dict__.update(_origin=self, resolved=self.resolved)  # the same slots
        return made

    def with_recompute(self) -> Schedule:
        """The same table with an R before each backward, as GPipe's paper pairs it (arXiv 1811.06965, 2.3)."""
        return self if "R" in self.ops else self._with(table=self.table.with_recompute())

    def forward_part(self) -> Schedule:
        """The evaluation schedule in this table: its forwards, in its order, and no updates."""
        return self._with(table=self.table.forward_part(), updating=None)

    def to_csv(self, dialect: str = "pipelab") -> str:
        """One CSV row per device; ``dialect="torch"`` refuses what ``torch.distributed.pipelining`` does not read."""
        if dialect == "torch":
            self._refuse_for_torch()
        elif dialect != "pipelab":
            raise ConfigurationError(f"unknown CSV dialect {dialect!r}; there are 'pipelab' and 'torch'")
        return write_csv(self.programs)

    def _refuse_for_torch(self) -> None:
        """torch.distributed.pipelining reads F, B, I, W and OVERLAP_F_B, of stages that live on one device each."""
        for device, program in enumerate(self.programs):
            for position, slot in enumerate(program):
                strange = [action for action in actions_of(slot) if action.op in "RU"]
                if strange or (not isinstance(slot, Action) and not format_slot(slot).endswith("OVERLAP_F_B")):
                    raise ScheduleError(
                        f"device {device}, position {position}: PyTorch's tables have no {format_slot(slot)}; they "
                        "know F, B, I, W and one forward fused with one backward"
                    )
        for stage, homes in enumerate(self.placement):
            if len(homes) != 1:
                raise ScheduleError(
                    f"stage {stage} lives on devices {homes}: in PyTorch's tables each stage lives on exactly one"
                )

    @classmethod
    def from_csv(
        cls,
        text: str,
        *,
        name: str = "table",
        placement: Sequence[Sequence[int]] | None = None,
        weights: Sequence[float] | None = None,
        updating: Updating | None = None,
    ) -> Schedule:
        """Read a schedule from CSV. Empty cells are idle time and are skipped.

        Placement and the number of micro-batches are read off the table unless given. Weights and
        ``updating`` are not part of the text: pass weights where they are not 1, and the rule by which a table without
        a flush picks versions. Raises ScheduleParseError, which names row, column and token, and
        ConfigurationError for what is not text.
        """
        return TimeTable(read_csv(text)).schedule(name=name, placement=placement, weights=weights, updating=updating)

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Iterable[Slot | str]],
        *,
        name: str = "table",
        placement: Sequence[Sequence[int]] | None = None,
        weights: Sequence[float] | None = None,
        updating: Updating | None = None,
    ) -> Schedule:
        """A schedule from one row of actions per device, each an Action or its text.

        Placement, micro-batches, weights and updating as in :meth:`from_csv`. Raises ScheduleParseError, which names
        row, column and token, and ConfigurationError for what is no table of actions.

        >>> Schedule.from_rows([["0F0", "0B0"], ["1F0", "1B0"]]).programs[1][0]
        Action(stage=1, op='F', microbatch=0)
        """
        return TimeTable(read_rows(rows)).schedule(name=name, placement=placement, weights=weights, updating=updating)

    def to_grid(self) -> str:
        """The table drawn as text: one row per device, one column per time slot (each slot takes one).

        Raises ScheduleError where the table waits forever: what can never start has no column.
        """
        return draw_grid(earliest_slots(self.programs, self.placement))

    @classmethod
    def from_grid(
        cls,
        text: str,
        *,
        name: str = "table",
        placement: Sequence[Sequence[int]] | None = None,
        weights: Sequence[float] | None = None,
        updating: Updating | None = None,
    ) -> Schedule:
        """Read a schedule from the text that :meth:`to_grid` draws. Raises ScheduleParseError."""
        return TimeTable(read_grid(text)).schedule(name=name, placement=placement, weights=weights, updating=updating)

    def __str__(self) -> str:
        try:
            return self.to_grid()
        except ScheduleError:  # what waits for ever has no times: show the order alone
            return draw_grid(self.programs).replace("time  ", "order ", 1)


@dataclass(frozen=True)
class TimeTable:
    """A timed table: ``rows[r][t]`` is what device r starts in time slot t, or None where it idles."""

    rows: tuple[tuple[Slot | None, ...], ...]

    @classmethod
    def from_csv(cls, text: str) -> TimeTable:
        """Read a timed table from CSV: one row per device, one column per time slot, empty cells idle."""
        return cls(read_csv(text))

    @classmethod
    def from_grid(cls, text: str) -> TimeTable:
        """Read a timed table from the text form that ``Schedule.to_grid`` draws."""
        return cls(read_grid(text))

    def to_grid(self) -> str:
        """The table drawn as text."""
        return draw_grid(self.rows)

    def schedule(
        self,
        *,
        name: str = "table",
        placement: Sequence[Sequence[int]] | None = None,
        weights: Sequence[float] | None = None,
        updating: Updating | None = None,
    ) -> Schedule:
        """The order of this table without its times."""
        if weights is None:
            weights = (1.0,) * _infer_microbatches(self.rows)
        try:
            sizes = tuple(float(weight) for weight in weights)
        except (TypeError, ValueError, OverflowError):
            raise ConfigurationError(f"weights are one number per micro-batch, got {weights!r}; try (1, 1)") from None
        try:
            homes = (
                _infer_placement(self.rows)
                if placement is None
                else tuple(tuple(map(operator.index, devices)) for devices in placement)
            )
        except TypeError:
            raise ConfigurationError(
                f"placement is one tuple of devices per stage, got {placement!r}; try ((0,), (1,))"
            ) from None
        return Schedule(
            name=name,
            programs=tuple(tuple(slot for slot in row if slot is not None) for row in self.rows),
            placement=homes,
            weights=sizes,
            updating=updating,
        )
