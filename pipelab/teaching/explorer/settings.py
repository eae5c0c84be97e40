"""The explorer's settings, and what they mean: a schedule, its costs, a batch. Pure Python."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache
from typing import Any

from pipelab.errors import ConfigurationError
from pipelab.quantities import parse_bytes
from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.catalogue import Recipe, build_schedule, recipes
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.updates import over
from pipelab.schedules.warmups import with_warmups
from pipelab.simulation.simulate import peak_activation_bytes, simulate
from pipelab.timeline import Timeline

__all__ = ["CONTROLS", "LAYERS", "UNIT_SEQUENCES", "Control", "Settings", "SettingsCosts", "control", "normalised"]

UNIT_SEQUENCES = 16  # tF and tB are the times of a micro-batch of so many sequences, that of the worked example
LAYERS = 48
WAITING = 1.244  # of the activation bytes of a layer of the 48-layer model: what is kept from I to W, as measured once
MOST_SLOTS = 16 * 2 * 128  # forwards, and as many backwards: what still draws in a second
BATCH, MICROBATCH = "batch", "microbatch"


@dataclass(frozen=True)
class Control:
    """One setting that a reader can change; ``symbol`` is its short name.

    ``kind`` is "whole", "number", "choice" (a list), "either" (two choices side by side) or "switch" (on or off).
    """

    name: str
    label: str
    kind: str
    symbol: str = ""
    low: float = 0.0
    high: float = 0.0
    step: float = 1.0
    unit: str = ""
    optional: str = ""
    """May be left empty, and then means this."""


CONTROLS = {
    one.name: one
    for one in (
        Control("schedule", "Schedule", "choice"),
        Control("compare", "Compare with", "choice"),
        Control("devices", "Devices p", "whole", "p", 1, 16),
        Control("microbatches", "Micro-batches m", "whole", "m", 1, 128),
        Control("chunks", "Chunks per device v", "whole", "v", 1, 12),
        Control("warmup", "Warm-up: p - 1 - r plus", "whole", "w", -8, 8),
        Control("forward", "Forward tF", "number", "tF", 0.1, 10, 0.1, "units"),
        Control("backward", "Backward tB", "number", "tB", 0.1, 10, 0.1, "units"),
        Control("input_gradient", "Input's gradient tI", "number", "tI", 0.1, 10, 0.1, "units", optional="tB / 2"),
        Control("weight_gradient", "Weights' gradient tW", "number", "tW", 0.1, 10, 0.1, "units", optional="tB / 2"),
        Control("overhead", "Fixed cost of an action α", "number", "alpha", 0, 5, 0.05, "units"),
        Control("latency", "Latency of a message", "number", "L", 0, 5, 0.1, "units"),
        Control("fixed", "What is fixed", "either"),
        Control("batch", "Batch (sequences)", "whole", "B", 1, 512, 1),
        Control("limit", "Limit on activations alone", "number", "limit", 0, 100_000, 1, "MB", optional="none"),
        Control("recompute", "Recompute forwards (R)", "switch"),
    )
}
_SYMBOLS = {one.symbol: one.name for one in CONTROLS.values() if one.symbol} | {"hold": "fixed"}  # its name of old


def control(name: str) -> Control:
    """The control called ``name``, by its name or its symbol (``"m"``). Raises ConfigurationError with the nearest."""
    found = CONTROLS.get(_SYMBOLS.get(name, name))
    if found is None:
        known = [one for one in dict.fromkeys([*CONTROLS, *_SYMBOLS]) if one != "hold"]
        close = [one for one in known if one.lower() == str(name).lower()]
        close += difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ConfigurationError(f"there is no control '{name}'; the controls are {', '.join(known)}{hint}")
    return found


@dataclass(frozen=True)
class Settings:
    """One state of the explorer.

    ``forward`` and ``backward``: tF and tB, the time of a micro-batch of 16 sequences on one device's layers, in units.
    ``input_gradient`` and ``weight_gradient``: tI and tW, of I and W where a backward is split (None: half of tB).
    ``overhead`` (alpha): a fixed time that every action on a full device share adds, at any size.
    ``fixed``: what stays the same when m changes. With "batch", ``batch`` sequences are cut into m, so that more
    micro-batches are smaller. With "microbatch", each micro-batch has 16 sequences, so that the batch grows with m.
    ``warmup``: forwards that each device of 1F1B runs first, beyond its p - 1 - r. ``limit``: MB of activations on a
    device, for the 48-layer model; weights, gradients and optimizer state are not counted. ``compare``: a second
    schedule, "" for none.
    """

    schedule: str = "1f1b"
    devices: int = 4
    microbatches: int = 4
    chunks: int = 2
    forward: float = 1.0
    backward: float = 1.0
    input_gradient: float | None = None
    weight_gradient: float | None = None
    overhead: float = 0.0
    latency: float = 0.0
    fixed: str = MICROBATCH
    batch: int = 64
    warmup: int = 0
    limit: float | None = None
    recompute: bool = False
    compare: str = ""

    @property
    def has_steady_phase(self) -> bool:
        """Whether forwards and backwards take turns. The others only fill and drain."""
        return self.schedule not in ("naive", "gpipe", "looped-bfs")

    @property
    def splits(self) -> bool:
        """Whether backwards run in two halves, I and W."""
        return _splits(self.schedule)

    @property
    def halves(self) -> tuple[float, float]:
        """tI and tW."""
        half = self.backward / 2
        return self.input_gradient or half, self.weight_gradient or half

    @property
    def recipe(self) -> Recipe:
        """How the schedule is built."""
        return recipes()[self.schedule]

    @property
    def sequences(self) -> int:
        """The whole batch."""
        return self.sequences_at(self.microbatches)

    def sequences_at(self, microbatches: int) -> int:
        """The whole batch, were there so many micro-batches."""
        return self.batch if self.fixed == BATCH else UNIT_SEQUENCES * microbatches

    @property
    def sizes(self) -> str:
        """What is fixed, and what follows for the sizes, as a sentence or two."""
        batch, m = self.sequences, self.microbatches
        small, rest = divmod(batch, m)
        each = f"{small} or {small + 1}" if rest else f"{small}"
        if self.fixed == BATCH:
            fixed = f"The batch of {batch} sequences is fixed"
            told = f"{fixed}: m = {m} cuts it into micro-batches of {each}."
        else:
            fixed = f"The micro-batch of {UNIT_SEQUENCES} sequences is fixed"
            told = f"{fixed}: m = {m} of them make a batch of {batch}."
        whole = self.schedule == "naive"
        return f"{fixed}. The naive pipeline runs the whole batch of {batch} at once." if whole else told

    @property
    def v(self) -> int:
        """Chunks per device, which is 1 for schedules that know no other."""
        return self.chunks if self.recipe.chunks is None else self.recipe.chunks

    @property
    def steps(self) -> int:
        """How many steps a picture shows: without a flush so many that the pipeline is full in between, else one."""
        if self.recipe.updating is None:
            return 1
        return 1 + 2 * max(-(-(self.devices - 1) // self.microbatches), 1)

    def other(self) -> Settings | None:
        """The same with the schedule to compare with, if there is one."""
        return replace(self, schedule=self.compare, compare="", warmup=0) if self.compare else None

    def build(self) -> Schedule:
        """The schedule. Raises ConfigurationError or ScheduleError if there is none with these numbers."""
        if self.fixed == BATCH and self.microbatches > self.batch:
            raise ConfigurationError(
                f"a batch of {self.batch} sequences cannot be cut into m = {self.microbatches} micro-batches; try "
                f"m = {self.batch}, or a larger batch"
            )
        slots = self.devices * self.v * self.microbatches * self.steps
        if slots > MOST_SLOTS:
            fits = max(MOST_SLOTS // (self.devices * self.v * self.steps), 1)
            raise ConfigurationError(f"p v m = {slots} is too much for a page to draw; try m of at most {fits}")
        deeper = self.warmup if self.schedule == "1f1b" else 0
        return _built(self.schedule, self.devices, self.microbatches, self.v, deeper, self.recompute)

    def table(self) -> Schedule:
        """What a picture shows: the schedule, or several steps of it. Raises as :meth:`build`."""
        schedule = self.build()
        return schedule if self.steps == 1 else over(schedule, self.steps)

    def costs(self) -> SettingsCosts:
        """What things cost, for ``simulate``."""
        return SettingsCosts(self, self.sequences)

    def timeline(self) -> Timeline:
        """The prediction. Raises as :meth:`build`, and ScheduleError if the order waits forever."""
        return simulate(self.table(), self.costs(), batch=self.sequences * self.steps, check=False)

    def fits(self) -> bool:
        """Whether every device can hold its activations, without simulating anything. Raises as :meth:`build`."""
        schedule = self.table()
        if self.limit is None:
            return True
        peaks = peak_activation_bytes(schedule, self.costs(), batch=self.sequences * self.steps)
        return max(peaks) <= self.limit * 1e6


@cache
def _splits(name: str) -> bool:
    return "I" in build_schedule(name, 2, 4).ops  # a shape that every schedule has


@reserved
def _built(name: str, p: int, m: int, v: int, deeper: int, recompute: bool) -> Schedule:
    return _kept(name, p, m, v, deeper, recompute)


@lru_cache(maxsize=64)
def _kept(name: str, p: int, m: int, v: int, deeper: int, recompute: bool) -> Schedule:
    """Built once: turning a cost changes no table, and what a table needs is resolved in it."""
    if not deeper:
        return build_schedule(name, p, m, v, recompute=recompute)
    schedule = with_warmups([max(p - 1 - r + deeper, 0) for r in range(p)], m, name=name)
    return schedule.with_recompute() if recompute else schedule


@dataclass(frozen=True)
class SettingsCosts:
    """The explorer's costs: an action takes alpha + t * b / 16 on a full share of a device, b being its sequences."""

    settings: Settings
    batch: int
    unit: str = "units"
    bandwidth: float = math.inf

    @property
    def latency(self) -> float:
        """Of a message, in units."""
        return self.settings.latency

    def sequences(self, schedule: Schedule, action: Action) -> float:
        """b: the sequences of the action's micro-batch."""
        return schedule.weights[action.microbatch] * self.batch / self.settings.microbatches

    def slot_cost(self, schedule: Schedule, device: int, position: int) -> float:
        """How long one slot runs."""
        return self.cost_of(schedule, actions_of(schedule.programs[device][position]))

    def cost_of(self, schedule: Schedule, actions: tuple[Action, ...]) -> float:
        """How long a slot of these actions runs."""
        s = self.settings
        times = {"F": s.forward, "R": s.forward, "B": s.backward, "U": 0.0, **dict(zip("IW", s.halves, strict=True))}
        total = 0.0
        for action in actions:
            work = times[action.op] * self.sequences(schedule, action) / UNIT_SEQUENCES
            total += schedule.share * (work + (s.overhead if action.op != "U" else 0.0))
        return total

    def message_size(self, schedule: Schedule, producer: Action, kind: str) -> float:
        """Bytes of a message: the model's, although only latency is charged."""
        return _bytes()[1] * self.sequences(schedule, producer)

    def held_bytes(self, schedule: Schedule, action: Action) -> float:
        """Activation bytes that a stage of the 48-layer model keeps of one micro-batch."""
        return _bytes()[0] * LAYERS / schedule.stages * self.sequences(schedule, action)

    def waiting_for_weights(self, schedule: Schedule, action: Action) -> float:
        """Bytes that it keeps from I to W: what the products of W need, gradients too."""
        return WAITING * self.held_bytes(schedule, action)

    def kept_input_bytes(self, schedule: Schedule, action: Action) -> float:
        """Bytes of its input, which it keeps instead where it recomputes."""
        return _bytes()[1] * self.sequences(schedule, action)


