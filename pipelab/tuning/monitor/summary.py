"""What a monitor says of a few steps, as plain numbers, in a few lines, in one, and as a row of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from statistics import mean, median, median_low

from pipelab.quantities import DeviceMemory, format_bytes, format_time
from pipelab.runtime.report import StepReport
from pipelab.schedules.action import actions_of
from pipelab.simulation.costs import SlotCosts
from pipelab.tuning.monitor.causes import Causes, split_bubble
from pipelab.tuning.monitor.links import Link, line_of, measure_links

__all__ = ["Bottleneck", "MonitorSummary", "Observed", "summarise"]

EVEN = 0.95
"""Above this load balance no device is called the bottleneck."""
WORDS = {
    "fill": "fill and drain",
    "imbalance": "imbalance",
    "updates": "updates",
    "messages": "messages",
    "other": "other work on the machine",
}


@dataclass(frozen=True)
class Observed:
    """One step as it was observed. ``busy``: what each device's slots cost; empty where that was not measured."""

    report: StepReport
    seconds: float
    busy: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The busiest device, its costliest stage, and the step since which it has been the busiest.

    Another device must be the busiest in two steps in a row to take over: one hiccup does not.
    """

    device: int
    stage: int
    since: int


@dataclass(frozen=True)
class MonitorSummary:
    """The last ``steps`` steps, up to number ``step``.

    Loss and model states are those of the last step, peaks the highest. Medians over the steps: ``seconds`` that
    ``step()`` took, and rates. Means: the devices' busy times (what their slots cost), for ``load_balance`` and
    ``bottleneck``. Of the step with the median duration: ``clock``'s timeline with ``utilisation``, ``bubble`` and
    ``causes``, and ``links``. Where costs were not measured, what needs them is None or empty.
    """

    step: int
    steps: int
    schedule: str
    clock: str
    seconds: float
    sequences_per_second: float
    tokens_per_second: float | None
    """None if the monitor was not told how many tokens a sequence has."""
    loss: float | None
    utilisation: tuple[float, ...]
    """Of each device: the part of the timeline in which it is busy. The mean of them is 1 - bubble."""
    load_balance: float | None
    """Mean of the devices' busy times over the largest: 1 is perfect."""
    bottleneck: Bottleneck | None
    """None where the load balance is above 0.95."""
    bubble: float | None
    """The bubble fraction of the timeline."""
    causes: Causes | None
    """The same in parts."""
    links: tuple[Link, ...]
    """Under the wall clock; else none."""
    memory: tuple[DeviceMemory, ...]
    """Bytes on each device: model states, and activations at their peak."""

    def __str__(self) -> str:
        first = self.step - self.steps + 1
        steps = f"step {self.step}" if self.steps == 1 else f"steps {first} to {self.step}"
        lines = [f"{self.schedule}, {steps}: {format_time(self.seconds, 's')} a step, {self._rates()}"]
        if self.causes is None:
            lines.append("costs were not measured (measure_costs=False), so no one knows why devices were idle")
        else:
            busy = ", ".join(f"{part:.0%}" for part in self.utilisation)
            lines.append(f"utilisation by device ({self.clock} clock): {busy}")
            lines.append(f"load balance {self.load_balance:.2f} (mean / max busy time); {self._bottleneck()}")
            lines.append(self.bubble_words())
            if self.clock == "wall":
                lines += [_told(link) for link in self.links]
            else:
                lines.append("links are measured under clock='wall' only")
        for r, held in enumerate(self.memory):
            states = format_bytes(held.model_states.total)
            peak = f"at most {format_bytes(held.activations)}" if held.activations else "not measured"
            lines.append(f"memory of device {r}: model states {states}, activations {peak}")
        return "\n".join(lines)

    def line(self) -> str:
        """The shortest form, for a progress bar."""
        parts = [self._rates()]
        if self.bubble is not None:
            parts.append(f"bubble {self.bubble:.0%}")
        if self.bottleneck is not None:
            parts.append(f"bottleneck device {self.bottleneck.device}")
        return ", ".join(parts)

    def row(self) -> dict[str, float | None]:
        """All numbers by name, in an order that stays the same; None where there is no number."""
        found: dict[str, float | None] = {
            "step": self.step,
            "seconds": self.seconds,
            "sequences_per_second": self.sequences_per_second,
            "tokens_per_second": self.tokens_per_second,
            "loss": self.loss,
            "load_balance": self.load_balance,
            **{f"bottleneck_{f.name}": getattr(self.bottleneck, f.name, None) for f in fields(Bottleneck)},
            "bubble": self.bubble,
            **{name: getattr(self.causes, name, None) for name in WORDS},
        }
        for r, held in enumerate(self.memory):
            found[f"utilisation_{r}"] = self.utilisation[r] if self.utilisation else None
            found[f"activation_bytes_{r}"] = held.activations
            found[f"model_state_bytes_{r}"] = held.model_states.total
        for link in self.links:
            found[f"link_seconds_{link.source}_{link.destination}"] = link.seconds
            found[f"link_bandwidth_{link.source}_{link.destination}"] = link.bandwidth
        return found

    def _rates(self) -> str:
        if self.tokens_per_second is not None:
            return f"{self.tokens_per_second:,.0f} tokens/s"
        return f"{self.sequences_per_second:,.1f} sequences/s"

    def _bottleneck(self) -> str:
        if self.bottleneck is None:
            return "no device is a bottleneck"
        b = self.bottleneck
        return f"the bottleneck is device {b.device}, stage {b.stage}, since step {b.since}"

    def bubble_words(self) -> str:
        """ "bubble 27.3%: fill and drain 25.0%, messages 2.3%"."""
        if self.causes is None:
            return "bubble not measured"
        parts = zip(WORDS.values(), astuple(self.causes), strict=True)
        shown = [f"{words} {part:.1%}" for words, part in parts if abs(part) >= 0.0005]
        return f"bubble {self.causes.total:.1%}: {', '.join(shown) or 'none'}"


