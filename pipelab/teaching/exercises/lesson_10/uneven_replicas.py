"""Exercise of lesson 10: the gradient of replicas of unequal size, reduced and clipped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, kind_of

if TYPE_CHECKING:
    from torch import Tensor, nn

_UNEVEN, _PADDED, _CLIPPED = "uneven replicas", "padding", "clipping"
_TOKENS, _WORDS, _WIDE = 5, 7, 4  # of a sequence; in the vocabulary; width of an activation
IGNORED = -100

Gradients = list[list["Tensor"]]
"""A gradient for each parameter of each stage."""


def _case(part: str, seed: int, sizes: Sequence[int], terms: Sequence[int] = (), limit: float | None = None) -> Case:
    """``sizes``: sequences of each replica. ``terms``: how many of their targets count, all where nothing is said."""
    count = [size * _TOKENS for size in sizes]
    words = f"{' and '.join(map(str, sizes))} sequences"
    words += f", {' and '.join(map(str, terms))} terms of the loss" if terms else ""
    words += f", limit {limit:g}" if limit else ""
    given = {"_seed": seed, "_sizes": list(sizes), "_terms": list(terms or count), "_limit": limit}
    return Case(part, {**given, "_words": words})


def _drawn(random: Random) -> list[Case]:
    cases = []
    for part in (_UNEVEN, _PADDED, _CLIPPED) * 3:
        sizes = [random.randint(1, 6) for _ in range(random.randint(2, 4))]
        terms = [random.randint(0, size * _TOKENS) for size in sizes]
        terms[-1] = max(terms[-1], 1)
        limit = random.choice((0.05, 0.2, 1.0, 50.0)) if part == _CLIPPED else None
        cases.append(_case(part, random.randint(100, 10**6), sizes, terms if part == _PADDED else (), limit))
    return cases


def _material(case: Case) -> tuple[list[nn.Module], list[tuple[Tensor, Tensor]]]:
    """Two stages in float64, and (inputs, targets) of each replica: the asker and the judge make their own."""
    import torch

    generator = torch.Generator().manual_seed(case["_seed"])
    stages: list[nn.Module] = [
        torch.nn.Sequential(torch.nn.Embedding(_WORDS, 3), torch.nn.Linear(3, _WIDE), torch.nn.Tanh()).double(),
        torch.nn.Linear(_WIDE, _WORDS).double(),
    ]
    with torch.no_grad():
        for parameter in _parameters(stages):
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    batches = []
    for size, terms in zip(case["_sizes"], case["_terms"], strict=True):
        inputs, targets = torch.randint(_WORDS, (2, size, _TOKENS), generator=generator)
        targets.view(-1)[torch.randperm(size * _TOKENS, generator=generator)[terms:]] = IGNORED
        batches.append((inputs, targets))
    return stages, batches


def _parameters(stages: Sequence[nn.Module]) -> list[nn.Parameter]:
    return [parameter for stage in stages for parameter in stage.parameters()]


def _gradient(stages: Sequence[nn.Module], inputs: Tensor, targets: Tensor) -> list[Tensor]:
    """Of the mean over all targets that count, by autograd."""
    import torch

    scores = stages[1](stages[0](inputs)).flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(scores, targets.flatten(), ignore_index=IGNORED)
    return list(torch.autograd.grad(loss, _parameters(stages)))


def _by_stage(stages: Sequence[nn.Module], gradient: Sequence[Tensor]) -> Gradients:
    rest = iter(gradient)
    return [[next(rest) for _ in stage.parameters()] for stage in stages]


def _ask(call: Call, case: Case) -> Any:
    import torch

    stages, batches = _material(case)
    made = [[*_gradient(stages, *batch), batch[1]] for batch in batches]
    given = [[tensor.clone() for tensor in replica] for replica in made]
    limit = math.inf if case["_limit"] is None else case["_limit"]
    gradients, targets = [_by_stage(stages, replica) for replica in given], [replica[-1] for replica in given]
    found = call("reduce_gradients", gradients, targets, limit, _keep=False)
    for before, after in zip(made, given, strict=True):
        if not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            raise Refused(f"{case.words}: reduce_gradients changed its arguments. Make new tensors instead.")
    return found


def _flat(gradient: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat([one.flatten() for one in gradient])


def _read(case: Case, data: Any) -> list[Tensor]:
    """The learner's gradients as tensors. Raises Refused where a stage, a parameter or a number is missing."""
    import torch

    stages, _ = _material(case)
    what = f"{case.words}: reduce_gradients"
    listed = as_lists(data)
    if not isinstance(listed, list):
        raise Refused(f"{what} should return a list of gradients for each stage, it returned {kind_of(data)}")
    if len(listed) != len(stages):
        raise Refused(f"{what} should return {len(stages)} lists, one for each stage; it returned {len(listed)}")
    found = []
    for number, (stage, given) in enumerate(zip(stages, listed, strict=True)):
        shapes = [parameter.shape for parameter in stage.parameters()]
        if not isinstance(given, list) or len(given) != len(shapes):
            raise Refused(f"{what} should return {len(shapes)} gradients for stage {number}, one for each parameter")
        for shape, one in zip(shapes, given, strict=True):
            try:
                made = torch.tensor(one, dtype=torch.float64)
            except (TypeError, ValueError, RuntimeError):
                raise Refused(f"{what}: a gradient of stage {number} is {kind_of(one)}, not a tensor") from None
            if made.shape != shape:
                raise Refused(
                    f"{what}: a gradient of stage {number} has shape {list(made.shape)} instead of {list(shape)}"
                )
            found.append(made)
    return found


