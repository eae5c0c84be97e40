"""Questions on messages, deadlocks and other parallelism: lessons 9 to 10b."""

from __future__ import annotations

from random import Random

from pipelab.schedules import Schedule, build_schedule, check_schedule, format_slot
from pipelab.simulation import Costs, simulate
from pipelab.teaching.course.exam.question import Given, Question, Slip
from pipelab.teaching.exercises.lesson_10.bytes_per_step import sent
from pipelab.teaching.exercises.lesson_10.ranks_and_groups import KINDS, place_of

__all__ = ["QUESTIONS"]

# ---- latency ---------------------------------------------------------------------------------------------------------


def _latency_draw(random: Random) -> Given:
    p = random.randint(3, 6)
    return {
        "p": p,
        "m": random.randint(p + 1, 3 * p),
        "tF": random.randint(1, 3),
        "tB": random.randint(2, 5),
        "latency": random.randint(1, 3),
    }


def _late(given: Given, latency: float) -> float:
    costs = Costs(forward=given["tF"], backward=given["tB"], latency=latency)
    return simulate(build_schedule("gpipe", given["p"], given["m"]), costs).makespan


LATENCY = Question(
    name="latency",
    lesson="09_messages",
    title="A slow line",
    points=2,
    minutes=3,
    draw=_latency_draw,
    ask=lambda given: (
        f"GPipe, p = {given['p']}, m = {given['m']}, tF = {given['tF']}, tB = {given['tB']}. Each message takes "
        f"{given['latency']} units, and many may be under way at once. How many units does a step take?"
    ),
    truth=lambda given: _late(given, given["latency"]),
    why=lambda given: "GPipe pays for latency while it fills and drains only: 2 (p - 1) messages one after the other.",
    slips=lambda given: [
        (_late(given, 0), "That is without latency."),
        (_late(given, given["latency"] / 2), "The gradients need their way back too."),
        (
            _late(given, 0) + 2 * given["m"] * (given["p"] - 1) * given["latency"],
            "Not every message is waited for: most arrive while their receiver works.",
        ),
    ],
)

# ---- deadlock --------------------------------------------------------------------------------------------------------

RUNS, HANGS = "runs", "hangs"


def _hang_draw(random: Random) -> Given:
    p, m = 3, random.randint(3, 4)
    places = {"_device": random.randrange(p), "_place": random.randrange(2 * m - 1)}
    return {"_p": p, "_m": m, **places, "_words": "The three rows"}


def _swapped(given: Given) -> Schedule:
    rows = [[format_slot(slot) for slot in row] for row in build_schedule("1f1b", given["_p"], given["_m"]).programs]
    row, k = rows[given["_device"]], given["_place"]
    row[k], row[k + 1] = row[k + 1], row[k]
    return Schedule.from_rows(rows, name="examined")


def _hang_why(given: Given) -> str:
    violations = check_schedule(_swapped(given))
    return f"{violations[0].message}." if violations else "Whatever an action needs comes before it."


HANG = Question(
    name="hang",
    lesson="09b_deadlocks",
    title="Does it run?",
    points=2,
    minutes=4,
    draw=_hang_draw,
    ask=lambda given: (
        "Three devices run these rows, each in its order, and sends never block. An action waits for what it needs. "
        f"Does the step end (*{RUNS}*), or do devices wait forever (*{HANGS}*)?\n\n"
        f"```\n{_swapped(given).to_csv().strip()}\n```"
    ),
    truth=lambda given: HANGS if check_schedule(_swapped(given)) else RUNS,
    why=_hang_why,
    options=lambda given: (RUNS, HANGS),
)

# ---- bytes -----------------------------------------------------------------------------------------------------------

DATA, PIPELINE = "data parallel", "pipeline"


def _bytes_draw(random: Random) -> Given:
    kind, size = random.choice((DATA, PIPELINE)), random.choice((2, 4))
    width, layers, n = 256 * random.randint(2, 8), 4 * random.randint(3, 12), random.choice((2, 4))
    return {
        "kind": kind,
        "devices": n,
        "layers": layers,
        "width": width,
        "tokens": 128 * random.randint(1, 8),
        "m": random.choice((8, 16)),
        "sequences": random.randint(1, 4),
        "bytes of a number": size,
    }


