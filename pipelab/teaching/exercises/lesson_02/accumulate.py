"""Exercises of lesson 2: serial micro-batches, GPipe, its bubble, exact accumulation."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

from pipelab import view
from pipelab.schedules import Action, Schedule, build_schedule, format_slot
from pipelab.schedules.action import actions_of
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Program
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import close, difference, read_number, read_table, read_whole, trained, unsound
from pipelab.timeline import Timeline

LESSON = "02_gpipe"


def _sized(part: str, *sizes: tuple[int, int], **more: Any) -> list[Case]:
    return [Case(part, {"p": p, "m": m, **more}) for p, m in sizes]


def _number(value: float) -> str:
    return f"{value:.6g}"


# ---- tables, whatever their order -----------------------------------------------------------------------------------


def _stands_for(schedule: Schedule, case: Case) -> Finding | None:
    """Whether the table holds exactly one F and one B for each of m micro-batches on each of p stages, and can run."""
    m = case["m"]
    found = {action.microbatch for _, _, action in schedule.actions()}
    start = f"{case.words}: "
    if found == set(range(1, m + 1)):
        return Finding(start + f"micro-batches are numbered 1 to {m}; counting starts at 0: 0 to {m - 1}.")
    missing, strange = sorted(set(range(m)) - found), sorted(found - set(range(m)))
    numbered = "there is micro-batch 0 alone" if m == 1 else f"they count from 0 to {m - 1}"
    if missing:
        return Finding(start + f"micro-batch {missing[0]} is nowhere in your table; {numbered}.")
    if strange:
        return Finding(start + f"your table runs micro-batch {strange[0]}; {numbered}.")
    for device, program in enumerate(schedule.programs):
        finding = _foreign(device, program)
        if finding:
            return Finding(start + finding)
    return unsound(schedule, case)


def _foreign(device: int, program: Program) -> str:
    """What stands in a row and does not belong there, or is not there at all; "" if nothing is wrong."""
    for slot in program:
        if not isinstance(slot, Action):
            return f"device {device} runs {format_slot(slot)}; each slot is one action here."
        if slot.stage != device:
            return (
                f"device {device} runs {slot}, but device {device} holds stage {device}: the first number of an action "
                "is the stage."
            )
        if slot.op not in "FB":
            return f"device {device} runs {slot}; this schedule has F and B alone."
    lacking = next((op for op in "FB" if op not in [action.op for slot in program for action in actions_of(slot)]), "")
    if lacking:
        return f"device {device} runs no {'forward' if lacking == 'F' else 'backward'} at all."
    return ""


def _unit_run(schedule: Schedule) -> Timeline:
    return simulate(schedule, Costs(forward=1, backward=1))


def _drawn(schedule: Schedule, case: Case) -> view.Picture:
    return view.plot_timeline(_unit_run(schedule), title=f"Your table, {case.words}", phases=False)


# ---- serial ---------------------------------------------------------------------------------------------------------


@reserved
def serial_table(p: int, m: int) -> list[list[Action]]:
    """F0, B0, F1, B1, ... on every device."""
    return [[Action(r, op, i) for i in range(m) for op in "FB"] for r in range(p)]


def _serial_drawn(random: Random) -> list[Case]:
    cases = []
    for _ in range(3):
        p, m = random.randint(2, 12), random.randint(2, 40)
        cases.append(Case("table", {"p": p, "m": m}))
        costs = {"tF": random.randint(1, 9), "tB": random.randint(10, 29) / 2}
        cases.append(Case("makespan", {"p": p, "m": m, **costs}))
    return cases


def _serial_ask(call: Call, case: Case) -> Any:
    if case.part == "table":
        return call("serial_rows", case["p"], case["m"])
    return call("serial_makespan", case["p"], case["m"], case["tF"], case["tB"])


def _serial_judge(case: Case, data: Any) -> Finding | None:
    return _judge_serial_table(case, data) if case.part == "table" else _judge_serial_time(case, data)


def _judge_serial_table(case: Case, data: Any) -> Finding | None:
    p, m = case["p"], case["m"]
    schedule = read_table(data, f"{case.words}: serial_rows", p)
    finding = _stands_for(schedule, case)
    if finding is not None:
        return finding
    run, picture = _unit_run(schedule), partial(_drawn, schedule, case)
    under_way: dict[int, float] = {}  # micro-batch -> when its last action ends
    for span in run.spans:
        i = actions_of(span.slot)[0].microbatch
        under_way[i] = max(under_way.get(i, 0.0), span.end)
    entered: list[int] = []
    for span in sorted(run.spans, key=lambda span: span.start):
        action = actions_of(span.slot)[0]
        if action.microbatch in entered:
            continue
        before = next((i for i in entered if span.start < under_way[i] - 1e-9), None)
        if before is not None:
            return Finding(
                f"{case.words}: sound, but not serial: device {span.device} starts {action} at t = {span.start:g}, "
                f"while micro-batch {before} is under way until t = {under_way[before]:g}. Micro-batches overlap: "
                f"your table takes {run.makespan:g} slots, the serial run {2 * p * m}.",
                picture,
            )
        entered.append(action.microbatch)

    def why(device: int, place: int, given: str, wanted: str) -> str:
        return f"{wanted} comes there: a micro-batch goes forward and back before the next, in the order of numbers."

    return difference(schedule, serial_table(p, m), case, why)


def _judge_serial_time(case: Case, data: Any) -> Finding | None:
    p, m, f, b = (case[name] for name in ("p", "m", "tF", "tB"))
    given = read_number(data, f"{case.words}: serial_makespan")
    wanted = simulate(Schedule.from_rows(serial_table(p, m)), Costs(forward=f, backward=b)).makespan
    if close(given, wanted):
        return None
    trip = f"A micro-batch passes {p} devices forward and {p} backward before the next one starts."
    slots = f"{trip} With tF = {f:g} and tB = {b:g} a forward and a backward are not one slot each."
    reasons = [
        ((m + p - 1) * (f + b), "That is GPipe's time, with overlap; here no two micro-batches are under way at once."),
        (m * (f + b), f"That is what one device works. {trip}"),
        (p * (f + b), "That is one micro-batch's way; the others follow, each after the one before it."),
        (2 * p * m, slots),
        (2 * p * m * (f + b), f"That is twice the time: {p} devices x (tF + tB) holds both directions already."),
        (m * p * f, "That is the forwards alone."),
        (m * (p * (f + b) - 1), "Nothing overlaps, not by one slot either: the next one starts when B is over."),
    ]
    return Finding(
        f"{case.words}: serial_makespan returned {_number(given)}, running the table takes {_number(wanted)}. "
        + next((why for value, why in reasons if close(given, value)), trip)
    )


SERIAL = Exercise(
    name="serial",
    lesson=LESSON,
    title="One after the other",
    answers=("serial_rows", "serial_makespan"),
    parts={"table": 1, "makespan": 1},
    visible=[
        *_sized("table", (2, 1), (2, 2), (3, 2), (4, 4), (3, 7)),
        *_sized("makespan", (3, 2), (4, 4), tF=1, tB=1),
        *_sized("makespan", (2, 1), (3, 2), (2, 5), (4, 4), tF=1, tB=2),
        *_sized("makespan", (5, 5), tF=3, tB=4.5),
    ],
    drawn=_serial_drawn,
    ask=_serial_ask,
    judge=_serial_judge,
)


# ---- GPipe ----------------------------------------------------------------------------------------------------------


def _gpipe_drawn(random: Random) -> list[Case]:
    few = [(p, random.randint(1, p - 1)) for p in (random.randint(3, 16), random.randint(3, 16))]
    many = [(p, random.randint(p, 48)) for p in (random.randint(1, 8), random.randint(2, 16))]
    few.append((random.randint(14, 18), random.randint(11, 13)))  # numbers of two digits
    many.append((random.randint(11, 14), random.randint(14, 30)))
    return [*_sized("m < p", *few), *_sized("m >= p", *many)]


def _gpipe_ask(call: Call, case: Case) -> Any:
    return call("gpipe", case["p"], case["m"])


def _gpipe_judge(case: Case, data: Any) -> Finding | None:
    schedule = read_table(data, f"{case.words}: gpipe", case["p"])
    finding = _stands_for(schedule, case) or _not_gpipe(schedule, case)
    if finding is None and case.part == "gradients":
        return trained(schedule, case)
    return finding


def _not_gpipe(schedule: Schedule, case: Case) -> Finding | None:
    """A sound table: is it GPipe's?"""
    p, m = case["p"], case["m"]
    picture = partial(_drawn, schedule, case)
    start = f"{case.words}: sound, but not GPipe: "
    for device, program in enumerate(schedule.programs):
        ops = [actions_of(slot)[0] for slot in program]
        first = next(k for k, action in enumerate(ops) if action.op == "B")
        later = next((action for action in ops[first:] if action.op == "F"), None)
        if later is not None:
            return Finding(
                start + f"device {device} runs {ops[first]} before its forward {later}. GPipe's devices run all "
                f"forwards before the first backward. {_family(schedule, p, m)}",
                picture,
            )
        wrong = next((k for k in range(m) if ops[k].microbatch != k), None)
        if wrong is not None:
            return Finding(
                start + f"device {device} runs {ops[wrong]} as forward number {wrong}; micro-batches enter in the "
                "order of their numbers.",
                picture,
            )
    orders = [[actions_of(slot)[0].microbatch for slot in program[m:]] for program in schedule.programs]
    if orders[0] not in (list(range(m)), list(range(m))[::-1]) or any(order != orders[0] for order in orders):
        odd = next((r for r in range(p) if orders[r] != orders[0]), 0)
        theirs = f"device {odd} runs its backwards in the order {_listed(orders[odd])}"
        other = f", device 0 in the order {_listed(orders[0])}" if odd else ""
        return Finding(
            start + f"{theirs}{other}. Up or down through the micro-batches, all devices alike; else they wait for one "
            f"another: {_unit_run(schedule).makespan:g} slots, GPipe takes {2 * (m + p - 1)}.",
            picture,
        )
    return None