@cache
def _bytes() -> tuple[float, float]:
    """(activation bytes of a layer, bytes of a message) for one sequence of the worked example, as measured once."""
    from pipelab.tuning.profile import CostProfile  # read from a file when it is first needed

    stage = CostProfile.shipped().cut(4)[1]  # neither the first nor the last: layers alone
    return stage.kept(1.0) * 4 / LAYERS, stage.sent(1.0)


@cache
def explored() -> tuple[str, ...]:
    """The catalogue: the plain schedules first, then those that split a backward, then those without a flush."""
    first = ("naive", "gpipe", "1f1b", "interleaved")

    def place(name: str) -> tuple[bool, bool, int, str]:
        return recipes()[name].updating is not None, _splits(name), (*first, name).index(name), name

    return tuple(sorted(recipes(), key=place))


def choices(name: str) -> list[tuple[str, str]]:
    """(value, words) of a control with choices."""
    if name == "fixed":
        return [(BATCH, "the batch, cut into m"), (MICROBATCH, f"the micro-batch, {UNIT_SEQUENCES} sequences")]
    known = [(name, recipes()[name].title) for name in explored()]
    return [("", "nothing"), *known] if name == "compare" else known


def normalised(settings: Settings, values: Mapping[str, Any]) -> tuple[Settings, str]:
    """``settings`` with ``values`` put in, each moved into its range, and a sentence if one was moved.

    Raises ConfigurationError for names or choices that do not exist.
    """
    changed: dict[str, Any] = {}
    said = []
    for given, value in values.items():
        one = control(given)
        changed[one.name], words = _fitted(one, value, getattr(settings, one.name))
        said += [words] if words else []
    return replace(settings, **changed), " ".join(said)


