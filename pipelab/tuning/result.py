"""The result of tuning: the candidates' forecasts and measurements, the choice, and why its neighbours lose."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from pipelab.quantities import DeviceMemory, format_bytes, format_time, render_table
from pipelab.simulation.links import INSTANT, Link, Links
from pipelab.tuning.advice import memory_advice, microbatch_advice
from pipelab.tuning.candidates import Candidate, Discarded, Forecast
from pipelab.tuning.profile import CostProfile

__all__ = ["Measurement", "Tuning"]

CLOSE = 0.03
"""Candidates that are this near and cannot be told apart count as equally fast."""


@dataclass(frozen=True)
class Measurement:
    """A candidate that was really run, in rounds that took turns with the others'."""

    seconds: tuple[float, ...]
    """The makespan in each round: composed from the medians of its steps under the device clock."""
    memory: tuple[DeviceMemory, ...] = ()
    failed: str | None = None
    """Why it did not run to the end."""
    allocated: tuple[int | None, ...] = ()
    """Bytes by which the CUDA allocator's peak exceeded what it held before, for each device; None if unknown."""

    @property
    def makespan(self) -> float:
        """The median over rounds."""
        return median(self.seconds) if self.seconds else math.nan

    @property
    def spread(self) -> float:
        """Half of the way from the fastest round to the slowest, in seconds."""
        return (max(self.seconds) - min(self.seconds)) / 2 if self.seconds else math.nan


