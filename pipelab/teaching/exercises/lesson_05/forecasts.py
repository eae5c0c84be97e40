"""Frozen sweeps of the worked example for the exercises of lesson 5, simulated once from the shipped cost profile.

They are text so that no schedule has to be built where the catalogue is closed; a test simulates them again.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pipelab.schedules import build_schedule
from pipelab.tuning.profile import CostProfile

__all__ = ["BATCH", "COUNTS", "FAMILIES", "LATENCIES", "forecasts", "simulated"]

BATCH = 64
FAMILIES = ("gpipe", "gpipe + R", "1f1b", "1f1b + R")
COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 13, 14, 16, 20, 24, 32, 64)
LATENCIES = (0, 10)


def simulated(
    family: str, m: int, batch: int = BATCH, latency: float = 0, alpha: float = 1.0, beta: float = 1.0
) -> dict[str, Any]:
    """A row, by simulation: ``step`` in ms, ``idle`` (bubble fraction) in per cent, ``peak`` of a device in MB."""
    profile = CostProfile.shipped().scaled(alpha=alpha, beta=beta)
    name, again = family.removesuffix(" + R"), family.endswith("+ R")
    table = build_schedule(name, profile.devices, m, recompute=again)
    timeline = profile.predict(table, batch, latency=latency / 1000)
    peak = max(held.total for held in profile.memory(timeline)) / 1e6
    step, idle = round(1000 * timeline.makespan, 1), round(100 * timeline.bubble_fraction, 1)
    return {"step": step, "idle": idle, "peak": round(peak, 1)}


@cache
def _rows() -> tuple[dict[str, Any], ...]:
    rows = []
    for line in TABLE.strip().splitlines():
        family, m, peak, *times = (entry.strip() for entry in line.split("|"))
        for k, latency in enumerate(LATENCIES):
            step, idle = times[2 * k : 2 * k + 2]
            row = {"schedule": family, "m": int(m), "latency": latency}
            rows.append(row | {"step": float(step), "idle": float(idle), "peak": float(peak)})
    return tuple(rows)


def forecasts() -> list[dict[str, Any]]:
    """Predictions from the frozen profile of the worked example: p = 4, a batch of 64.

    Each row is a dict. ``schedule`` is "gpipe" or "1f1b", with " + R" where it recomputes. ``latency`` is the time of a
    message in ms, and ``step`` that of the step. ``idle`` is the bubble fraction in per cent, with the waiting for
    messages. ``peak`` is in MB, on the fullest device.
    """
    return [dict(row) for row in _rows()]


# schedule | m | peak, MB | step, ms | idle, % | the same two where a message takes 10 ms
TABLE = """
gpipe     |  1 | 114.5 | 419.2 | 75.0 | 479.2 | 78.1
gpipe     |  2 | 114.5 | 273.9 | 60.1 | 333.9 | 67.3
gpipe     |  3 | 114.5 | 231.4 | 50.9 | 291.4 | 61.0
gpipe     |  4 | 114.5 | 208.0 | 43.2 | 268.0 | 55.9
gpipe     |  5 | 114.6 | 198.8 | 38.3 | 258.8 | 52.6
gpipe     |  6 | 114.6 | 194.2 | 34.6 | 254.2 | 50.0
gpipe     |  8 | 114.6 | 189.9 | 28.4 | 249.9 | 45.6
gpipe     | 10 | 114.6 | 194.9 | 25.7 | 254.9 | 43.2
gpipe     | 12 | 114.7 | 200.0 | 23.1 | 260.0 | 40.9
gpipe     | 13 | 114.7 | 200.2 | 21.0 | 260.2 | 39.2
gpipe     | 14 | 114.7 | 205.0 | 20.7 | 265.0 | 38.6
gpipe     | 16 | 114.7 | 210.1 | 18.4 | 270.1 | 36.5
gpipe     | 20 | 114.8 | 229.6 | 17.6 | 289.6 | 34.6
gpipe     | 24 | 114.9 | 244.4 | 15.3 | 304.4 | 32.0
gpipe     | 32 | 115.0 | 278.7 | 12.9 | 338.7 | 28.4
gpipe     | 64 | 115.5 | 430.1 | 10.5 | 490.1 | 21.5
gpipe + R |  1 | 114.5 | 440.3 | 68.9 | 500.3 | 72.6
gpipe + R |  2 |  62.5 | 300.3 | 52.6 | 360.3 | 60.5
gpipe + R |  3 |  46.2 | 259.2 | 43.0 | 319.2 | 53.7
gpipe + R |  4 |  36.4 | 238.2 | 35.7 | 298.2 | 48.7
gpipe + R |  5 |  31.5 | 229.7 | 31.0 | 289.7 | 45.3
gpipe + R |  6 |  28.3 | 226.0 | 27.5 | 286.0 | 42.7
gpipe + R |  8 |  23.4 | 223.5 | 21.9 | 283.5 | 38.4
gpipe + R | 10 |  21.8 | 230.3 | 19.6 | 290.3 | 36.2
gpipe + R | 12 |  20.2 | 237.1 | 17.4 | 297.1 | 34.1
gpipe + R | 13 |  18.5 | 238.2 | 15.5 | 298.2 | 32.5
gpipe + R | 14 |  18.5 | 243.9 | 15.3 | 303.9 | 32.0
gpipe + R | 16 |  16.9 | 250.8 | 13.3 | 310.8 | 30.0
gpipe + R | 20 |  16.9 | 273.5 | 12.7 | 333.5 | 28.4
gpipe + R | 24 |  15.3 | 291.7 | 10.8 | 351.7 | 26.0
gpipe + R | 32 |  13.7 | 332.7 |  8.9 | 392.7 | 22.8
gpipe + R | 64 |  12.0 | 511.0 |  7.1 | 571.0 | 16.9
1f1b      |  1 | 114.5 | 419.2 | 75.0 | 479.2 | 78.1
1f1b      |  2 | 111.6 | 273.9 | 60.1 | 333.9 | 67.3
1f1b      |  3 | 111.5 | 228.8 | 50.3 | 308.8 | 63.2
1f1b      |  4 | 111.5 | 207.8 | 43.1 | 306.7 | 61.5
1f1b      |  5 |  92.4 | 195.1 | 37.2 | 312.4 | 60.8
1f1b      |  6 |  79.7 | 190.7 | 33.4 | 309.9 | 59.0
1f1b      |  8 |  60.7 | 188.0 | 27.7 | 346.8 | 60.8
1f1b      | 10 |  54.3 | 191.9 | 24.5 | 371.1 | 61.0
1f1b      | 12 |  48.0 | 196.5 | 21.8 | 415.1 | 63.0
1f1b      | 13 |  41.6 | 193.6 | 18.3 | 430.3 | 63.2
1f1b      | 14 |  41.6 | 200.7 | 19.0 | 439.6 | 63.0
1f1b      | 16 |  35.3 | 206.4 | 16.9 | 483.6 | 64.5
1f1b      | 20 |  35.3 | 224.8 | 15.8 | 561.2 | 66.3
1f1b      | 24 |  28.9 | 238.6 | 13.2 | 634.5 | 67.4
1f1b      | 32 |  22.6 | 273.1 | 11.2 | 785.4 | 69.1
1f1b      | 64 |  16.2 | 421.0 |  8.6 | 1403.0 | 72.6
1f1b + R  |  1 | 114.5 | 440.3 | 68.9 | 500.3 | 72.6
1f1b + R  |  2 |  62.2 | 300.3 | 52.6 | 360.3 | 60.5
1f1b + R  |  3 |  45.8 | 257.1 | 42.5 | 324.1 | 54.4
1f1b + R  |  4 |  36.0 | 238.2 | 35.7 | 315.9 | 51.5
1f1b + R  |  5 |  31.1 | 226.7 | 30.1 | 317.2 | 50.1
1f1b + R  |  6 |  27.9 | 222.9 | 26.5 | 319.6 | 48.8
1f1b + R  |  8 |  23.0 | 222.8 | 21.7 | 350.5 | 50.2
1f1b + R  | 10 |  21.3 | 225.6 | 17.9 | 375.9 | 50.7
1f1b + R  | 12 |  19.7 | 231.6 | 15.4 | 415.9 | 52.9
1f1b + R  | 13 |  18.1 | 232.4 | 13.4 | 428.8 | 53.1
1f1b + R  | 14 |  18.1 | 237.5 | 13.0 | 441.0 | 53.1
1f1b + R  | 16 |  16.4 | 246.5 | 11.8 | 481.5 | 54.9
1f1b + R  | 20 |  16.4 | 264.3 |  9.6 | 557.0 | 57.1
1f1b + R  | 24 |  14.8 | 283.2 |  8.1 | 627.8 | 58.5
1f1b + R  | 32 |  13.2 | 325.8 |  7.0 | 774.1 | 60.8
1f1b + R  | 64 |  11.5 | 505.9 |  6.2 | 1374.5 | 65.5
"""