def _listed(order: list[int]) -> str:
    return ", ".join(map(str, order[:6])) + (", ..." if len(order) > 6 else "")


def _family(schedule: Schedule, p: int, m: int) -> str:
    if schedule.programs == build_schedule("1f1b", p, m).programs:
        return "This is 1F1B, the subject of lesson 3."
    if schedule.programs == tuple(map(tuple, serial_table(p, m))):
        return f"These are serial micro-batches, {2 * p * m} slots: nothing overlaps."
    return ""


GPIPE = Exercise(
    name="gpipe",
    lesson=LESSON,
    title="GPipe",
    answers=("gpipe",),
    parts={"m < p": 1, "m >= p": 1, "gradients": 1},
    visible=[
        *_sized("m < p", (2, 1), (3, 2), (4, 1), (5, 3)),
        *_sized("m >= p", (1, 1), (1, 3), (2, 2), (2, 3), (4, 4), (3, 7)),
        *_sized("gradients", (4, 6)),
    ],
    drawn=_gpipe_drawn,
    ask=_gpipe_ask,
    judge=_gpipe_judge,
)


# ---- two bubbles ----------------------------------------------------------------------------------------------------


def _bubbles_drawn(random: Random) -> list[Case]:
    cases = []
    for _ in range(4):
        given = {
            "p": random.randint(2, 24),
            "m": random.randint(1, 96),
            "tF": random.randint(1, 8) / 2,
            "tB": random.randint(9, 20) / 2,
        }
        cases += [Case("fraction", given), Case("ratio", given)]
        cases.append(Case("least m", {"p": random.randint(2, 64), "percent": random.choice((25, 50, 60, 75, 95, 99))}))
    cases.append(Case("least m", {"p": 64, "percent": 99}))
    cases += [Case("least m", {"p": p, "percent": 90}) for p in (random.randint(5, 40), random.choice((4, 7, 13)))]
    return cases