@dataclass(frozen=True, repr=False)
class Tuning:
    """What came out. ``forecasts`` are of all candidates that can be built, the fastest first."""

    profile: CostProfile
    batch: int
    limits: tuple[float, ...]
    clock: str
    forecasts: tuple[Forecast, ...]
    discarded: tuple[Discarded, ...]
    measured: dict[Candidate, Measurement] = field(default_factory=dict)
    links: Links = INSTANT

    # ---- the choice ----------------------------------------------------------------------------------------------

    @property
    def fitting(self) -> tuple[Forecast, ...]:
        """Those within the limits, the fastest first."""
        return tuple(f for f in self.forecasts if f.excess is None)

    @property
    def ranked(self) -> tuple[Candidate, ...]:
        """Those that were measured (or, if none was, predicted) to run, the fastest first."""
        ran = [c for c, found in self.measured.items() if found.failed is None]
        if ran:
            return tuple(sorted(ran, key=lambda c: self.measured[c].makespan + self[c].update))
        return tuple(f.candidate for f in self.fitting if f.candidate not in self.measured)

    @property
    def tied(self) -> tuple[Candidate, ...]:
        """The fastest, and those within 3 % of it that measurement cannot tell from it.

        Slower for certain is what was so in every round, by more than the two scatter and than 1 % (5 % after a single
        round, which knows of no scatter).
        """
        first = self.ranked[0]
        near = [c for c in self._unsure(first) if self.seconds(c) <= (1 + CLOSE) * self.seconds(first)]
        return (first, *near)

    def _unsure(self, first: Candidate) -> list[Candidate]:
        """Measured ones that are not slower than the first for certain."""
        if first not in self.measured:
            return []
        return [c for c in self.ranked if c != first and not self._slower(c, first)]

    def _slower(self, other: Candidate, first: Candidate) -> bool:
        a, b = self.measured[first], self.measured[other]
        shift = self[other].update - self[first].update
        always = all(y + shift > x for x, y in zip(a.seconds, b.seconds, strict=True))
        floor = (0.01 if len(a.seconds) > 1 else 0.05) * self.seconds(first)
        return always and b.makespan + shift - a.makespan > max(math.hypot(a.spread, b.spread), floor)

    @property
    def best(self) -> Candidate:
        """The sweet spot: the fastest; of those as fast, as far as can be told, the one that needs least memory."""
        return min(self.tied, key=lambda c: (self[c].peak_bytes, self.ranked.index(c)))

    def __getitem__(self, candidate: Candidate) -> Forecast:
        """The forecast of a candidate."""
        for found in self.forecasts:
            if found.candidate == candidate:
                return found
        raise KeyError(str(candidate))

    @property
    def start(self) -> int:
        """Where practitioners start: m = 4p, or the batch if that is smaller."""
        return min(4 * self.profile.devices, self.batch)

    @property
    def best_microbatches(self) -> float:
        """m* = sqrt((p - 1) * beta * B / alpha)."""
        return self.profile.best_microbatches(self.batch)

    def seconds(self, candidate: Candidate) -> float:
        """A step, the update included: measured where it was, else predicted."""
        found = self.measured.get(candidate)
        if found is None or found.failed is not None:
            return self[candidate].step
        return found.makespan + self[candidate].update

    def off(self, candidate: Candidate) -> float:
        """How far the predicted makespan was off: -0.05 where it was 5 % too short."""
        return self[candidate].makespan / self.measured[candidate].makespan - 1

    @property
    def prediction_error(self) -> float | None:
        """The largest of them; None if nothing was measured."""
        ran = [c for c, found in self.measured.items() if found.failed is None]
        return max((abs(self.off(c)) for c in ran), default=None)

    # ---- why -----------------------------------------------------------------------------------------------------

    def neighbours(self) -> tuple[tuple[Candidate, str], ...]:
        """What differs from the best in one thing (m, schedule, v or recomputation), and why it loses."""
        best = self.best
        return tuple((f.candidate, self._why(f)) for f in self._near(best))

    def _near(self, best: Candidate) -> list[Forecast]:
        same = [f for f in self.forecasts if replace(f.candidate, microbatches=0) == replace(best, microbatches=0)]
        below = [f for f in same if f.candidate.microbatches < best.microbatches]
        above = [f for f in same if f.candidate.microbatches > best.microbatches]
        near = [max(below, key=_m)] if below else []
        near += [min(above, key=_m)] if above else []
        family = replace(best, microbatches=0)
        others: dict[Candidate, Forecast] = {}
        for found in self.forecasts:  # the fastest first
            c = found.candidate
            kind = replace(c, microbatches=0)
            same_schedule = kind.schedule == family.schedule
            differs = (
                not same_schedule,
                kind.recompute != family.recompute,
                same_schedule and kind.chunks != family.chunks,
            )
            if sum(differs) == 1:
                others.setdefault(kind, found)
        return near + list(others.values())

    def _why(self, other: Forecast) -> str:
        best = self[self.best]
        if other.candidate in self.tied:
            saved = other.peak_bytes - best.peak_bytes
            more = f", and needs {format_bytes(saved)} more" if saved > 0 else ""
            return f"is as fast within the scatter of this measurement{more}"
        if other.excess is not None:
            gain = best.step / other.step - 1
            faster = f" (it would be {gain:.0%} faster)" if gain >= 0.005 else ""
            return f"does not fit: {other.excess}{faster}"
        failed = self.measured.get(other.candidate)
        if failed is not None and failed.failed is not None:
            return f"did not run: {failed.failed}"
        both = other.candidate in self.measured and best.candidate in self.measured
        slower = self.seconds(other.candidate) / self.seconds(best.candidate) if both else other.step / best.step
        told, reasons = "measured" if both else "predicted", _reasons(other, best)
        unmeasured = ", and was not measured" if self.measured and not both else ""
        if slower - 1 < 0.005:
            lead = "is about as fast" if slower > 0.995 else f"is {1 - slower:.0%} faster"
            return f"{lead} ({told}{unmeasured})"
        return f"is {slower - 1:.0%} slower ({told}): {'by the profile, ' if both and reasons else ''}{reasons}".rstrip(
            ": "
        )

    def advice(self) -> tuple[str, ...]:
        """What to know about the choice."""
        best, first = self[self.best], self.ranked[0]
        family = {f.candidate.microbatches for f in self.forecasts if f.candidate.family == best.candidate.family}
        advice = microbatch_advice(best.candidate, self.profile.devices, self.batch, self.profile)
        # Where other m were looked at, the choice itself says which is best.
        found = [s for s in advice if len(family) == 1 or s.startswith(f"{self.batch} sequences")]
        found += memory_advice(best.memory, self.limits)
        line = self.profile.line()
        if line.error > 0.15:
            found.append(
                f"the line is off by up to {line.error:.0%}: the machine was busy during the profile, or time is not "
                "alpha + beta * b here. Trust the measurements, not the predictions"
            )
        if not any(held.model_states.optimizer for held in best.memory):
            found.append("no optimizer state is counted: no optimizer was given, or it has no state")
        if len(self.tied) > 1:
            names = "; ".join(map(str, self.tied))
            found.append(f"the measurement cannot rank these: {names}. The one that needs least memory was chosen")
        open_ = [c for c in self._unsure(first) if c not in self.tied]
        if open_:
            names = "; ".join(map(str, open_))
            found.append(f"too noisy to rule out: {names}. The median over rounds decided; more rounds would show more")
        noisy = {c: m.spread / m.makespan for c, m in self.measured.items() if m.failed is None}
        if noisy and max(noisy.values()) > 0.1:
            worst = max(noisy, key=lambda c: noisy[c])
            found.append(f"this machine is also busy with other work: rounds of {worst} scatter by ±{noisy[worst]:.0%}")
        return tuple(found)

    # ---- shown ---------------------------------------------------------------------------------------------------

    def table(self, rows: int = 12) -> str:
        """The fastest ``rows`` candidates that fit, and all that were measured."""
        shown = [f for k, f in enumerate(self.fitting) if k < rows or f.candidate in self.measured]
        shown += [f for f in self.forecasts if f.excess is not None and f.candidate in self.measured]
        header = ["candidate", "step", "sequences/s", "tokens/s", "bubble", "peak memory"]
        header += ["measured", "off"] if self.measured else []
        return render_table(header, [self._row(f) for f in shown])

    def _row(self, f: Forecast) -> list[str]:
        tokens = "" if f.tokens_per_second is None else f"{f.tokens_per_second:,.0f}"
        row = [str(f.candidate), format_time(f.step, "s"), f"{f.sequences_per_second:.1f}", tokens]
        row += [f"{f.bubble_fraction:.1%}", format_bytes(f.peak_bytes)]
        if not self.measured:
            return row
        found = self.measured.get(f.candidate)
        if found is None:
            return [*row, "", ""]
        if found.failed is not None:
            return [*row, "failed", ""]
        seconds = found.makespan + f.update
        return [*row, f"{format_time(seconds, 's')} ±{found.spread / seconds:.0%}", f"{self.off(f.candidate):+.1%}"]

    def report(self) -> str:
        """All of it as text."""
        line, p = self.profile.line(), self.profile.devices
        stars = "m* has no bound" if math.isinf(self.best_microbatches) else f"m* = {self.best_microbatches:.1f}"
        lines = [
            f"profile: a device's forward and backward take t(b) = {format_time(line.alpha, 's')} + "
            f"{format_time(line.beta, 's')} * b for b sequences (within {line.error:.0%})",
            *self._cuts(),
            f"common start: m = 4p = {4 * p}; {stars} = sqrt((p - 1) * beta * B / alpha), B = {self.batch}, p = {p}",
            f"step: makespan by the {self.clock} clock plus the optimizer's update; rates are per step{self._link()}",
            *(["off: predicted makespan against measured; + if the prediction was too long"] if self.measured else []),
            "",
            self.table(),
            "",
            *self._left_out(),
            f"sweet spot: {self.best}, {self.batch / self.seconds(self.best):.1f} sequences/s, "
            f"{format_bytes(self[self.best].peak_bytes)} on device {self[self.best].fullest}",
        ]
        near = self.neighbours()
        if near:
            lines += ["why not"] + [f"  {candidate}: {why}" for candidate, why in near]
        run = self.measured.get(self.best)
        allocated = [(size, r) for r, size in enumerate(run.allocated) if size is not None] if run is not None else []
        if run is not None and allocated:
            size, r = max(allocated)
            lines.append(
                f"on device {r} CUDA's allocator peaked {format_bytes(size)} above what it held before; "
                f"{format_bytes(run.memory[r].activations)} of that are activations"
            )
        error = self.prediction_error
        if error is not None:
            lines.append(f"prediction: off by at most {error:.1%} among the measured candidates")
        advice = self.advice()
        if advice:
            lines += ["note"] + [f"  {sentence}" for sentence in advice]
        return "\n".join(lines)

    def _cuts(self) -> list[str]:
        cuts = self.profile.about.get("cuts", {})
        return [f"cuts: {n} stages, those after the first begin with layers {at}" for n, at in cuts.items()]

    def _link(self) -> str:
        if not self.links.take_time:
            return ""
        each = "; ".join(f"{count} with {link}" for link, count in Counter(self._pairs.values()).items())
        return f"; links are modelled: {each}" if each else f"; a link is modelled: {self.links.usual}"

    @property
    def _pairs(self) -> Mapping[tuple[int, int], Link]:
        return self.links.placed(range(self.profile.devices)).pairs

    def _left_out(self) -> list[str]:
        over = [f for f in self.forecasts if f.excess is not None]
        lines = []
        if over:
            least = min(over, key=lambda f: f.peak_bytes)
            lines.append(f"too large: {len(over)} candidates; the smallest, {least.candidate}, {least.excess}")
        reasons = dict.fromkeys(entry.reason for entry in self.discarded)
        lines += [f"left out: {reason}" for reason in list(reasons)[:3]]
        lines += [f"left out: {len(reasons) - 3} more reasons (in the JSON)"] if len(reasons) > 3 else []
        return [*lines, ""] if lines else []

    def __str__(self) -> str:
        return self.report()

    def __repr__(self) -> str:
        told = f"{len(self.forecasts)} candidates, {len(self.measured)} measured, batch {self.batch}"
        return f"Tuning({told}: {self.best})"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        line = self.profile.line()
        star = self.best_microbatches
        return {
            "devices": self.profile.devices,
            "batch": self.batch,
            "memory_limit": [None if math.isinf(limit) else limit for limit in self.limits],
            "clock": self.clock,
            "link": self.links.usual.to_json(),
            "links": [{"from": a, "to": b} | link.to_json() for (a, b), link in self._pairs.items()],
            "tokens": self.profile.tokens,
            "profile": {"alpha": line.alpha, "beta": line.beta, "error": line.error, "about": dict(self.profile.about)},
            "start": self.start,
            "m_star": None if math.isinf(star) else star,
            "best": self._told(self[self.best]) | {"step_seconds": self.seconds(self.best)},
            "tied": [_named(c) for c in self.tied],
            "neighbours": [_named(c) | {"why": why} for c, why in self.neighbours()],
            "advice": list(self.advice()),
            "prediction_error": self.prediction_error,
            "candidates": [self._told(f) for f in self.forecasts],
            "discarded": [_named(entry.candidate) | {"reason": entry.reason} for entry in self.discarded],
        }

    def _told(self, f: Forecast) -> dict[str, Any]:
        told = _named(f.candidate) | {
            "predicted": {
                "step_seconds": f.step,
                "makespan": f.makespan,
                "sequences_per_second": f.sequences_per_second,
                "tokens_per_second": f.tokens_per_second,
                "bubble_fraction": f.bubble_fraction,
                "peak_bytes": [held.total for held in f.memory],
                "activation_bytes": [held.activations for held in f.memory],
                "weight_bytes": [held.model_states.weights for held in f.memory],
                "gradient_bytes": [held.model_states.gradients for held in f.memory],
                "optimizer_bytes": [held.model_states.optimizer for held in f.memory],
                "update_seconds": f.update,
            },
            "fits": f.excess is None,
            "reason": f.excess,
        }
        found = self.measured.get(f.candidate)
        if found is not None:
            told["measured"] = {
                "step_seconds": None if found.failed else self.seconds(f.candidate),
                "sequences_per_second": None if found.failed else self.batch / self.seconds(f.candidate),
                "makespan": None if found.failed else found.makespan,
                "rounds": list(found.seconds),
                "peak_bytes": [held.total for held in found.memory],
                "allocated_bytes": list(found.allocated),
                "failed": found.failed,
                "off": None if found.failed else self.off(f.candidate),
            }
        return told


