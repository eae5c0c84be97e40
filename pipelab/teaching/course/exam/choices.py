"""Questions on memory, m, weight versions and cuts: lessons 1, 5 to 6b, and 8."""

from __future__ import annotations

from random import Random

from pipelab.schedules import build_schedule
from pipelab.simulation import Costs, simulate
from pipelab.teaching.course.exam.question import Given, Question, Slip
from pipelab.teaching.exercises.lesson_01.must_fit import per_parameter
from pipelab.teaching.exercises.lesson_05.best_m import best_of, makespan
from pipelab.teaching.exercises.lesson_06.version_number import METHODS, used
from pipelab.teaching.exercises.lesson_08.cuts import best_sizes, even, filled, times

__all__ = ["QUESTIONS"]

# ---- what must fit ---------------------------------------------------------------------------------------------------

OPTIMIZERS = {"Adam": 2, "SGD with momentum": 1, "plain SGD": 0}


def _states_draw(random: Random) -> Given:
    size, devices = random.choice((7, 13, 30, 70, 175)), random.choice((4, 8, 16, 32))
    return {"billions": size, "p": devices, "optimizer": random.choice(list(OPTIMIZERS))}


def _gigabytes(given: Given, each: float) -> float:
    return float(given["billions"] * each / given["p"])


def _states_slips(given: Given) -> list[Slip]:
    each = per_parameter(OPTIMIZERS[given["optimizer"]])
    return [
        (_gigabytes(given, 2), "These are the 16-bit weights alone."),
        (_gigabytes(given, 4), "These are weights and gradients alone."),
        (_gigabytes(given, each - 2), "The gradients are missing."),
        (_gigabytes(given, each - 4), "The master copy in 32 bits is missing."),
        (_gigabytes(given, 16), "That is with Adam's two moments."),
        (_gigabytes(given, each) * 1e9 / 2**30, "That is in GiB. Here GB are asked for, of 10^9 bytes."),
        (_gigabytes(given, each) * given["p"], "That is the whole model. A device has a part of it."),
    ]


STATES = Question(
    name="states",
    lesson="01_four_devices",
    title="What must fit?",
    points=2,
    minutes=3,
    draw=_states_draw,
    ask=lambda given: (
        f"A model of {given['billions']} billion parameters is cut evenly over p = {given['p']} devices. It is trained "
        f"in mixed precision by {given['optimizer']}: 16-bit weights and gradients, a 32-bit master copy, 32-bit "
        "moments. How many GB (10^9 bytes) does a device need for these?"
    ),
    truth=lambda given: _gigabytes(given, per_parameter(OPTIMIZERS[given["optimizer"]])),
    why=lambda given: (
        f"{given['optimizer']} needs {per_parameter(OPTIMIZERS[given['optimizer']])} bytes a parameter: 2 + 2 + 4, and "
        f"4 for each of {OPTIMIZERS[given['optimizer']]} moments."
    ),
    slips=_states_slips,
    digits=1,
)

# ---- m* --------------------------------------------------------------------------------------------------------------


def _star_draw(random: Random) -> Given:
    beta = random.randint(1, 6)
    return {
        "p": random.randint(3, 8),
        "batch": random.choice((64, 96, 128, 256)),
        "alpha": beta * random.choice((1, 2, 3, 5, 8)),
        "beta": beta,
    }


def _best(given: Given, **changed: int) -> int:
    return best_of(
        **{"p": given["p"], "batch": given["batch"], "alpha": given["alpha"], "beta": given["beta"]} | changed
    )


def _as_good(given: Given, m: float) -> bool:
    """Within a hundredth of the shortest step: the bottom is flat."""
    costs = given["p"], given["batch"], given["alpha"], given["beta"]
    return 1 <= m <= given["batch"] and makespan(m, *costs) <= 1.01 * makespan(_best(given), *costs)


STAR = Question(
    name="star",
    lesson="05_choosing_m",
    title="The best m",
    points=3,
    minutes=4,
    draw=_star_draw,
    ask=lambda given: (
        f"1F1B, p = {given['p']}, a batch of {given['batch']} sequences. Forward and backward of b sequences together "
        f"take t(b) = {given['alpha']} + {given['beta']} b ms on each device. Messages are free, and m need not divide "
        "the batch. Which m makes the step shortest?"
    ),
    truth=_best,
    why=lambda given: "T(m) = (m + p - 1)(alpha + beta B/m) is least at the square root of (p - 1) beta B / alpha.",
    slips=lambda given: [
        (_best(given, p=given["p"] + 1), "That is with p in place of p - 1."),
        (round(given["batch"] ** 0.5), "That is the square root of the batch, without the factor."),
        (4 * given["p"], "That is the rule of thumb, 4p."),
        (given["batch"], "With so many micro-batches the fixed cost is paid too often."),
        (_best(given, alpha=given["beta"], beta=given["alpha"]), "Alpha and beta are exchanged."),
    ],
    good=_as_good,
)

# ---- what fits -------------------------------------------------------------------------------------------------------


def _fits_draw(random: Random) -> Given:
    p = random.randint(3, 6)
    batch = 4 * p * random.randint(2, 4)
    limit = batch // random.choice((2, 4))
    return {"p": p, "batch": batch, "limit": limit, "alpha": random.choice((1, 4, 12)), "beta": random.randint(1, 3)}


def _options(given: Given) -> dict[str, tuple[str, int]]:
    p = given["p"]
    pairs = [("gpipe", 4 * p), ("1f1b", p), ("1f1b", 2 * p), ("1f1b", 4 * p)]
    return {f"{name}, m = {m}": (name, m) for name, m in pairs}


