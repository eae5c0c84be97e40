"""Tables with I and W for lesson 7: costs of the halves, hand-written tables, and why one is slower or fuller."""

from __future__ import annotations

import re
from functools import partial
from itertools import pairwise
from typing import Any

from pipelab import view
from pipelab.schedules import Action, Schedule, actions_of, build_schedule
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Case, Finding
from pipelab.teaching.exercises.judging import read_table, unsound
from pipelab.timeline import Timeline


def of_halves(forward: float = 1, input_gradient: float = 1, weight_gradient: float = 1) -> Costs:
    """tF, tI and tW of a full device share."""
    whole = input_gradient + weight_gradient
    return Costs(forward, whole, input_gradient=input_gradient, weight_gradient=weight_gradient)


def read_csv(data: Any, what: str, devices: int) -> Schedule:
    """A table as :func:`read_table` takes it, or as text: a line for each device, idle cells as dots or left out."""
    if isinstance(data, str):
        lines = [re.findall(r"[^\s,.]+", line) for line in data.splitlines()]
        data = [row for row in lines if row]
    return read_table(data, what, devices)


def misshapen(table: Schedule, case: Case, p: int, m: int) -> Finding | None:
    """Why a table is none of p stages and m micro-batches that can run."""
    beyond = next(((d, a) for d, _, a in table.actions() if a.microbatch >= m), None)
    if beyond is not None:
        device, action = beyond
        return Finding(f"{case.words}: device {device} runs {action}, but the micro-batches are 0..{m - 1}.")
    if table.forward_only:
        return Finding(f"{case.words}: your table has no backwards. Each F needs an I and a W of its micro-batch.")
    found = unsound(table, case)
    if found is None and table.placement != tuple((r,) for r in range(p)):
        return Finding(f"{case.words}: stage r belongs on device r, and there are {p} stages.")
    if found is None and table.microbatches != m:
        return Finding(f"{case.words}: your table has {table.microbatches} micro-batches instead of {m}.")
    return found


def beyond_zb_h1(table: Schedule, case: Case, p: int, m: int) -> Finding | None:
    """Why a sound table takes longer than ZB-H1 at tF = tI = tW, or holds more than device 0 of 1F1B."""
    run, right = simulate(table, of_halves()), simulate(build_schedule("zb-h1", p, m), of_halves())
    picture = partial(view.plot_schedules, [run], [f"Yours, {case.words}"], memory=True)
    most = min(p, m)
    fullest = max(range(p), key=lambda r: run.peak_microbatches[r])
    if run.peak_microbatches[fullest] > most:
        held = (
            f"device {fullest} holds {run.peak_microbatches[fullest]:g} micro-batches, and at most {most} are allowed"
        )
        return Finding(f"{case.words}: {held}. {_why_fuller(table, most)}", picture)
    if run.makespan > right.makespan + 1e-9:
        slow = f"your table takes {run.makespan:g} units, and {right.makespan:g} are possible"
        return Finding(f"{case.words}: {slow}. {_why_slower(run)}", picture)
    return None


def _ops(table: Schedule) -> list[str]:
    """The ops of each device, in order: ``"FFIFIWW"``."""
    return ["".join(action.op for slot in row for action in actions_of(slot)) for row in table.programs]


def _other_warmup(table: Schedule) -> str:
    """Where a device runs other forwards than in 1F1B before its first backward; "" if none does."""
    for r, row in enumerate(_ops(table)):
        mine, wanted = len(row) - len(row.lstrip("F")), min(table.devices - r, table.microbatches)
        if mine != wanted:
            return f"Device {r} runs {mine} F before its first backward, and in 1F1B it runs {wanted} there."
    return ""


def _why_fuller(table: Schedule, most: int) -> str:
    rows = [row.replace("F", "") for row in _ops(table)]
    first = max(len(row) - len(row.lstrip("F")) for row in _ops(table))
    if first > most:
        return (
            f"A device runs {first} F before its first backward. That is more than in 1F1B. ZB-H2 does that, and pays "
            "for a smaller bubble with memory."
        )
    if all("I" not in row.lstrip("I") for row in rows):
        return "All W's come at the end. A micro-batch is held until its W has run, so no memory is freed before that."
    return _other_warmup(table) or "A micro-batch is held from its F to its W. Before a further F, run a W that waits."


def _why_slower(run: Timeline) -> str:
    """Which order is not that of 1F1B, or which W stands on the longest path."""
    other, rows = _other_warmup(run.schedule), _ops(run.schedule)
    if other:
        return other
    if all(re.fullmatch(r"(F|IW|B)*", row) for row in rows):
        return (
            "Each W follows its I at once, as in 1F1B. But the device before waits for the result of an I, and nobody "
            "waits for that of a W."
        )
    for before, span in pairwise(run.critical_path()):
        here = isinstance(before.slot, Action) and before.slot.op == "W" and before.device == span.device
        arrived = max((arrived for arrived, _ in run.inputs(span)), default=0.0)
        if here and arrived < before.end - 1e-9 and "W" not in str(span.slot):
            return (
                f"On the longest path device {span.device} runs {before.slot} until t = {before.end:g}, and then "
                f"{span.slot}, whose input was there at t = {arrived:g}. Others wait for {span.slot}, and nobody waits "
                "for a W."
            )
    return "Some device idles while a W could run, or has too many W's left at the end."