def _bubbles_ask(call: Call, case: Case) -> Any:
    if case.part == "least m":
        return call("least_microbatches", case["p"], case["percent"])
    name = "bubble_fraction" if case.part == "fraction" else "bubble_ratio"
    return call(name, case["p"], case["m"], case["tF"], case["tB"])


def _bubbles_judge(case: Case, data: Any) -> Finding | None:
    return _judge_least(case, data) if case.part == "least m" else _judge_bubble(case, data)


def _judge_bubble(case: Case, data: Any) -> Finding | None:
    p, m, f, b = (case[name] for name in ("p", "m", "tF", "tB"))
    fraction = case.part == "fraction"
    name = "bubble_fraction" if fraction else "bubble_ratio"
    given = read_number(data, f"{case.words}: {name}")
    run = simulate(build_schedule("gpipe", p, m), Costs(forward=f, backward=b))
    wanted, other = (run.bubble_fraction, run.bubble_ratio)[:: 1 if fraction else -1]
    if close(given, wanted):
        return None
    idle, work = (p - 1) * (f + b), m * (f + b)
    each = f"Each device idles {idle:g} and works {work:g}, of {idle + work:g} in all."
    asked = "idle over all device-time" if fraction else "idle over busy device-time"
    part, ratio_with_p = (p / (m + p), p / m) if fraction else (p / m, p / (m + p))
    only_f = (p - 1) * f / ((p - 1) * f + work) if fraction else (p - 1) * f / work
    reasons = [
        (other, f"That is the bubble {'ratio, idle over busy' if fraction else 'fraction, idle over all'}."),
        (1 - wanted, "That is the busy part; the idle part is asked for."),
        (100 * wanted, "That is in per cent."),
        (part, f"That is with p for p - 1: the device itself does not make itself wait, {p - 1} others do."),
        (p / (m + p - 1), f"That is with p for p - 1 above the line: {p - 1} other devices make it wait."),
        (ratio_with_p, "That is the other measure, and with p for p - 1."),
        (idle, "That is the idle time of a device itself; divide it."),
        (p * idle, "That is the idle time of all devices itself; divide it."),
        (
            p * wanted,
            f"That is {p} times too large: if you count idle time of all devices, divide by all devices' time.",
        ),
        (only_f, f"That counts waiting for forwards alone; a device also waits {p - 1} backwards."),
    ]
    why = next((why for value, why in reasons if close(given, value)), "")
    if not why and (f, b) != (1, 1) and given != wanted:
        why = "The times of a forward and of a backward fall out of the quotient."
    return Finding(f"{case.words}: {name} returned {_number(given)}; {asked} is {_number(wanted)}. {why} {each}")