def _fitted(one: Control, value: Any, before: Any) -> tuple[Any, str]:
    if one.kind == "switch":
        if not isinstance(value, bool | int):
            return before, f"{one.label} must be on or off; a {type(value).__name__} was ignored."
        return bool(value), ""
    if one.kind in ("choice", "either"):
        return _chosen(one, value)
    if one.optional and (value is None or value == ""):
        return None, ""
    if one.name == "limit" and isinstance(value, str) and value.strip()[-1:] in "Bb":
        value = parse_bytes(value, one.label) / 1e6  # "60MB", as elsewhere
    number = _number(value)
    if isinstance(value, bool) or not math.isfinite(number):
        shown = one.optional if before is None else f"{before:g}"
        return (
            before,
            f"{one.label} needs a number from {one.low:g} to {one.high:g}, not {str(value)[:20]!r}; it stays {shown}.",
        )
    inside = min(max(number, one.low), one.high)
    if one.optional and inside <= 0:
        return None, f"{one.label} must be above 0; now there is no limit."
    if one.kind == "whole":
        inside = round(inside)
    if abs(inside - number) > 1e-9:
        why = "whole numbers" if one.low <= number <= one.high else "values"
        return inside, f"{one.label} takes {why} from {one.low:g} to {one.high:g}: {number:g} became {inside:g}."
    return inside, ""


def _number(value: Any) -> float:
    """``value`` as a number, NaN for what is none; whole numbers too large for a float are the largest one."""
    try:
        return float(value)
    except OverflowError:
        return sys.float_info.max if value > 0 else -sys.float_info.max
    except (TypeError, ValueError):
        return math.nan


def _chosen(one: Control, value: Any) -> tuple[str, str]:
    known = [name for name, _ in choices(one.name)]
    if value is not None and not isinstance(value, str):
        value = f"a {type(value).__name__}"
    text = (value or "").lower()
    if one.kind == "either":
        text = text.replace("-", "")  # "micro-batch"
    if text in known:
        return text, ""
    close = difflib.get_close_matches(text, [name for name in known if name], n=1, cutoff=0.3)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    raise ConfigurationError(f"{one.label} cannot be '{value}'; it can be {', '.join(filter(None, known))}{hint}")


def require_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with symbols spelled out. Raises ConfigurationError for what is no setting."""
    spelled = {control(name).name: value for name, value in values.items()}
    assert set(spelled) <= {field.name for field in fields(Settings)}
    return spelled