def summarise(steps: Sequence[Observed], leader: tuple[int, int], tokens: int | None) -> MonitorSummary:
    """The figures of ``steps``. ``leader``: the busiest device and since when; ``tokens``: of a sequence."""
    last, duration = steps[-1].report, median_low(one.seconds for one in steps)
    typical = next(one.report for one in steps if one.seconds == duration)
    rate = median(one.report.batch / one.seconds for one in steps)
    peaks = [max(one.report.peak_activation_bytes[r] for one in steps) for r in range(last.schedule.devices)]
    made = MonitorSummary(
        step=last.step,
        steps=len(steps),
        schedule=last.schedule.name,
        clock=last.clock,
        seconds=duration,
        sequences_per_second=rate,
        tokens_per_second=None if tokens is None else rate * tokens,
        loss=last.loss,
        utilisation=(),
        load_balance=None,
        bottleneck=None,
        bubble=None,
        causes=None,
        links=measure_links(typical),
        memory=tuple(replace(held, activations=peak) for held, peak in zip(last.memory, peaks, strict=True)),
    )
    if not all(one.busy for one in steps):
        return made
    busy = [mean(times) for times in zip(*(one.busy for one in steps), strict=True)]
    balance, timeline = mean(busy) / max(busy) if max(busy) else 1.0, typical.timeline
    return replace(
        made,
        utilisation=tuple(time / (timeline.makespan or 1.0) for time in timeline.busy),
        load_balance=balance,
        bottleneck=None if balance > EVEN else Bottleneck(leader[0], _stage(last, leader[0]), leader[1]),
        bubble=timeline.bubble_fraction,
        causes=_causes(typical),
    )


def _causes(report: StepReport) -> Causes:
    """Under the wall clock messages take what they were seen to take, where a receiver waited for one."""
    costs, line = report.costs, line_of(report) if report.clock == "wall" else None
    if line is not None and isinstance(costs, SlotCosts):
        costs = replace(costs, latency=line.alpha, bandwidth=1 / line.beta if line.beta else float("inf"), links=None)
    return split_bubble(report.timeline, costs)


def _stage(report: StepReport, device: int) -> int:
    """The stage of a device that costs most; what is fused counts for each of its actions alike."""
    cost: Counter[int] = Counter()
    for slot, one in zip(report.schedule.programs[device], report.logs[device].readings.cost, strict=True):
        for action in actions_of(slot):
            cost[action.stage] += one / len(actions_of(slot))  # type: ignore[assignment]
    return cost.most_common(1)[0][0]


def _told(link: Link) -> str:
    name = f"link {link.source} to {link.destination}: {link.messages} messages"
    if link.seconds is None:
        return f"{name}, none was waited for, so none shows what the link takes"
    told = f"{name}, {format_bytes(link.bytes)} in {format_time(link.seconds, 's')}"
    if link.line is not None:
        told += f" (t = {format_time(link.line.alpha, 's')} + {link.line.beta:.3g} s/B)"
    return f"{told}, measured on {link.waited_for} that were waited for"