def _norm(gradient: Sequence[Tensor]) -> float:
    return float(_flat(gradient).norm())


@reserved
def unsplit(case: Case) -> list[Tensor]:
    """The gradient of the whole batch in one piece, clipped as one."""
    import torch

    stages, batches = _material(case)
    inputs, targets = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    gradient = _gradient(stages, inputs, targets)
    return _clipped(gradient, case["_limit"])


def _clipped(gradient: Sequence[Tensor], limit: float | None, norm: float | None = None) -> list[Tensor]:
    """``gradient``, made smaller where ``norm`` (its own, if none is given) is above the limit."""
    norm = _norm(gradient) if norm is None else norm
    scale = 1.0 if limit is None or norm <= limit else limit / norm
    return [one * scale for one in gradient]


def _judge(case: Case, data: Any) -> Finding | None:
    given, wanted = _read(case, data), unsplit(case)
    if _near(given, wanted, case):
        return None
    start = f"{case.words}: "
    if not _flat(given).isfinite().all():
        return Finding(f"{start}the gradient is not finite. Was something divided by 0?")
    start += "the gradient differs from that of the whole batch's mean loss"
    start += f", clipped to {case['_limit']:g}. " if case["_limit"] else ". "
    why = next((why for made, why in _mistakes(case) if _near(given, made, case)), "")
    off = float((_flat(given) - _flat(wanted)).abs().max() / _flat(wanted).abs().max())
    return Finding(start + (why or f"It is off by {off:.2g} of the largest gradient."))


def _near(given: Sequence[Tensor], wanted: Sequence[Tensor], case: Case) -> bool:
    """Clipping may add a small number to the norm, as ``clip_grad_norm_`` does."""
    tolerance = 1e-5 if case["_limit"] else 1e-9
    a, b = _flat(given), _flat(wanted)
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


