"""Exercise of lesson 6: write the table of 2BW, and train with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

from pipelab import view
from pipelab.schedules import Action, Schedule, actions_of
from pipelab.schedules.reserved import reserved
from pipelab.schedules.updates import Updating, one_f_one_b_with_updates
from pipelab.schedules.warmups import with_warmups
from pipelab.simulation import simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import difference, read_table, unsound

_SIZES = [(1, 1, 2), (1, 2, 2), (2, 2, 2), (2, 3, 2), (3, 3, 2), (3, 5, 3), (4, 4, 3), (4, 6, 1)]


def _case(part: str, p: int, m: int, batches: int) -> Case:
    words = f"p = {p}, m = {m}, {batches} batch{'es' if batches > 1 else ''}"
    return Case(part, {"_p": p, "_m": m, "_batches": batches, "_words": words})


def _drawn(random: Random) -> list[Case]:
    sizes = [(p, p + random.randint(0, 6), random.randint(2, 5)) for p in (random.randint(2, 7) for _ in range(3))]
    p = random.choice((2, 3, 4))
    return [
        *(_case(part, *size) for part in ("order", "updates") for size in sizes),
        _case("training", p, p + random.randint(0, 2), 3),
    ]


@reserved
def right_rows(p: int, m: int, batches: int) -> list[list[Action]]:
    """The rows of 2BW."""
    return one_f_one_b_with_updates(p, m * batches, m)


def _ask(call: Call, case: Case) -> Any:
    p, m, batches = case["_p"], case["_m"], case["_batches"]
    if case.part == "training":  # what the pipeline runs is cut from the tables of one batch and of two
        return [call("two_bw", p, m, k) for k in (1, 2)]
    return call("two_bw", p, m, batches)


def _judge(case: Case, data: Any) -> Finding | None:
    if case.part != "training":
        return _judge_table(case, case["_batches"], data)[1]
    if not isinstance(data, list) or len(data) != 2:
        raise Refused(f"{case.words}: the tables of one batch and of two did not come back")
    tables = []
    for batches, rows in enumerate(data, start=1):
        table, found = _judge_table(case, batches, rows)
        if found is not None:
            return found
        tables.append(table)
    return _trained(case, tables)


def _judge_table(case: Case, batches: int, data: Any) -> tuple[Schedule, Finding | None]:
    p, m, part = case["_p"], case["_m"], case.part
    case = _case(part, p, m, batches)  # for training, the case has more batches than the tables
    table = read_table(data, f"two_bw({p}, {m}, {batches})", p)
    found = _strange(table, case, m * batches) or unsound(_without_updates(table), case)
    if found is None and part != "updates":
        found = _wrong_order(table, case, m * batches)
    if found is None and part != "order":
        found = _wrong_updates(table, case, batches)
    return table, found


def _without_updates(table: Schedule) -> Schedule:
    rows = [[a for slot in row for a in actions_of(slot) if a.op != "U"] for row in table.programs]
    return Schedule.from_rows(rows, name="yours")


def _strange(table: Schedule, case: Case, count: int) -> Finding | None:
    """Actions that there are not, and forwards and backwards that are not there."""
    p, m = case["_p"], case["_m"]
    for device, _, action in table.actions():
        start = f"{case.words}: device {device} runs {action}. "
        if action.op not in "FBU":
            return Finding(start + "The actions here are F, B and U.")
        if action.stage != device:
            return Finding(start + f"Device {device} holds stage {device}, and each stage is updated where it lives.")
        if action.microbatch >= count and (action.op != "U" or case.part != "order"):
            if action.op == "U":
                start += "An update has the number of the backward that it follows. "
            return Finding(start + f"The micro-batches are 0..{count - 1}: m = {m} in each batch.")
    there = {action for _, _, action in table.actions()}
    for r in range(p):
        for i in range(count):
            for op in "FB":
                if Action(r, op, i) not in there:
                    return Finding(
                        f"{case.words}: {Action(r, op, i)} is missing. Each device runs {count} forwards and {count} "
                        "backwards. The micro-batches of all batches are counted on: the second batch begins with "
                        f"micro-batch {m}."
                    )
    return None


def _wrong_order(table: Schedule, case: Case, count: int) -> Finding | None:
    """Whether forwards and backwards are in another order than 1F1B's over all batches."""
    p, m = case["_p"], case["_m"]
    mine = _without_updates(table)
    right = with_warmups([p - 1 - r for r in range(p)], count)
    if mine.programs == right.programs:
        return None
    spans = simulate(mine).makespan, simulate(right).makespan
    cost = f"it takes {spans[0]:g} slots, and 2BW's order takes {spans[1]:g}. "
    start = f"{case.words}: the order of F and B is sound, but not 2BW's: {cost}"
    flush = [
        [Action(r, a.op, a.microbatch + b) for b in range(0, count, m) for slot in row for a in actions_of(slot)]
        for r, row in enumerate(with_warmups([p - 1 - r for r in range(p)], m).programs)
    ]
    if [[a for slot in row for a in actions_of(slot)] for row in mine.programs] == flush:
        return Finding(
            start + "Yours drains the pipeline after each batch, which is a flush. Without one the next batch's "
            "forwards follow at once, and there is one warm-up, at the very start.",
            partial(_beside, mine, right),
        )
    rows: list[list[str | Action]] = [[a for slot in row for a in actions_of(slot)] for row in right.programs]
    return difference(mine, rows, case, partial(_why_order, spans))