def _sent(given: Given) -> float:
    """Bytes that a device sends: device 0 of a pipeline, a replica with the whole model."""
    data = given["kind"] == DATA
    model = {"number_bytes": given["bytes of a number"], "layer_parameters": 12 * given["width"] ** 2}
    model |= {"layers": given["layers"], "width": given["width"], "tokens": given["tokens"]}
    n, m = given["devices"], given["m"]
    shape = {"dp": n if data else 1, "pp": 1 if data else n, "tp": 1, "m": m, "v": 1}
    return sent(given["kind"], model, shape | {"batch": shape["dp"] * m * given["sequences"]}, 0) / 1e6


def _bytes_ask(given: Given) -> str:
    n, size = given["devices"], given["bytes of a number"]
    if given["kind"] == DATA:
        return (
            f"{n} replicas of a model with {given['layers']} layers of width {given['width']}, 12 width² parameters "
            f"each. Gradients have {size} bytes a number, and are added up by a ring. How many MB (10^6 bytes) does "
            "each replica send in a step?"
        )
    return (
        f"A pipeline of {n} devices, one stage each, width {given['width']}. A step has m = {given['m']} micro-batches "
        f"of {given['sequences']} sequence(s) with {given['tokens']} tokens, and {size} bytes a number. How many MB "
        "(10^6 bytes) does device 0 send in a step?"
    )


def _bytes_slips(given: Given) -> list[Slip]:
    right, n = _sent(given), given["devices"]
    if given["kind"] == DATA:
        return [
            (right / 2, "A ring goes round twice: to add up, and to hand out."),
            (right * n / (n - 1), "A device never sends a piece to itself: n - 1 of n go out."),
            (right * n / (n - 1) / 2, "That is the size of all gradients."),
        ]
    return [
        (2 * right, "The first device sends activations only. Behind it nobody waits for its gradients."),
        (right / given["m"], "That is for one micro-batch."),
        (right / given["bytes of a number"], "These are numbers, not bytes."),
    ]


BYTES = Question(
    name="bytes",
    lesson="10_parallelism",
    title="Bytes of a step",
    points=3,
    minutes=4,
    draw=_bytes_draw,
    ask=_bytes_ask,
    truth=_sent,
    why=lambda given: (
        "A ring of n sends 2 (n - 1)/n of all gradients from each."
        if given["kind"] == DATA
        else "Each micro-batch leaves as one activation: sequences x tokens x width numbers."
    ),
    slips=_bytes_slips,
    digits=1,
)

# ---- ranks -----------------------------------------------------------------------------------------------------------


def _rank_draw(random: Random) -> Given:
    shape = {kind: random.randint(2, 4) for kind in KINDS}
    return shape | {"rank": random.randrange(shape["dp"] * shape["pp"] * shape["tp"])}


def _place(given: Given) -> tuple[int, ...]:
    return place_of(given["rank"], [given[kind] for kind in KINDS])


RANK = Question(
    name="rank",
    lesson="10_parallelism",
    title="Where is the rank?",
    points=2,
    minutes=3,
    draw=_rank_draw,
    ask=lambda given: (
        f"A mesh with dp = {given['dp']}, pp = {given['pp']}, tp = {given['tp']}. Ranks run over tp first, then pp, "
        f"then dp, counted from 0. Which stage does rank {given['rank']} hold?"
    ),
    truth=lambda given: _place(given)[1],
    why=lambda given: (
        f"Rank {given['rank']} is replica {_place(given)[0]}, stage {_place(given)[1]}, part {_place(given)[2]}."
    ),
    slips=lambda given: [
        (_place(given)[0], "That is the replica."),
        (_place(given)[2], "That is the part of each layer."),
        (given["rank"] // given["tp"], "The replicas before it have stages too: take what is left by pp."),
    ],
)

QUESTIONS = (LATENCY, HANG, BYTES, RANK)
