"""Questions on timetables, bubbles and what is in flight: lessons 1b to 4b, and 7."""

from __future__ import annotations

from random import Random

from pipelab.schedules import Action, Schedule, build_schedule
from pipelab.schedules.action import actions_of
from pipelab.simulation import Costs, simulate
from pipelab.teaching.course.exam.question import Given, Question, Slip
from pipelab.teaching.exercises.lesson_02.bubbles import least
from pipelab.timeline import Timeline

__all__ = ["QUESTIONS"]

NAMES = {"gpipe": "GPipe", "1f1b": "1F1B", "interleaved": "interleaved 1F1B"}


def _table(given: Given) -> Schedule:
    return build_schedule(given["schedule"], given["p"], given["m"], given.get("v"))


def _run(given: Given, **costs: float) -> Timeline:
    return simulate(_table(given), Costs(**{"forward": given.get("tF", 1), "backward": given.get("tB", 1), **costs}))


def _who(given: Given) -> str:
    chunks = f", v = {given['v']}" if "v" in given else ""
    return f"{NAMES[given['schedule']]}, p = {given['p']}, m = {given['m']}{chunks}"


def _shape(random: Random, *names: str) -> Given:
    p = random.randint(3, 8)
    m = random.choice([m for m in range(p, 4 * p) if m != p])
    return {"schedule": random.choice(names), "p": p, "m": m}


# ---- bubble ----------------------------------------------------------------------------------------------------------


def _bubble_slips(given: Given) -> list[Slip]:
    p, m, run = given["p"], given["m"], _run(given)
    return [
        (100 * run.bubble_ratio, "That is idle over busy time, the bubble ratio."),
        (100 * run.utilisation, "That is the busy share."),
        (100 * p / (m + p), "That counts p in place of p - 1: a device does not wait for itself."),
        (100 * (p - 1) / p, "That is the naive pipeline's."),
        (run.bubble_fraction, "That is not in per cent."),
    ]


BUBBLE = Question(
    name="bubble",
    lesson="02_gpipe",
    title="The bubble",
    points=2,
    minutes=3,
    draw=lambda random: _shape(random, "gpipe", "1f1b"),
    ask=lambda given: f"{_who(given)}, messages free. Which percentage of total device time is idle?",
    truth=lambda given: 100 * _run(given).bubble_fraction,
    why=lambda given: (
        f"Each device waits for {given['p'] - 1} micro-batches and works on {given['m']}: "
        f"{given['p'] - 1}/{given['m'] + given['p'] - 1} of the time is idle, under GPipe and 1F1B alike."
    ),
    slips=_bubble_slips,
    digits=1,
)

# ---- makespan --------------------------------------------------------------------------------------------------------


def _makespan_draw(random: Random) -> Given:
    p, v = random.randint(3, 6), random.choice((2, 3))
    name = random.choice(("gpipe", "1f1b", "interleaved"))
    m = p * random.randint(2, 4) if name == "interleaved" else random.randint(p + 1, 4 * p)
    chunks = {"v": v} if name == "interleaved" else {}
    return {"schedule": name, "p": p, "m": m, **chunks, "tF": random.randint(1, 4) * v, "tB": random.randint(2, 6) * v}


def _makespan_slips(given: Given) -> list[Slip]:
    p, m, v, each = given["p"], given["m"], given.get("v", 1), given["tF"] + given["tB"]
    return [
        (m * each, "That is the work alone: the pipeline fills and drains too."),
        ((m + p) * each, "That counts p in place of p - 1."),
        ((m + p - 1) * each, "That is without interleaving."),
        (p * m * each, "That is the naive pipeline's."),
        ((m + (p - 1) / v) * given["tF"], "The backwards are missing."),
    ]


MAKESPAN = Question(
    name="makespan",
    lesson="04_interleaved",
    title="How long is a step?",
    points=2,
    minutes=3,
    draw=_makespan_draw,
    ask=lambda given: (
        f"{_who(given)}. A device's whole share takes tF = {given['tF']} forward and tB = {given['tB']} backward for a "
        "micro-batch. Messages are free. How many units does a step take?"
    ),
    truth=lambda given: _run(given).makespan,
    why=lambda given: (
        f"m (tF + tB) is work, and (p - 1)(tF + tB){' / v' if 'v' in given else ''} is the wait while the pipeline "
        "fills and drains."
    ),
    slips=_makespan_slips,
)

# ---- slots -----------------------------------------------------------------------------------------------------------


