"""What monitors saw, for the exercise that reads them: recorded runs, and runs that are made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

__all__ = ["KINDS", "RECORDED", "Run", "made_up", "recorded_run"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What a monitor saw, and what the one who made the run knows: ``truth`` is (device, since, why)."""

    rows: Sequence[Row]
    truth: tuple[int | None, int | None, str]


def _rows(first: int, layers: Sequence[Sequence[int]], busy: Sequence[Sequence[float]], m: int = 8) -> list[Row]:
    """By step and device; a step lasts as long as 1F1B needs where all stages are as slow as the slowest."""
    rows = []
    for k, times in enumerate(busy):
        lasts = max(times) * (m + len(times) - 1) / m
        for r, time in enumerate(times):
            row = {"step": first + k, "device": r, "layers": layers[k][r]}
            rows.append(row | {"busy": round(time, 4), "idle": round(lasts - time, 4)})
    return rows


def _recorded(text: str, layers: Sequence[int], steps: int) -> list[Row]:
    rows = []
    for line in text.strip().splitlines()[:steps]:
        step, lasts, *busy = line.replace("|", " ").split()
        for r, time in enumerate(busy):
            seconds, idle = float(time) / 1000, (float(lasts) - float(time)) / 1000
            row = {"step": int(step), "device": r, "layers": layers[r]}
            rows.append(row | {"busy": round(seconds, 4), "idle": round(idle, 4)})
    return rows


# TransformerLM(layers=48), 1F1B, p = 4, m = 8, a batch of 64, with a Monitor and window=1, on two cores that had other
# work at the same time. Behind step 13: pipeline.speeds = [1, 1, 0.7, 1]. Step | makespan | busy of each device, in ms.
SLOWED = """
 0 |  994.2 | 630.7 566.9 610.8 640.3
 1 |  762.6 | 557.8 473.8 451.6 485.7
 2 |  614.8 | 408.5 396.6 395.6 421.1
 3 |  558.4 | 349.4 361.1 354.9 430.6
 4 |  570.8 | 417.2 399.7 377.1 416.5
 5 |  600.7 | 415.3 399.1 417.2 393.7
 6 |  621.9 | 465.8 472.2 434.1 452.9
 7 |  691.5 | 478.8 478.6 500.8 458.8
 8 |  771.6 | 571.8 526.2 533.2 528.7
 9 |  860.5 | 625.7 601.3 622.6 560.3
10 |  854.1 | 606.9 595.6 608.5 599.0
11 |  816.3 | 571.8 583.9 567.0 557.9
12 |  703.2 | 438.8 495.6 472.0 501.2
13 |  749.1 | 537.1 508.4 506.4 504.4
14 | 1012.4 | 569.1 600.1 826.1 600.4
15 |  969.8 | 582.8 537.0 765.9 572.4
16 |  806.3 | 537.1 478.6 640.0 460.4
17 |  810.5 | 467.5 439.4 641.5 475.7
18 |  639.8 | 373.3 373.2 530.1 385.9
19 |  629.0 | 383.9 384.8 491.8 348.1
20 |  729.9 | 410.2 408.6 588.2 433.4
21 |  678.4 | 395.7 369.2 553.1 404.2
22 |  694.6 | 406.3 399.4 546.8 379.7
23 |  868.5 | 469.2 448.4 694.6 452.7
24 |  669.8 | 424.9 400.8 533.7 391.6
25 |  657.5 | 355.1 357.8 530.0 361.3
26 |  724.6 | 431.9 418.1 577.5 422.9
27 |  808.2 | 474.9 458.5 661.3 460.0
28 |  887.8 | 467.0 528.9 730.0 541.6
29 |  847.1 | 513.9 475.8 642.0 506.1
"""

# The same, cut at 11, 24 and 39: device 2 has 15 layers.
UNEVEN = """
 0 |  887.2 | 469.7 609.8 729.6 430.0
 1 |  828.1 | 454.6 530.2 688.9 387.3
 2 |  737.9 | 449.4 468.0 565.0 339.7
 3 |  736.5 | 417.4 479.7 610.2 323.4
 4 |  782.4 | 440.5 531.9 622.6 376.9
 5 |  704.1 | 455.1 483.0 555.1 360.1
 6 |  702.6 | 389.3 468.4 594.4 328.0
 7 |  588.8 | 328.6 417.5 485.9 318.9
 8 |  693.3 | 448.5 529.2 570.3 336.3
 9 |  750.9 | 469.3 512.6 616.7 372.7
10 |  658.8 | 378.1 441.9 519.0 355.3
11 |  643.3 | 390.6 442.0 504.4 323.4
12 |  524.9 | 348.4 401.2 417.6 252.6
13 |  603.2 | 375.2 468.7 494.3 330.0
"""

