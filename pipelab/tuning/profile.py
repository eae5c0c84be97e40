"""A cost profile: what each stage costs for a micro-batch of b sequences, as lines. It can be saved and sent round.

From it ``simulate`` predicts any schedule, m, v and recomputation, with micro-batches of any size, without a model and
without torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pipelab.errors import ConfigurationError, whole_number
from pipelab.quantities import DeviceMemory, ModelStates, format_time
from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.schedule import Schedule
from pipelab.simulation.links import INSTANT, Link, Links
from pipelab.simulation.simulate import simulate
from pipelab.timeline import Timeline
from pipelab.tuning.lines import Line, fit_line

__all__ = ["CostProfile", "ProfileCosts", "StageProfile"]

FORMAT = "pipelab cost profile 1"
_LINES = {"F": "forward", "B": "backward", "I": "input_gradient", "W": "weight_gradient", "R": "recompute"}
_TIMES = (*_LINES.values(), "bare_forward")
_HALVES = ("input_gradient", "weight_gradient", "waiting")


@dataclass(frozen=True)
class StageProfile:
    """One stage, by the number of sequences b in a micro-batch: seconds of each op, and bytes."""

    forward: Line
    """F that keeps what its backward needs."""
    backward: Line
    bare_forward: Line | None
    """F that keeps only its input, because it is recomputed; None, as the other two, if that was not profiled."""
    recompute: Line | None
    kept: Line
    """Bytes of activations, from F (or R) to B."""
    kept_input: Line | None
    """Bytes kept from F to R where it is recomputed."""
    sent: Line
    """Bytes of the message to the next stage; the gradient that comes back weighs the same."""
    model_states: ModelStates
    update: float
    """Seconds of the optimizer's update."""
    input_gradient: Line | None = None
    """I, where a backward is cut in two; None, as the other two, if that was not profiled."""
    weight_gradient: Line | None = None
    """W."""
    waiting: Line | None = None
    """Bytes kept from I to W."""


