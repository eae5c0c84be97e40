"""Exercise of lesson 12: is the mean of the micro-batches' gradients the gradient of the batch?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise
from pipelab.teaching.exercises.lesson_12.evidence import PARTS, Known, both_parts, judge_by

if TYPE_CHECKING:
    from torch import Tensor, nn

_WIDE, _CLASSES = 6, 4
RIGHT = 1e-9
Batch = tuple[Any, ...]


def _given(norm: str, batch: int, m: int, seed: int) -> dict[str, Any]:
    words = f"{batch} sequences, m = {m}, {norm} normalisation"
    return {"_norm": norm, "_batch": batch, "_m": m, "_seed": seed, "_words": words}


def _drawn(random: Random) -> list[Case]:
    m = random.randint(2, 5)
    return both_parts(
        [
            _given("layer", m * random.randint(2, 5), m, random.randrange(10**6)),
            _given("layer", m * random.randint(2, 5) + random.randint(1, m - 1), m, random.randrange(10**6)),
            _given("batch", m * random.randint(3, 5), m, random.randrange(10**6)),
            _given("batch", random.randint(4, 12), 1, random.randrange(10**6)),
        ]
    )


def _made(case: Case) -> tuple[nn.Module, Callable[..., Any], Tensor, Tensor]:
    """A model, its loss, inputs and targets."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(case["_seed"])
    norm = nn.LayerNorm(_WIDE) if case["_norm"] == "layer" else nn.BatchNorm1d(_WIDE)
    model = nn.Sequential(nn.Linear(_WIDE, _WIDE), norm, nn.Tanh(), nn.Linear(_WIDE, _CLASSES)).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    inputs = torch.randn(case["_batch"], _WIDE, generator=generator, dtype=torch.float64)
    targets = torch.randint(_CLASSES, (case["_batch"],), generator=generator)
    return model, nn.functional.cross_entropy, inputs, targets


def _ask(call: Call, case: Case) -> Any:
    return call("mean_gradient", *_made(case), case["_m"])


def _gradient(model: nn.Module, loss: Callable[..., Any], x: Tensor, y: Tensor) -> Tensor:
    """All gradients of a mean loss, in one row."""
    import torch

    return torch.cat([g.flatten() for g in torch.autograd.grad(loss(model(x), y), list(model.parameters()))])


def _pieces(case: Case) -> tuple[Tensor, list[Tensor], list[int]]:
    """The gradient of the batch, those of its micro-batches, and their sizes."""
    model, loss, inputs, targets = _made(case)
    cut = list(zip(inputs.tensor_split(case["_m"]), targets.tensor_split(case["_m"]), strict=True))
    return (
        _gradient(model, loss, inputs, targets),
        [_gradient(model, loss, x, y) for x, y in cut],
        [len(x) for x, _ in cut],
    )


def _error(found: Tensor, true: Tensor) -> float:
    return float((found - true).abs().max() / true.abs().max())


def _mean(parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    import torch

    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum(0) / sum(weights)


@reserved
def truth(case: Case) -> list[float]:
    """The largest error of the mean of the gradients, over the largest gradient of the batch."""
    whole, parts, _ = _pieces(case)
    return [_error(_mean(parts, [1] * len(parts)), whole)]


def _holds(case: Case, figures: Sequence[float]) -> bool:
    return figures[0] < RIGHT


def _known(case: Case, wanted: list[float]) -> Known:
    whole, parts, sizes = _pieces(case)
    mean, m = _mean(parts, [1] * len(parts)), len(parts)
    return [
        ([_error(m * mean, whole)], "The gradients were added up, and not divided by m."),
        (
            [_error(_mean(parts, sizes), whole)],
            "They were weighed by their sequences. The claim is about the plain mean.",
        ),
        ([_error(mean + whole, whole)], "The gradient of the batch is in the sum too. Clear .grad in between."),
        ([float((mean - whole).abs().max())], "Divide by the largest gradient of the batch."),
        ([_error(parts[-1], whole)], "That is the last micro-batch alone. Its gradient replaced the others."),
        ([float((mean - whole).norm())], "That is the length of the difference. Take its largest number."),
    ]


EXERCISE = Exercise(
    name="mean_gradient",
    lesson="12c_weights_on_trial",
    title="The mean gradient",
    answers=("mean_gradient",),
    parts=PARTS,
    visible=both_parts(
        [
            _given("layer", 6, 3, 0),
            _given("layer", 7, 3, 1),
            _given("batch", 12, 3, 2),
            _given("batch", 5, 1, 3),
        ]
    ),
    ask=_ask,
    judge=judge_by(
        "mean_gradient",
        truth,
        _holds,
        _known,
        "The claim is true if the error is below 1e-9, which is far above the rounding of float64.",
    ),
    drawn=_drawn,
)