RECORDED = {
    "recorded, an even cut": Run(_recorded(SLOWED, (12, 12, 12, 12), 14), (None, None, "none")),
    "recorded, an uneven cut": Run(_recorded(UNEVEN, (11, 13, 15, 9), 14), (2, 0, "too many layers")),
    "recorded, with a slowed device": Run(_recorded(SLOWED, (12, 12, 12, 12), 30), (2, 14, "slow device")),
}


def recorded_run() -> list[Row]:
    """What a Monitor saw of 30 steps of the 48-layer model, p = 4, of which one device became slower on the way.

    A dict for each step and device: ``step``, ``device``, ``layers``, and ``busy`` and ``idle`` in seconds.
    """
    return [dict(row) for row in RECORDED["recorded, with a slowed device"].rows]


KINDS = ("even", "recovered", "slow", "slow again", "another slow", "layers", "moved")
NOISE = 0.015  # a device's seconds, up and down; the whole machine adds some of its own


def made_up(kind: str, random: Random, *, disturbed: bool = True) -> Run:
    """A run of one kind. The last device has a head, which costs about as much as a few layers, and fewer layers.

    Each stretch between two changes has ten steps or more. A slow device is 30 % slower or more, and one with too many
    layers has about as much more. A disturbed step is five steps or more from changes and from other disturbed steps;
    the last one is always disturbed.
    """
    p, share, first = random.randint(3, 6), random.randint(8, 12), random.choice((1, 1, 100, 250))
    head = random.randint(2, 4)
    layers = [share] * (p - 1) + [share - head]
    victim, other = random.sample(range(p), 2)
    slower = random.uniform(1.3, 1.5)
    changes = [0, *(random.randint(12, 15) * (k + 1) for k in range(2))]
    total = changes[-1] + random.randint(12, 15)
    kinds: dict[str, list[dict[int, float]]] = {
        "even": [{}, {}, {}],
        "recovered": [{}, {victim: slower + 0.8}, {}],
        "slow": [{}, {}, {victim: slower}],
        "slow again": [{victim: slower}, {}, {victim: slower}],
        "another slow": [{other: slower + 1.2}, {other: slower + 0.8}, {victim: slower}],
    }
    slow = kinds.get(kind, [{}, {}, {}])
    held = [layers, layers, layers]
    if kind in ("layers", "moved"):
        more = list(layers)
        victim = victim if kind == "layers" else victim % (p - 1)
        gives = next(r for r in range(p - 1) if r != victim)
        n = round(0.3 * share) + random.randint(0, 1)
        more[victim], more[gives] = more[victim] + n, more[gives] - n
        held = [more] * 3 if kind == "layers" else [layers, layers, more]
    busy, each, drift = [], random.uniform(0.004, 0.04), 1.0
    for k in range(total):
        stretch = sum(k >= change for change in changes[1:])
        drift = min(max(drift * random.uniform(0.98, 1.02), 0.8), 1.25)
        work = [held[stretch][r] + (head if r == p - 1 else 0) for r in range(p)]
        whole = drift * ({"moved": 1.35}.get(kind, 0.7) if stretch == 2 else 1.0)
        made = [each * w * whole * slow[stretch].get(r, 1.0) for r, w in enumerate(work)]
        busy.append([time * random.uniform(1 - NOISE, 1 + NOISE) for time in made])
    if disturbed:
        ends = [*changes[1:], total]
        for k in [(a + b) // 2 for a, b in pairwise([0, *ends])] + [total - 1]:
            struck = random.choice([r for r in range(p) if r not in (victim, other)])
            struck = victim if kind == "slow" and k < changes[1] else struck  # for once, long before it is slow
            busy[k][struck] *= random.uniform(3, 4)
    rows = _rows(first, [held[sum(k >= change for change in changes[1:])] for k in range(total)], busy)
    since = first if kind == "layers" else first + changes[-1]
    why = {"even": "none", "recovered": "none", "layers": "too many layers", "moved": "too many layers"}.get(kind)
    truth = (victim, since, why or "slow device") if why != "none" else (None, None, "none")
    return Run(rows, truth)