@dataclass(frozen=True, repr=False)
class CostProfile:
    """What a model's stages cost on one kind of device. Times in seconds, sizes in bytes, b in sequences.

    ``stages[n]`` are the n stages of the model cut into n, for every n = p * v that was profiled. ``link`` is the time
    of a message against its bytes. ``tokens``: of one sequence, where that is known. ``about`` says where it is from.
    """

    devices: int
    stages: Mapping[int, tuple[StageProfile, ...]]
    link: Line
    tokens: int | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        line, cuts = self.line(), " and ".join(map(str, sorted(self.stages)))
        return (
            f"CostProfile(p = {self.devices}, cut into {cuts} stages: t(b) = {format_time(line.alpha, 's')} + "
            f"{format_time(line.beta, 's')} * b per device, forward and backward, within {line.error:.0%})"
        )

    # ---- predictions ---------------------------------------------------------------------------------------------

    def costs(
        self,
        batch: int,
        *,
        latency: float = 0.0,
        bandwidth: float = math.inf,
        links: Links | None = None,
        link: bool = False,
    ) -> ProfileCosts:
        """Costs for ``simulate`` at a batch of ``batch`` sequences.

        Messages take no time unless ``latency`` (seconds) and ``bandwidth`` (bytes per second), or ``links``, model
        some, or ``link`` asks for the measured one, as the wall clock shows it. What is modelled comes on top of it.
        """
        modelled = Links.either(latency, bandwidth, links)
        if link:
            modelled = modelled.after(Link(self.link.alpha, 1 / self.link.beta if self.link.beta else math.inf))
        return ProfileCosts(self, whole_number("batch", "B", batch), links=modelled)

    def predict(self, schedule: Schedule, batch: int, **link: Any) -> Timeline:
        """When each slot of ``schedule`` would run, and what is held; ``link`` as for :meth:`costs`."""
        return simulate(schedule, self.costs(batch, **link), batch=batch)

    def model_states(self, schedule: Schedule) -> tuple[ModelStates, ...]:
        """Weights, gradients and optimizer state of each device."""
        stages = self.cut(schedule.stages)
        return tuple(
            sum((stages[s].model_states for s in schedule.stages_on(r)), ModelStates()) for r in range(schedule.devices)
        )

    def memory(self, timeline: Timeline) -> tuple[DeviceMemory, ...]:
        """Bytes of each device in a step that was predicted with this profile."""
        held = zip(self.model_states(timeline.schedule), timeline.peak_bytes, strict=True)
        return tuple(DeviceMemory(states, round(peak)) for states, peak in held)

    def update_seconds(self, schedule: Schedule) -> float:
        """What the slowest device's optimizer takes at the flush."""
        stages = self.cut(schedule.stages)
        return max(sum(stages[s].update for s in schedule.stages_on(r)) for r in range(schedule.devices))

    @property
    def recomputes(self) -> bool:
        """Whether recomputation was profiled."""
        return all(stage.recompute is not None for cut in self.stages.values() for stage in cut)

    @property
    def splits(self) -> bool:
        """Whether the halves of a backward, I and W, were profiled."""
        return all(stage.input_gradient is not None for cut in self.stages.values() for stage in cut)

    # ---- the line of the textbook --------------------------------------------------------------------------------

    def line(self, stages: int | None = None) -> Line:
        """t(b) = alpha + beta * b of a forward and a backward on one device: its full share, the mean of all devices.

        ``stages``: of the model cut into that many (default: as few as were profiled).
        """
        cut = self.cut(min(self.stages) if stages is None else stages)
        whole = cut[0].forward + cut[0].backward
        for stage in cut[1:]:
            whole = whole + stage.forward + stage.backward
        points = [(b, t / self.devices) for b, t in whole.points]
        return fit_line(points) if points else Line(whole.alpha / self.devices, whole.beta / self.devices)

    def best_microbatches(self, batch: int) -> float:
        """m* = sqrt((p - 1) * beta * B / alpha), where (m + p - 1) * t(B / m) is least; infinite where alpha is 0.

        It is the best m of GPipe and 1F1B on balanced stages, with messages that take no time.
        """
        line = self.line()
        if line.alpha <= 0:
            return math.inf
        return math.sqrt((self.devices - 1) * line.beta * batch / line.alpha)

    def cut(self, stages: int) -> tuple[StageProfile, ...]:
        """The model cut into ``stages``. Raises ConfigurationError if it was not profiled so."""
        if stages not in self.stages:
            known = ", ".join(map(str, sorted(self.stages)))
            raise ConfigurationError(
                f"this profile has the model cut into {known} stages (p = {self.devices}), not into {stages}; take "
                f"a profile with devices=p and chunks=v for which p * v = {stages}"
            )
        return self.stages[stages]

    # ---- saved and sent round ------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        table = {str(n): [asdict(stage) for stage in cut] for n, cut in sorted(self.stages.items())}
        told = {"format": FORMAT, "about": dict(self.about), "devices": self.devices, "tokens": self.tokens}
        Path(path).write_text(json.dumps(told | {"link": asdict(self.link), "stages": table}, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> CostProfile:
        """Read what ``save`` wrote, or where there is no such file, the shipped one of that name.

        Raises ConfigurationError if it is something else.
        """
        if not Path(path).exists() and str(path) in _shipped():
            return cls.shipped(str(path))
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} cannot be read as a cost profile: {error}") from None
        return cls._read(text, str(path))

    @classmethod
    def shipped(cls, name: str = "worked_example") -> CostProfile:
        """A frozen profile that comes with pipelab: what graded exercises use, the same on every machine."""
        known = _shipped()
        if name not in known:
            raise ConfigurationError(f"there is no shipped profile '{name}'; there is {', '.join(sorted(known))}")
        return cls._read(known[name].read_text(encoding="utf-8"), name)

    @classmethod
    def _read(cls, text: str, name: str) -> CostProfile:
        try:
            told = json.loads(text)
            if told["format"] != FORMAT:
                raise ConfigurationError(f"{name} has format {told['format']!r}, this pipelab reads {FORMAT!r}")
            stages = {int(n): tuple(map(_stage, cut)) for n, cut in told["stages"].items()}
            devices, tokens, about = told["devices"], told["tokens"], told["about"]
            if not isinstance(devices, int) or devices < 1 or not isinstance(about, dict):
                raise ValueError(f"devices {devices!r}, about {about!r}")
            if not stages or any(len(cut) != n or n % devices for n, cut in stages.items()):
                raise ValueError("stages are missing")
            if tokens is not None and (not isinstance(tokens, int) or tokens < 1):
                raise ValueError(f"tokens {tokens!r}")
            return cls(devices, stages, _line(told["link"]), tokens, about)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            if isinstance(error, ConfigurationError):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise ConfigurationError(
                f"{name} is no cost profile, or a damaged one ({reason}); make one with pipelab tune --save-profile"
            ) from None

    def scaled(self, *, alpha: float = 1.0, beta: float = 1.0) -> CostProfile:
        """The same model on another device: what is paid per action, and per sequence, multiplied."""

        def one(stage: StageProfile) -> StageProfile:
            lines = {name: getattr(stage, name) for name in _TIMES}
            made: dict[str, Any] = {
                name: Line(line.alpha * alpha, line.beta * beta) for name, line in lines.items() if line is not None
            }
            return replace(stage, **made)

        stages = {n: tuple(map(one, cut)) for n, cut in self.stages.items()}
        return replace(self, stages=stages, about={**self.about, "scaled": {"alpha": alpha, "beta": beta}})


@dataclass(frozen=True)
class ProfileCosts:
    """A profile at one batch size, as ``simulate`` asks for costs. Times in seconds."""

    profile: CostProfile
    batch: int
    links: Links = INSTANT
    unit: str = "s"

    @property
    def latency(self) -> float:
        """Of messages between devices that have no link of their own."""
        return self.links.latency

    @property
    def bandwidth(self) -> float:
        """Of messages between devices that have no link of their own."""
        return self.links.bandwidth

    def sequences(self, schedule: Schedule, microbatch: int) -> float:
        """b: how many sequences the micro-batch holds."""
        return schedule.weights[microbatch] * self.batch / sum(schedule.weights)

    def slot_cost(self, schedule: Schedule, device: int, position: int) -> float:
        """How long one slot runs."""
        return self.cost_of(schedule, actions_of(schedule.programs[device][position]))

    def cost_of(self, schedule: Schedule, actions: tuple[Action, ...]) -> float:
        """The sum of a slot's actions."""
        return sum(self.action_cost(schedule, action) for action in actions)

    def action_cost(self, schedule: Schedule, action: Action) -> float:
        """alpha + beta * b of one action."""
        stage = self.profile.cut(schedule.stages)[action.stage]
        if action.op == "U":
            return stage.update
        bare = action.op == "F" and (action.stage, action.microbatch) in schedule.recomputed
        return _known(stage, "bare_forward" if bare else _LINES[action.op])(self.sequences(schedule, action.microbatch))

    def message_size(self, schedule: Schedule, producer: Action, kind: str) -> float:
        """Bytes: of the activations that a stage hands on, or of their gradients."""
        stage = producer.stage if kind == "activation" else producer.stage - 1
        return self.profile.cut(schedule.stages)[stage].sent(self.sequences(schedule, producer.microbatch))

    def held_bytes(self, schedule: Schedule, action: Action) -> float:
        """Activation bytes that a stage keeps of one micro-batch."""
        stage = self.profile.cut(schedule.stages)[action.stage]
        return stage.kept(self.sequences(schedule, action.microbatch))

    def waiting_for_weights(self, schedule: Schedule, action: Action) -> float:
        """Bytes that it still keeps of one micro-batch from I to W."""
        stage = self.profile.cut(schedule.stages)[action.stage]
        return _known(stage, "waiting")(self.sequences(schedule, action.microbatch))

    def kept_input_bytes(self, schedule: Schedule, action: Action) -> float:
        """Bytes of its input, which it keeps instead where it recomputes."""
        stage = self.profile.cut(schedule.stages)[action.stage]
        return _known(stage, "kept_input")(self.sequences(schedule, action.microbatch))


def _shipped() -> dict[str, Traversable]:
    """The files that come with pipelab, by name."""
    folder = resources.files("pipelab.tuning") / "profiles"
    return {entry.name.removesuffix(".json"): entry for entry in folder.iterdir()}


def _known(stage: StageProfile, name: str) -> Line:
    line: Line | None = getattr(stage, name)
    if line is not None:
        return line
    if name in _HALVES:
        raise ConfigurationError(
            "this profile was taken without the halves of a backward (I and W); take a profile with split=True"
        )
    raise ConfigurationError("this profile was taken without recomputation (R); take a profile with recompute=True")


def _line(told: Mapping[str, Any]) -> Line:
    points = tuple((float(x), float(y)) for x, y in told.get("points", ()))
    alpha, beta = float(told["alpha"]), float(told["beta"])
    error = float(told.get("error", 0.0))
    if not all(
        math.isfinite(x) and 0 <= x < 1e30 for x in (alpha, beta, error, *(x for point in points for x in point))
    ):
        raise ValueError(f"a line of {alpha} + {beta} * b, within {error}")
    return Line(alpha, beta, error, points)


def _stage(told: Mapping[str, Any]) -> StageProfile:
    lines: Sequence[str] = ("forward", "backward", "kept", "sent")
    found: dict[str, Any] = {name: _line(told[name]) for name in lines}
    for name in ("bare_forward", "recompute", "kept_input"):
        found[name] = None if told[name] is None else _line(told[name])
    if any(told.get(name) is not None for name in _HALVES):  # files from before I and W were measured have none
        found |= {name: _line(told[name]) for name in _HALVES}
    states = told["model_states"] if "model_states" in told else told["resident"]  # as it was called in older files
    sizes = {name: int(size) for name, size in states.items()}
    update = float(told["update"])
    if min(sizes.values()) < 0 or not 0 <= update < 1e30:
        raise ValueError(f"{sizes}, update {update}")
    return StageProfile(**found, model_states=ModelStates(**sizes), update=update)