def _judge_least(case: Case, data: Any) -> Finding | None:
    p, percent = case["p"], case["percent"]
    given = read_whole(data, f"{case.words}: least_microbatches")
    wanted = least(p, percent)
    if given == wanted:
        return None
    start = f"{case.words}: least_microbatches returned {given}. "
    if given < 1:
        return Finding(start + "There is at least one micro-batch.")
    busy, enough = f"{given}/{given + p - 1}", 100 * given >= percent * (given + p - 1)
    if not enough:
        text = f"Too few: m / (m + p - 1) = {busy} = {given / (given + p - 1):.2%} is busy, {percent} % is asked for. "
        if given == wanted - 1:
            text += "A quotient that is no whole number is rounded up. "
        if given == least(p, 90):
            text += "It is what 90 % needs; here the target is another."
        elif given == -(-(100 - percent) * (p - 1) // percent):
            text += "Are percent and 100 - percent exchanged?"
        return Finding(start + text)
    text = f"It is enough ({busy} is busy), but so is {wanted}: {wanted}/{wanted + p - 1}. "
    if given == wanted + 1 and 100 * wanted == percent * (wanted + p - 1):
        text += (
            f"That is {percent} % exactly, and at least {percent} % is asked for. If you round up a floating-point "
            "quotient, it came out a hair above a whole number: stay with whole numbers."
        )
    elif given == max(1, -(-100 * (p - 1) // (100 - percent))):
        text += "That makes idle over *busy* time small enough, the bubble ratio; asked for is the part of all time."
    elif given == -(-percent * p // (100 - percent)):
        text += "That is with p for p - 1."
    elif given == least(p, 90):
        text += "It is what 90 % needs; here the target is another."
    return Finding(start + text)


@reserved
def least(p: int, percent: int) -> int:
    """The smallest m with m / (m + p - 1) >= percent / 100, by trying."""
    m = 1
    while 100 * m < percent * (m + p - 1):
        m += 1
    return m


_PRICES: list[dict[str, Any]] = [
    {"p": 3, "m": 2, "tF": 1, "tB": 2},  # in smaller cases wrong formulas agree with one another
    {"p": 3, "m": 1, "tF": 1, "tB": 1},
    {"p": 4, "m": 2, "tF": 1, "tB": 1},
    {"p": 4, "m": 4, "tF": 1, "tB": 1},
    {"p": 4, "m": 16, "tF": 1, "tB": 2},
    {"p": 5, "m": 12, "tF": 1.5, "tB": 4},
    {"p": 1, "m": 3, "tF": 1, "tB": 2},
]

BUBBLES = Exercise(
    name="bubbles",
    lesson=LESSON,
    title="Two bubbles",
    answers=("bubble_fraction", "bubble_ratio", "least_microbatches"),
    parts={"fraction": 1, "ratio": 1, "least m": 1},
    visible=[
        *(Case("fraction", given) for given in _PRICES),
        *(Case("ratio", given) for given in _PRICES),
        *(Case("least m", {"p": p, "percent": 90}) for p in (4, 2, 8)),
        *(Case("least m", {"p": p, "percent": q}) for p, q in ((3, 50), (4, 80), (6, 85), (2, 10), (1, 90))),
    ],
    drawn=_bubbles_drawn,
    ask=_bubbles_ask,
    judge=_bubbles_judge,
)


# ---- accumulation ---------------------------------------------------------------------------------------------------

_STEPS = 2  # the second finds what the first left in .grad


def _accumulation(part: str, n: int, m: int, seed: int) -> Case:
    return Case(part, {"_n": n, "_m": m, "_seed": seed, "_words": f"a batch of {n} as m = {m} micro-batches"})


def _accumulate_drawn(random: Random) -> list[Case]:
    m, size = random.randint(2, 9), random.randint(2, 6)
    odd = random.randint(3, 12)
    return [
        _accumulation("even micro-batches", m * size, m, random.randint(100, 999)),
        _accumulation("uneven micro-batches", odd * random.randint(2, 5) + random.randint(1, odd - 1), odd, 1000),
    ]


def _material(case: Case) -> tuple[Any, Any, list[tuple[Any, Any]]]:
    """A small model, a mean loss, and a batch for each step: made by the asker and by the judge, each for itself."""
    import torch

    generator = torch.Generator().manual_seed(case["_seed"])

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(draw(*parameter.shape))
    batches = [(draw(case["_n"], 3), draw(case["_n"], 2)) for _ in range(_STEPS)]
    return model, torch.nn.functional.mse_loss, batches


def _accumulate_ask(call: Call, case: Case) -> Any:
    """Two steps in a row; of each the gradients, the sequences of each forward, the most forwards without backward."""
    model, loss, batches = _material(case)
    sizes: list[int] = []
    waiting = [0, 0]  # forwards whose backward has not come, now and at most

    def forward(module: Any, args: Any, output: Any) -> None:
        if output.requires_grad:
            waiting[0] += 1
            waiting[1] = max(waiting)
            output.register_hook(backward)

    def backward(gradient: Any) -> None:
        waiting[0] -= 1

    model[0].register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))  # however the model is run
    model[-1].register_forward_hook(forward)
    found = []
    for inputs, targets in batches:
        sizes.clear()
        call("accumulate", model, loss, inputs, targets, case["_m"], _none=True, _keep=False)
        grads = [None if p.grad is None else p.grad.flatten().tolist() for p in model.parameters()]
        found.append({"grads": grads, "sizes": list(sizes), "held": waiting[1]})
    return found


def _flat(grads: list[Any]) -> list[float]:
    return [number for grad in grads for number in grad]


def _true(case: Case, step: int, sizes: list[int]) -> tuple[list[float], list[list[float]]]:
    """The gradient of the whole batch at one step, and those of the mean losses of its micro-batches."""
    import torch

    model, loss, batches = _material(case)
    inputs, targets = batches[step]

    def gradient(x: Any, t: Any) -> list[float]:
        grads = torch.autograd.grad(loss(model(x), t), list(model.parameters()))
        return _flat([grad.flatten().tolist() for grad in grads])

    pairs = zip(inputs.split(sizes), targets.split(sizes), strict=True)
    return gradient(inputs, targets), [gradient(x, t) for x, t in pairs]


def _weighted(pieces: list[list[float]], weights: list[float]) -> list[float]:
    return [sum(w * piece[k] for w, piece in zip(weights, pieces, strict=True)) for k in range(len(pieces[0]))]


def _alike(given: list[float], wanted: list[float]) -> bool:
    largest = max(map(abs, wanted))
    return len(given) == len(wanted) and max(abs(a - b) for a, b in zip(given, wanted, strict=True)) < 1e-9 * largest


def _accumulate_judge(case: Case, data: Any) -> Finding | None:
    n, m = case["_n"], case["_m"]
    small, rest = divmod(n, m)
    sizes = [small + (i < rest) for i in range(m)]
    if not isinstance(data, list) or len(data) != _STEPS:
        raise Refused(f"{case.words}: the two steps did not come back")
    for step, found in enumerate(data):
        finding = _judge_sizes(case, found["sizes"], sizes) or _judge_gradient(case, step, data, sizes)
        if finding is None and found["held"] > 1:
            finding = Finding(
                f"{case.words}: the gradient is right, but {found['held']} forwards had run before the first backward, "
                "so that the activations of all of them were held at once. Run each micro-batch's backward before the "
                "next forward."
            )
        if finding is not None:
            return finding
    return None


def _judge_sizes(case: Case, given: list[int], sizes: list[int]) -> Finding | None:
    n, m = case["_n"], case["_m"]
    if sorted(given) == sorted(sizes):
        return None
    start = f"{case.words}: "
    cut = f"torch.tensor_split cuts {n} into {_parts(sizes)}"
    if not given:
        return Finding(start + "the model was never called; each micro-batch needs a forward.")
    if given == [n]:
        return Finding(
            start + "the whole batch went through in one piece. The gradient is right, but the device has to hold the "
            f"activations of all {n} sequences: nothing was accumulated."
        )
    shown = f"the model saw {_parts(given)}"
    if sum(given) == n:
        return Finding(start + f"{shown}: {len(given)} micro-batches, not {m} of these sizes. {cut}.")
    if sum(given) < n:
        return Finding(start + f"{shown}: {n - sum(given)} of {n} sequences were left out. {cut}.")
    return Finding(start + f"{shown}, {sum(given)} sequences of {n}: some went through more than once. {cut}.")


def _parts(sizes: list[int]) -> str:
    counts = {size: sizes.count(size) for size in sizes}
    return " and ".join(f"{count} of {size}" for size, count in counts.items())


def _judge_gradient(case: Case, step: int, data: list[Any], sizes: list[int]) -> Finding | None:
    n, m = case["_n"], case["_m"]
    if any(grad is None for grad in data[step]["grads"]):
        return Finding(f"{case.words}: a parameter has no .grad: call backward() on each micro-batch's loss.")
    given = _flat(data[step]["grads"])
    whole, pieces = _true(case, step, sizes)
    if _alike(given, whole):
        return None
    shares = [size / n for size in sizes]
    ways = [
        ([1.0] * m, f"It is the sum of the micro-batches' mean gradients, {_times(m)} too large: weigh each."),
        (
            [1 / m] * m,
            "It is the mean of the micro-batches' means. That is right where all are of one size; here "
            f"{_parts(sizes)}: each counts by its number of sequences.",
        ),
        (
            [0.0] * (m - 1) + [1.0],
            "It is the last micro-batch's alone: clear the gradients once before the loop, not for each micro-batch.",
        ),
        (
            [0.0] * (m - 1) + [shares[-1]],
            "Only the last micro-batch's is left in it: clear the gradients once before the loop, not for each.",
        ),
        (
            [0.0] * (m - 1) + [1 / m],
            "Only the last micro-batch's is left in it: clear the gradients once before the loop, not for each.",
        ),
        (
            [float(size) for size in sizes],
            f"It is the gradient of the summed loss, {_times(n)} too large: divide by the batch's {n} sequences.",
        ),
    ]
    start = f"{case.words}, step {step}: the gradient is not that of the whole batch's mean loss. "
    for weights, why in ways:
        if _alike(given, _weighted(pieces, weights)):
            return Finding(start + why)
    if step:
        grown = [a - b for a, b in zip(given, _flat(data[step - 1]["grads"]), strict=True)]
        if _alike(grown, whole):
            why = "It still holds the gradient of the step before: clear .grad before the first micro-batch."
            return Finding(start + why)
    off = max(abs(a - b) for a, b in zip(given, whole, strict=True)) / max(map(abs, whole))
    return Finding(
        start + f"It is off by {off:.2g} of the largest gradient. Micro-batch i counts n_i / n: {_parts(sizes)}; and "
        "the weights stay as they are until the whole batch is through."
    )


def _times(count: int) -> str:
    return f"{count} times"


ACCUMULATE = Exercise(
    name="accumulate",
    lesson=LESSON,
    title="Exact accumulation",
    answers=("accumulate",),
    parts={"even micro-batches": 1, "uneven micro-batches": 2},
    visible=[
        _accumulation("even micro-batches", 4, 2, 1),
        _accumulation("even micro-batches", 64, 4, 2),
        _accumulation("even micro-batches", 9, 3, 7),
        _accumulation("even micro-batches", 6, 1, 3),
        _accumulation("uneven micro-batches", 3, 2, 4),
        _accumulation("uneven micro-batches", 64, 12, 5),
        _accumulation("uneven micro-batches", 64, 20, 6),
    ],
    drawn=_accumulate_drawn,
    ask=_accumulate_ask,
    judge=_accumulate_judge,
)

EXERCISES = (SERIAL, GPIPE, BUBBLES, ACCUMULATE)