def _slot_draw(random: Random) -> Given:
    p = random.randint(3, 6)
    m = random.randint(p + 1, 2 * p + 2)
    return {"schedule": "1f1b", "p": p, "m": m, "device": random.randrange(p - 1), "micro-batch": random.randrange(p)}


def _backward(given: Given) -> Action:
    return Action(given["device"], "B", given["micro-batch"])


def _slot(given: Given) -> float:
    return next(span.start for span in _run(given).on_device(given["device"]) if span.slot == _backward(given))


SLOT = Question(
    name="slot",
    lesson="03_one_f_one_b",
    title="In which slot?",
    points=3,
    minutes=5,
    draw=_slot_draw,
    ask=lambda given: (
        f"{_who(given)}, tF = tB = 1, slots counted from 0. In which slot does device {given['device']} run the "
        f"backward of micro-batch {given['micro-batch']}, {_backward(given)}?"
    ),
    truth=_slot,
    why=lambda given: (
        "The last device runs the forward of micro-batch i at p - 1 + 2i and its backward one slot later. "
        "From there the gradient goes back one device in each slot."
    ),
    slips=lambda given: [
        (_slot(given) + 1, "One too many: slots are counted from 0."),
        (_slot(given) - 1, "One too few: its forward on the last device takes a slot too."),
        (
            _slot(given) - given["micro-batch"],
            "On the last device a forward and a backward come in turn: two slots each.",
        ),
    ],
)

# ---- warm-up ---------------------------------------------------------------------------------------------------------


def _first_draw(random: Random) -> Given:
    p = random.randint(4, 9)
    return {"schedule": "1f1b", "p": p, "m": random.randint(p, 3 * p), "device": random.randrange(p)}


def _first(given: Given) -> int:
    ops = [action.op for slot in _table(given).programs[given["device"]] for action in actions_of(slot)]
    return ops.index("B")


FIRST = Question(
    name="first",
    lesson="03_one_f_one_b",
    title="How many forwards first?",
    points=2,
    minutes=2,
    draw=_first_draw,
    ask=lambda given: f"{_who(given)}. How many forwards does device {given['device']} run before its first backward?",
    truth=_first,
    why=lambda given: (
        f"The warm-up has p - 1 - r = {given['p'] - 1 - given['device']} forwards, and the first pair begins with one "
        "more. From then on it holds p - r micro-batches at the most."
    ),
    slips=lambda given: [
        (given["p"] - 1 - given["device"], "That is the warm-up. The forward of the first pair comes before it too."),
        (given["p"] - 1, "That is device 0's warm-up."),
        (given["m"], "That is GPipe's."),
    ],
)

# ---- in flight -------------------------------------------------------------------------------------------------------


def _held_draw(random: Random) -> Given:
    p = random.randint(3, 8)
    m = random.choice((2, 4)) * p
    name = random.choice(("gpipe", "1f1b", "1f1b"))
    return {"schedule": name, "p": p, "m": m, "batch": m * random.randint(2, 6), "device": random.randrange(p)}


def _held(given: Given) -> float:
    return simulate(_table(given), batch=given["batch"]).peak_sequences[given["device"]]


HELD = Question(
    name="held",
    lesson="03b_beside_gpipe",
    title="What is held?",
    points=2,
    minutes=3,
    draw=_held_draw,
    ask=lambda given: (
        f"{_who(given)}, a batch of {given['batch']} sequences. Of how many sequences, at the most, does device "
        f"{given['device']} keep activations at one time?"
    ),
    truth=_held,
    why=lambda given: (
        "GPipe holds all micro-batches, which is the whole batch whatever m."
        if given["schedule"] == "gpipe"
        else f"1F1B's device r holds p - r = {given['p'] - given['device']} micro-batches of B/m sequences at most."
    ),
    slips=lambda given: [
        (given["batch"], "That is the whole batch, as under GPipe."),
        (given["p"] - given["device"], "These are micro-batches. Sequences are asked for."),
        (given["p"] * given["batch"] / given["m"], "That is device 0's."),
        ((given["p"] - given["device"] - 1) * given["batch"] / given["m"], "One micro-batch is missing."),
    ],
)

# ---- the least m -----------------------------------------------------------------------------------------------------