def _mistakes(case: Case) -> list[tuple[list[Tensor], str]]:
    """What each of the usual mistakes would return, and why it is one."""
    stages, batches = _material(case)
    count, sizes, limit = case["_terms"], case["_sizes"], case["_limit"]
    pieces = [_gradient(stages, *batch) for batch, terms in zip(batches, count, strict=True) if terms]
    sizes = [size for size, terms in zip(sizes, count, strict=True) if terms]
    count = [terms for terms in count if terms]

    def summed(weights: Sequence[float], of: Sequence[Sequence[Tensor]] = pieces) -> list[Tensor]:
        return [sum(w * one for w, one in zip(weights, ones, strict=True)) for ones in zip(*of, strict=True)]

    shares = [terms / sum(count) for terms in count]
    ways = [
        ([1.0] * len(count), "It is the sum of the replicas' mean gradients. Weigh each of them."),
        (
            [1 / len(case["_sizes"])] * len(count),
            "It is the mean of the replicas' means. That is right where all have equally many terms of the loss.",
        ),
        (
            [size / sum(case["_sizes"]) for size in sizes],
            "Replicas are weighed by their sequences. A target of -100 is padding, and no term of the loss.",
        ),
        (
            [size * _TOKENS - terms for size, terms in zip(sizes, count, strict=True)],
            "Replicas are weighed by their padding. Count the targets that are not -100.",
        ),
        ([float(terms) for terms in count], "It is the gradient of the summed loss. Divide by all terms together."),
        (
            [terms / len(count) for terms in count],
            "The sums were divided by the number of replicas. Divide by all terms together.",
        ),
        ([1.0, *[0.0] * (len(count) - 1)], "It is the gradient of one replica alone."),
        ([*[0.0] * (len(count) - 1), 1.0], "It is the gradient of one replica alone."),
    ]
    found = [(_clipped(summed(weights), limit), why) for weights, why in ways]
    if limit is None:
        return found
    right = summed(shares)
    clips: list[tuple[Callable[[], list[Tensor]], str]] = [
        (lambda: right, "It was not clipped."),
        (
            lambda: summed(shares, [_clipped(piece, limit) for piece in pieces]),
            "Each replica was clipped before the reduction. Replicas point in different directions, so the sum is "
            "shorter than its parts. First reduce, then clip.",
        ),
        (
            lambda: [one for part in _by_stage(stages, right) for one in _clipped(part, limit)],
            "Each stage was clipped by its own norm. That turns the gradient in another direction. All stages need "
            "the same factor, from the norm over everything.",
        ),
        (
            lambda: [one for tensor in right for one in _clipped([tensor], limit)],
            "Each tensor was clipped by its own norm. The norm is that of all of them together.",
        ),
        (
            lambda: [one.clamp(-limit, limit) for one in right],
            "Single numbers were cut off at the limit. Clipping by the norm scales all of them alike.",
        ),
        (
            lambda: [one * limit / _norm(right) for one in right],
            "It was made longer. Below the limit a gradient stays as it is.",
        ),
        (
            lambda: _clipped(right, limit, _norm([one for piece in pieces for one in piece])),
            "The norm is that of all replicas' gradients side by side. Take that of the reduced gradient.",
        ),
        (
            lambda: _clipped(right, limit, sum(map(_norm, ([one] for one in right)))),
            "The tensors' norms were added up. Norms add as squares.",
        ),
        (
            lambda: _clipped(right, limit, sum(map(_norm, _by_stage(stages, right)))),
            "The stages' norms were added up. Norms add as squares.",
        ),
        (
            lambda: _clipped(right, limit, _norm(right) ** 2),
            "That is the square of the norm. Its root is missing.",
        ),
        (
            lambda: _clipped(right, limit, float(_flat(right).abs().max())),
            "The largest number was taken for the norm. The norm is the root of the sum of squares.",
        ),
    ]
    return [*((make(), why) for make, why in clips), *found]


EXERCISE = Exercise(
    name="uneven_replicas",
    lesson="10_parallelism",
    title="Replicas of unequal size",
    answers=("reduce_gradients",),
    parts={_UNEVEN: 1, _PADDED: 2, _CLIPPED: 2},
    visible=[
        _case(_UNEVEN, 1, [3, 1]),
        _case(_UNEVEN, 2, [2, 2]),
        _case(_UNEVEN, 3, [1, 4, 2]),
        _case(_PADDED, 4, [2, 3], [9, 4]),
        _case(_PADDED, 5, [1, 3, 2], [5, 4, 7]),
        _case(_PADDED, 6, [2, 1], [8, 0]),
        _case(_CLIPPED, 7, [3, 1], (), 50),
        _case(_CLIPPED, 8, [3, 1], (), 0.2),
        _case(_CLIPPED, 9, [2, 3, 2], (), 0.1),
        _case(_CLIPPED, 10, [1, 4, 1], (), 0.05),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
