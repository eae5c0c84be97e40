"""Exercise of lesson 6: which method, under a limit on memory?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import kind_of, numbers

GB = 10**9
NAMES = ("gpipe", "gpipe-recompute", "1f1b", "pipedream", "vertical-sync", "2bw")
_FLUSH = NAMES[:3]
_GIVEN = ("weights", "optimizer", "activations", "stage_input", "p", "m")
_PARTS = ("fits", "time", "staleness")


@dataclass(frozen=True)
class Method:
    """What one method asks of device 0, in bytes, what share of time it loses, and its mean staleness in updates."""

    name: str
    versions: int
    weights: float
    activations: float
    rest: float
    lost: float
    stale: float

    @property
    def total(self) -> float:
        """Bytes in all."""
        return self.weights + self.activations + self.rest


Change = Callable[[Method, Case], Method]


@dataclass(frozen=True)
class Answer:
    """``fits`` in the order of NAMES; the names are "none" where nothing fits. ``rated``: (lost time, staleness)."""

    fits: tuple[str, ...]
    fastest: str
    freshest: str
    rated: Mapping[str, tuple[float, float]]


def _slots(name: str, p: int, m: int) -> float:
    """How long a step takes with tF = tR = 1 and tB = 2; without a flush a step is m micro-batches of full work."""
    if name not in _FLUSH:
        return 3 * m
    return (4 if name == "gpipe-recompute" else 3) * m + 3 * (p - 1)


@reserved
def method(name: str, case: Case) -> Method | None:
    """What ``name`` asks for; None where it is not allowed."""
    p, m = case["_p"], case["_m"]
    if name == "2bw" and m < p:
        return None
    versions = {"pipedream": p, "vertical-sync": p, "2bw": 2}.get(name, 1)
    in_flight = m if name == "gpipe" else min(p, m) if name == "1f1b" else p
    held = in_flight * case["_activations"]
    if name == "gpipe-recompute":
        held = (m - 1) * case["_stage_input"] + case["_activations"]
    lost = 1 - 3 * m / _slots(name, p, m)
    stale = {"pipedream": (p - 1) / 2, "vertical-sync": p - 1, "2bw": 1}.get(name, 0)
    weights = case["_weights"]
    return Method(name, versions, versions * weights, held, weights + case["_optimizer"], lost, stale)


@reserved
def best(case: Case, limit: int, change: Change = lambda made, case: made) -> Answer:
    """What fits and which of it to take; ``change`` sees a method otherwise (to find out how an answer came about)."""
    methods = [change(made, case) for name in NAMES if (made := method(name, case)) is not None]
    fits = [made for made in methods if made.total <= limit]
    if not fits:
        return Answer((), "none", "none", {})
    fastest = min(fits, key=lambda made: (round(made.lost, 9), made.stale, made.total))
    freshest = min(fits, key=lambda made: (made.stale, round(made.lost, 9), made.total))
    rated = {made.name: (made.lost, made.stale) for made in fits}
    return Answer(tuple(rated), fastest.name, freshest.name, rated)


def _change(**rules: Callable[[Method, Case], float]) -> Change:
    def changed(made: Method, case: Case) -> Method:
        values = {field: rule(made, case) for field, rule in rules.items()}
        return Method(**{**made.__dict__, **values})

    return changed


def _flight(made: Method, case: Case) -> float:
    """Activations with m micro-batches in flight without a flush as well."""
    return case["_m"] * case["_activations"] if made.name not in _FLUSH[:2] else made.activations


_MISTAKES: list[tuple[Change, str]] = [
    (
        _change(weights=lambda made, case: case["_weights"]),
        "That is with one version of the weights for each method. Without a flush a device keeps older ones.",
    ),
    (
        _change(rest=lambda made, case: case["_optimizer"]),
        "That leaves the gradients out. They take as many bytes as one version of the weights.",
    ),
    (
        _change(rest=lambda made, case: made.weights + made.versions * case["_optimizer"]),
        "That keeps gradients and optimizer state for each version. There is one of each, for the newest.",
    ),
    (
        _change(rest=lambda made, case: case["_weights"] + made.versions * case["_optimizer"]),
        "That keeps the optimizer's state for each version. There is one, for the newest.",
    ),
    (
        _change(activations=_flight),
        "That has m micro-batches in flight on device 0. In 1F1B's order there are p of them, and fewer only where a "
        "flush comes first.",
    ),
    (
        _change(
            activations=lambda made, case: (
                case["_m"] * case["_stage_input"] if made.name == "gpipe-recompute" else made.activations
            )
        ),
        "With recomputation that counts the inputs alone. While a backward runs, its micro-batch has all activations.",
    ),
    (
        _change(
            activations=lambda made, case: (
                case["_m"] * case["_activations"] if made.name == "gpipe-recompute" else made.activations
            )
        ),
        "With recomputation only one micro-batch has all its activations at a time. The others keep their input.",
    ),
    (
        _change(
            activations=lambda made, case: (
                case["_p"] * case["_activations"] if made.name == "1f1b" else made.activations
            )
        ),
        "Under 1F1B a device has no more than m micro-batches in flight, and here m is below p.",
    ),
    (
        _change(weights=lambda made, case: (1 if made.name == "2bw" else made.versions) * case["_weights"]),
        "2BW keeps two versions: the newest, and the one that a batch is computed with.",
    ),
]


def _limits(case: Case, slack: int) -> list[int]:
    """Where answers change, right ones and often made ones: what methods need, and a little less."""
    methods = [made for name in NAMES if (made := method(name, case)) is not None]
    needed = {int(made.total) + slack for made in methods}
    taken = {int(change(made, case).total) + slack for made in methods for change, _ in _MISTAKES}
    return sorted({*needed, *(need - GB // 100 for need in needed), *taken})


def _cases(sizes: Sequence[tuple[float, float, float, float, int, int]], slack: int = 0) -> list[Case]:
    """Sizes in GB, each with several limits, ``slack`` bytes above where answers change."""
    made = []
    for w, o, a, x, p, m in sizes:
        words = (
            f"weights {w:g} GB, optimizer {o:g} GB, activations {a:g} GB with an input of {x:g} GB, p = {p}, m = {m}"
        )
        values = (*(round(size * GB) for size in (w, o, a, x)), p, m)
        given = {f"_{name}": value for name, value in zip(_GIVEN, values, strict=True)} | {"_words": words}
        made += [Case(part, {**given, "_limits": _limits(Case(part, given), slack)}) for part in _PARTS]
    return made


def _drawn(random: Random) -> list[Case]:
    sizes = []
    for p in (2, 3, 4, random.randint(2, 8), random.randint(4, 8)):
        m = random.choice((random.randint(1, p), p, random.randint(p, 4 * p), random.randint(p, 4 * p)))
        weights, activations = random.randint(1, 60) / 10, random.randint(4, 60) / 10
        optimizer, stage_input = weights * random.choice((0, 2, 4)), activations / random.choice((4, 10, 20))
        sizes.append((weights, optimizer, activations, stage_input, p, m))
    return _cases(sizes, slack=1000)  # whoever counts in GB rounds


def _ask(call: Call, case: Case) -> Any:
    given = [case[f"_{name}"] for name in _GIVEN]
    return [call("choose_method", *given, limit) for limit in case["_limits"]]


def _read(case: Case, data: Any) -> Answer:
    if not isinstance(data, list) or len(data) != 3:
        raise Refused(
            f"{case.words}: choose_method should return a dictionary and two names; it returned {kind_of(data)}"
        )
    names = data[0]
    if not isinstance(names, dict) or names.keys() & {"set", "tensor", "other", "csv"}:
        raise Refused(f"{case.words}: the first thing should be a dictionary, it is {kind_of(names)}")
    allowed = f"the names are {', '.join(NAMES)}"
    for name in names:
        if name not in NAMES:
            raise Refused(f"{case.words}: {kind_of(name)} is among the names that fit, and {allowed}")
    for name in data[1:]:
        if name not in (*NAMES, "none"):
            raise Refused(f"{case.words}: one choice is {kind_of(name)}, and {allowed}, or 'none'")
    rated = {}
    for name, pair in names.items():
        lost, stale = numbers(pair, f"{case.words}: what the dictionary says of {name}", 2)
        rated[name] = (lost, stale)
    return Answer(tuple(name for name in NAMES if name in names), data[1], data[2], rated)


def _judge(case: Case, data: Any) -> Finding | None:
    limits = case["_limits"]
    if not isinstance(data, list) or len(data) != len(limits):
        raise Refused(f"{case.words}: there should be an answer for each of {len(limits)} limits")
    given = [_read(case, answer) for answer in data]
    truth = [best(case, limit) for limit in limits]
    field = {"fits": "fits", "time": "fastest", "staleness": "freshest"}[case.part]
    pairs = [(getattr(mine, field), getattr(right, field)) for mine, right in zip(given, truth, strict=True)]
    wrong = next((k for k, (mine, wanted) in enumerate(pairs) if mine != wanted), None)
    if wrong is None:
        return None if case.part == "fits" else _wrong_rating(case, given, truth)
    start = f"{case.words}, limit {limits[wrong] / GB:g} GB: "
    if case.part != "fits":
        return Finding(start + _wrong_choice(case, limits[wrong], *pairs[wrong]))
    start += f"for you these fit: {_listed(given[wrong].fits)}. "
    for change, why in _MISTAKES:
        if all(mine.fits == best(case, limit, change).fits for mine, limit in zip(given, limits, strict=True)):
            start += why + " "
            break
    return Finding(start + _told(case, limits[wrong], _first(given[wrong], truth[wrong])))


def _wrong_rating(case: Case, given: Sequence[Answer], truth: Sequence[Answer]) -> Finding | None:
    """The first method whose lost time or staleness is given wrong."""
    k, what = (0, "lost time") if case.part == "time" else (1, "mean staleness")
    for mine, right in zip(given, truth, strict=True):
        for name in right.rated:
            if name in mine.rated and abs(mine.rated[name][k] - right.rated[name][k]) > 1e-6:
                start = f"{case.words}: the {what} of {name} is {right.rated[name][k]:.4g}, you say "
                return Finding(start + f"{mine.rated[name][k]:.4g}. {_how(case, name, k)}")
    return None


def _how(case: Case, name: str, k: int) -> str:
    p, m = case["_p"], case["_m"]
    if name in _FLUSH:
        if k:
            return "With a flush the weights that change are those that the gradient was taken at."
        return f"A step takes {_slots(name, p, m)} units, of which {3 * m} are forwards and backwards."
    if not k:
        return "The pipeline is full all the time, and nothing is recomputed."
    return {
        "pipedream": f"Stage s is behind by p - 1 - s updates: {', '.join(str(p - 1 - s) for s in range(p))}.",
        "vertical-sync": "All stages are as far behind as stage 0.",
    }.get(name, "Each batch is computed with the version before the newest.")


def _first(given: Answer, right: Answer) -> str:
    return next(name for name in NAMES if (name in given.fits) != (name in right.fits))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _told(case: Case, limit: int, name: str) -> str:
    """What the method needs, term by term, and whether that fits."""
    made = method(name, case)
    if made is None:
        return f"2BW needs m >= p, and here m = {case['_m']} and p = {case['_p']}."
    fits = "fits" if made.total <= limit else "does not fit"
    count = f"{made.versions} version{'s' * (made.versions > 1)} of the weights"
    return (
        f"{name} keeps {count}, {made.weights / GB:.4g} GB, and {made.activations / GB:.4g} GB of activations on "
        f"device 0. Gradients and optimizer take {made.rest / GB:.4g} GB. That is {made.total / GB:.4g} GB, and it "
        f"{fits}."
    )


def _wrong_choice(case: Case, limit: int, mine: str, wanted: str) -> str:
    time, right = case.part == "time", best(case, limit)
    start = f"{'to lose the least time' if time else 'for the least staleness'} you choose {mine}. "
    if wanted == "none":
        return f"{start}Nothing fits. {_told(case, limit, mine)}"
    if mine == "none":
        return f"{start}But {wanted} fits. {_told(case, limit, wanted)}"
    if mine not in right.fits:
        return start + _told(case, limit, mine)
    chosen, better = method(mine, case), method(wanted, case)
    assert chosen is not None
    assert better is not None
    lost = f"{mine} loses {chosen.lost:.1%} of total device time, {wanted} {better.lost:.1%}. "
    stale = f"The mean staleness of {mine} is {chosen.stale:g}, that of {wanted} {better.stale:g}. "
    told = [lost, stale] if time else [stale, lost]
    if "gpipe-recompute" in (mine, wanted) and time:
        told.append("Recomputing is no idle time, but it is not the work that was asked for either. ")
    if round(chosen.lost, 9) == round(better.lost, 9) and chosen.stale == better.stale:
        told.append(
            f"Both are equal, so the fewer bytes decide: {wanted} needs {better.total / GB:.4g} GB, {mine} needs "
            f"{chosen.total / GB:.4g} GB. After that the order of the list decides."
        )
    elif mine in ("pipedream", "vertical-sync", "2bw") and wanted in ("pipedream", "vertical-sync", "2bw"):
        told.append("No device idles without a flush, so here staleness decides. Count it as a mean over the stages.")
    return start + "".join(told).rstrip()


EXERCISE = Exercise(
    name="under_a_limit",
    lesson="06b_worth_it",
    title="Which method fits?",
    answers=("choose_method",),
    parts={"fits": 2, "time": 1, "staleness": 1},
    visible=_cases(
        [
            (1, 0, 1.5, 0.1, 2, 2),
            (1, 2, 1.5, 0.1, 2, 1),
            (1, 2, 1, 0.1, 2, 4),
            (1, 2, 1, 0.1, 3, 3),
            (4, 8, 1, 0.1, 4, 8),
            (0.5, 1, 4, 0.2, 4, 8),
            (0.5, 1, 4, 0.2, 4, 3),
        ]
    ),
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