LEAST = Question(
    name="least",
    lesson="02b_gradient_and_memory",
    title="Enough micro-batches",
    points=2,
    minutes=3,
    draw=lambda random: {"p": random.randint(3, 12), "percent": random.choice((75, 80, 85, 90, 95))},
    ask=lambda given: (
        f"GPipe on p = {given['p']} devices. Which m is the least for which devices are busy for at least "
        f"{given['percent']} % of the time?"
    ),
    truth=lambda given: least(given["p"], given["percent"]),
    why=lambda given: "m/(m + p - 1) must reach the percentage, so m is (p - 1) times busy over idle, rounded up.",
    slips=lambda given: [
        (least(given["p"] + 1, given["percent"]), "That is with p in place of p - 1."),
        (least(given["p"], 90), "That is enough for 90 %."),
        (4 * given["p"], "That is the rule of thumb, 4p."),
    ],
)

# ---- chunks ----------------------------------------------------------------------------------------------------------


def _place_draw(random: Random) -> Given:
    p, v = random.randint(3, 6), random.choice((2, 3))
    layers = p * v * random.randint(2, 4)
    return {"p": p, "v": v, "layers": layers, "layer": random.randrange(layers)}


def _stage(given: Given) -> int:
    return int(given["layer"] // (given["layers"] // (given["p"] * given["v"])))


PLACE = Question(
    name="place",
    lesson="04_interleaved",
    title="Where does the layer live?",
    points=2,
    minutes=2,
    draw=_place_draw,
    ask=lambda given: (
        f"Interleaved 1F1B, p = {given['p']}, v = {given['v']}. {given['layers']} layers, counted from 0, are cut "
        f"evenly into stages. On which device is layer {given['layer']}?"
    ),
    truth=lambda given: build_schedule("interleaved", given["p"], given["p"], given["v"]).placement[_stage(given)][0],
    why=lambda given: f"Layer {given['layer']} is in stage {_stage(given)}, and stages are dealt round: s mod p.",
    slips=lambda given: [
        (_stage(given) // given["v"], "That is with neighbouring chunks on a device."),
        (_stage(given), "That is the stage."),
        (_stage(given) // given["p"], "That is the chunk."),
    ],
)


def _messages_draw(random: Random) -> Given:
    p, v = random.randint(3, 6), random.choice((2, 3))
    name = random.choice(("1f1b", "interleaved"))
    return {"schedule": name, "p": p, "m": p * random.randint(1, 3)} | ({"v": v} if name == "interleaved" else {})


MESSAGES = Question(
    name="messages",
    lesson="04b_what_it_costs",
    title="Messages of a step",
    points=2,
    minutes=2,
    draw=_messages_draw,
    ask=lambda given: f"{_who(given)}. How many messages, activations and gradients, are sent in a step?",
    truth=lambda given: _run(given).message_count,
    why=lambda given: "Each micro-batch crosses each of the p v - 1 borders between stages, once each way.",
    slips=lambda given: [
        (_run(given).message_count / 2, "Gradients come back too."),
        (2 * given["m"] * (given["p"] - 1), "That is with one stage on each device."),
        (2 * given["m"] * given["p"] * given.get("v", 1), "Behind the last stage nothing is sent."),
        (2 * (given["p"] * given.get("v", 1) - 1), "That is for one micro-batch."),
    ],
)

# ---- zero bubble -----------------------------------------------------------------------------------------------------


def _zero_draw(random: Random) -> Given:
    p, tW = random.randint(3, 6), random.randint(1, 3)
    tF, tI = tW + random.randint(0, 2), tW + random.randint(0, 2)
    return {"schedule": "zb-h1", "p": p, "m": random.randint(2, 4) * p, "tF": tF, "tI": tI, "tW": tW}


def _zero(given: Given) -> float:
    half = {"input_gradient": given["tI"], "weight_gradient": given["tW"]}
    return _run(given, backward=given["tI"] + given["tW"], **half).makespan


ZERO = Question(
    name="zero",
    lesson="07_zero_bubble",
    title="The bubble filled with W",
    points=3,
    minutes=4,
    draw=_zero_draw,
    ask=lambda given: (
        f"ZB-H1, p = {given['p']}, m = {given['m']}, tF = {given['tF']}, tI = {given['tI']}, tW = {given['tW']}, "
        "messages free. How many units does a step take?"
    ),
    truth=_zero,
    why=lambda given: "m (tF + tI + tW) is work, and (p - 1)(tF + tI - tW) of the wait is left: W fills the rest.",
    slips=lambda given: [
        (_zero({**given, "schedule": "1f1b"}), "That is 1F1B's: no W has moved."),
        (given["m"] * (given["tF"] + given["tI"] + given["tW"]), "That is the work alone. ZB-H1 leaves a bubble."),
    ],
)

QUESTIONS = (BUBBLE, MAKESPAN, SLOT, FIRST, HELD, LEAST, PLACE, MESSAGES, ZERO)