def _m(found: Forecast) -> int:
    return found.candidate.microbatches


def _named(candidate: Candidate) -> dict[str, Any]:
    found = {} if candidate.table is None else {"table": candidate.table.to_csv()}
    return found | {
        "schedule": candidate.schedule,
        "microbatches": candidate.microbatches,
        "chunks": candidate.chunks,
        "recompute": candidate.recompute,
    }


def _reasons(other: Forecast, best: Forecast) -> str:
    """Where a slower candidate loses time, and what it gains elsewhere."""
    a, b = other.parts, best.parts
    bubbles = f"bubble {other.bubble_fraction:.0%} instead of {best.bubble_fraction:.0%}"
    again = other.candidate.recompute - best.candidate.recompute
    moved = [
        (a.idle - b.idle, f"devices idle {{}} longer ({bubbles})", "idle {} less"),
        (a.overhead - b.overhead, "more and smaller actions have {} more fixed costs", "fixed costs are {} less"),
        (max(again * (a.recompute - b.recompute), 0.0) * again, "recomputing takes {}", "it saves {} of recomputing"),
        (a.work - b.work, "{} more work", "{} less work"),
        (other.update - best.update, "the update takes {} longer", "the update is {} shorter"),
    ]
    floor = 0.01 * best.step
    worse = [text.format(format_time(d, "s")) for d, text, _ in sorted(moved, reverse=True) if d > floor]
    better = [text.format(format_time(-d, "s")) for d, _, text in sorted(moved) if d < -floor]
    return " and ".join(worse) + (f"; {', '.join(better)}" if better and worse else "")