def _why_order(spans: tuple[float, float], device: int, position: int, mine: str, theirs: str) -> str:
    cost = f"Yours takes {spans[0]:g} slots in all instead of {spans[1]:g}. " if spans[0] > spans[1] else ""
    return (
        f"1F1B over all batches runs {theirs or 'nothing more'} there. {cost}The updates are left out in this count. "
        "Device r runs p - 1 - r forwards, then pairs until no forwards are left in any batch."
    )


def _beside(mine: Schedule, right: Schedule) -> view.Picture:
    return view.plot_schedules([simulate(mine), simulate(right)], ["Yours", "Without a flush"], memory=True)


def _wrong_updates(table: Schedule, case: Case, batches: int) -> Finding | None:
    """Whether a device's updates are others than one right after the last backward of each batch."""
    p, m = case["_p"], case["_m"]
    for r in range(p):
        row = [str(a) for slot in table.programs[r] for a in actions_of(slot)]
        mine = [cell for cell in row if "U" in cell]
        wanted = [f"{r}U{(b + 1) * m - 1}" for b in range(batches)]
        early = next((cell for cell in mine if row.index(cell) < row.index(cell.replace("U", "B"))), None)
        late = next((cell for cell in mine if cell in wanted and _after(row, cell) != cell.replace("U", "B")), None)
        if mine == wanted and early is None and late is None:
            continue
        start = f"{case.words}: on device {r} the updates are {', '.join(mine) or 'missing'}. "
        if not mine:
            why = f"After each batch every device updates its stage: {wanted[0]} after {wanted[0].replace('U', 'B')}."
        elif early is not None:
            why = f"{early} stands before {early.replace('U', 'B')}: an update needs the gradients of its whole batch."
        elif mine == wanted:
            assert late is not None
            why = (
                f"{late} does not stand right after {late.replace('U', 'B')}, but after {_after(row, late)}. All the "
                "batch's gradients are there by then, and what is made earlier can be used earlier."
            )
        elif mine == [f"{r}U{i}" for i in range(m * batches)]:
            why = "An update after each backward is PipeDream's. 2BW gathers the gradients of m micro-batches."
        elif mine == [f"{r}U{b}" for b in range(batches)] or mine == [f"{r}U{b * m}" for b in range(batches)]:
            why = f"An update has the number of the batch's last micro-batch: {', '.join(wanted)}."
        elif mine == wanted[-1:]:
            why = "One update at the end is that of a single large batch. Each batch has its own."
        else:
            why = f"The batches end with micro-batches {', '.join(cell.partition('U')[2] for cell in wanted)}."
        marked = [(r, row.index(cell)) for cell in mine]
        return Finding(start + why, partial(view.plot_table, table, title=f"Your table, {case.words}", marked=marked))
    return None


def _after(row: Sequence[str], cell: str) -> str:
    """What stands before ``cell`` in its row."""
    return row[row.index(cell) - 1] if row.index(cell) else "nothing"


def _trained(case: Case, tables: Sequence[Schedule]) -> Finding | None:
    """Train a narrow model with tables of one batch and of two, which are sound: the finding if its weights are wrong.

    A step runs what the table of two batches has between their first forwards.
    """
    import torch

    from pipelab.models import TransformerLM, next_byte_loss, text_batch  # torch is loaded by what trains alone
    from pipelab.runtime import Pipeline
    from pipelab.runtime.measuring.delayed import delayed_training

    p, m = case["_p"], case["_m"]
    one, two = (
        Schedule("yours", table.programs, table.placement, table.weights, Updating("delayed", m)) for table in tables
    )
    one.kept["over", 1], one.kept["over", 2] = one, two

    def optimizer(named: list[tuple[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD([q for _, q in named], lr=0.1, momentum=0.9)

    def model() -> TransformerLM:
        return TransformerLM(layers=8, width=16, heads=2).double()

    batches = [text_batch(k, 2 * m) for k in range(case["_batches"])]
    trained = model()
    peaks = [0] * p
    with Pipeline(trained, one, loss=next_byte_loss, optimizer=optimizer, measure_memory=False) as pipeline:
        for x, y in batches:
            peaks = [max(pair) for pair in zip(peaks, pipeline.step(x, y).weight_versions, strict=True)]
        pipeline.drain()
    start = model()
    micro = [pair for x, y in batches for pair in zip(x.tensor_split(m), y.tensor_split(m), strict=True)]
    names = [name for name, _ in start.named_parameters()]
    versions = delayed_training(start, [names], optimizer, next_byte_loss, micro, lambda s, i: max(i // m - 1, 0), m)
    largest = max(float(weights.abs().max()) for weights in versions[-1].values())
    off = max(float((q.detach() - versions[-1][name]).abs().max()) for name, q in trained.named_parameters()) / largest
    if not off <= 1e-9:
        return Finding(f"{case.words}: the model trained with your rows, but its weights are off by {off:.2g}.")
    if max(peaks) > 2:
        return Finding(f"{case.words}: the devices kept up to {max(peaks)} versions, and 2BW keeps two.")
    return None


EXERCISE = Exercise(
    name="two_bw",
    lesson="06_without_a_flush",
    title="Write 2BW",
    answers=("two_bw",),
    parts={"order": 1, "updates": 2, "training": 1},
    visible=[
        *(_case(part, *size) for part in ("order", "updates") for size in _SIZES),
        _case("training", 3, 4, 3),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