def _step(given: Given, name: str, m: int) -> tuple[float, float]:
    """(time of a step, sequences held on the fullest device)."""
    each = (given["alpha"] + given["beta"] * given["batch"] / m) / 2
    run = simulate(build_schedule(name, given["p"], m), Costs(forward=each, backward=each), batch=given["batch"])
    return run.makespan, max(run.peak_sequences)


def _rank(given: Given, shown: str) -> tuple[bool, float]:
    """(does not fit, time): the least is best."""
    time, held = _step(given, *_options(given)[shown])
    return held > given["limit"], time


def _fastest(given: Given) -> str:
    return min(_options(given), key=lambda shown: _rank(given, shown))


def _fits_slips(given: Given) -> list[Slip]:
    right, slips = _fastest(given), list[Slip]()
    least, _ = _step(given, *_options(given)[right])
    for shown, pair in _options(given).items():
        time, held = _step(given, *pair)
        if held > given["limit"]:
            slips.append((shown, f"It holds {held:g} sequences on device 0, and does not fit."))
        elif shown != right:
            slips.append((shown, f"It fits, and takes {time:g} ms against {least:g}."))
    return slips


FITS = Question(
    name="fits",
    lesson="05b_memory_wall",
    title="The fastest that fits",
    points=3,
    minutes=5,
    draw=_fits_draw,
    ask=lambda given: (
        f"p = {given['p']}, a batch of {given['batch']} sequences. Forward and backward of b sequences together take "
        f"{given['alpha']} + {given['beta']} b ms on each device. A device can keep activations of {given['limit']} "
        "sequences. Which of these is the fastest that fits?"
    ),
    truth=_fastest,
    why=lambda given: (
        "At a fixed batch GPipe holds all of it, and 1F1B p/m of it on device 0. "
        "Of what fits, the least (m + p - 1) t(B/m) is fastest."
    ),
    slips=_fits_slips,
    good=lambda given, shown: _rank(given, shown) == _rank(given, _fastest(given)),
    options=lambda given: list(_options(given)),
)

# ---- weight versions -------------------------------------------------------------------------------------------------


def _version_draw(random: Random) -> Given:
    p = random.randint(3, 6)
    every = p + random.randint(0, 3)
    stage, number = random.randrange(p - 1), random.randint(p, 4 * every)
    return {"method": random.choice(list(METHODS)), "p": p, "_every": every, "stage": stage, "micro-batch": number}


def _version(given: Given) -> int:
    return used(given["method"], given["p"], given["_every"], given["micro-batch"] + 1)[given["stage"]][
        given["micro-batch"]
    ]


def _rule(given: Given) -> str:
    return {
        "pipedream": "PipeDream's stage s is p - 1 - s updates behind, for as many micro-batches are in flight there.",
        "vertical-sync": "Under vertical sync all stages use what stage 0 used, which is p - 1 updates behind.",
        "2bw": "2BW makes one update per batch, and batch t uses version t - 1.",
    }[given["method"]]


VERSION = Question(
    name="version",
    lesson="06_without_a_flush",
    title="Which version of the weights?",
    points=3,
    minutes=4,
    draw=_version_draw,
    ask=lambda given: (
        f"{METHODS[given['method']]}, p = {given['p']}"
        + (f", one update for every {given['_every']} micro-batches" if given["method"] == "2bw" else "")
        + ". Stages, micro-batches and versions are counted from 0. Version k comes with the k-th update. "
        + f"Which version "
        f"does stage {given['stage']} use for micro-batch {given['micro-batch']}?"
    ),
    truth=_version,
    why=_rule,
    slips=lambda given: [
        (given["micro-batch"], "That is the newest version of a run without a pipeline."),
        (_version({**given, "method": "pipedream"}), "That is PipeDream's."),
        (_version({**given, "method": "vertical-sync"}), "That is vertical sync's."),
        (given["micro-batch"] // given["_every"], "That is the batch. Its version is one update older."),
    ],
)

# ---- cuts ------------------------------------------------------------------------------------------------------------


def _cut_draw(random: Random) -> Given:
    costs = [random.randint(1, 4) for _ in range(random.randint(7, 9))]
    costs[random.choice((0, -1))] = random.randint(6, 9)
    return {"p": random.randint(3, 4), "costs": costs}


def _busiest(given: Given, sizes: list[int]) -> float:
    return max(times(given["costs"], sizes))


def _cut_slips(given: Given) -> list[Slip]:
    costs, p = given["costs"], given["p"]
    shares = [sum(costs) / p] * p
    slips: list[Slip] = [(_busiest(given, sizes), "That is a cut into equal numbers.") for sizes in even(len(costs), p)]
    greedy = [_busiest(given, filled(costs, shares, over=over)) for over in (False, True)]
    return [*slips, *((time, "That is what a greedy walk finds.") for time in greedy)]


CUT = Question(
    name="cut",
    lesson="08_where_to_cut",
    title="Where to cut",
    points=3,
    minutes=5,
    draw=_cut_draw,
    ask=lambda given: (
        f"Layers cost {', '.join(map(str, given['costs']))}, in this order. They are cut into p = {given['p']} stages. "
        "What is the least possible cost of the busiest stage?"
    ),
    truth=lambda given: _busiest(given, best_sizes(given["costs"], [1.0] * given["p"])),
    why=lambda given: f"One such cut has {best_sizes(given['costs'], [1.0] * given['p'])} layers.",
    slips=_cut_slips,
)

QUESTIONS = (STATES, STAR, FITS, VERSION, CUT)
