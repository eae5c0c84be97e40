"""Exercise of lesson 5: micro-batches of uneven sizes, and the weights of their losses."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import close, numbers, read_whole


def _slices(part: str, sizes: Sequence[tuple[int, int]]) -> list[Case]:
    return [Case(part, {"B": batch, "m": m}) for batch, m in sizes]


def _drawn_slices(random: Random) -> list[Case]:
    sizes = [(batch, random.randint(2, batch - 1)) for batch in (random.randint(20, 200) for _ in range(5))]
    return [*_slices("sizes", sizes), *_slices("weights", sizes)]


def _ask_slices(call: Call, case: Case) -> Any:
    return call("sizes" if case.part == "sizes" else "loss_weights", case["B"], case["m"])


def _judge_slices(case: Case, data: Any) -> Finding | None:
    batch, m = case["B"], case["m"]
    small, rest = divmod(batch, m)
    right = [small + 1] * rest + [small] * (m - rest)
    if case.part == "weights":
        return _judge_weights(case, numbers(data, f"{case.words}: loss_weights"), right)
    given = [read_whole(n, f"{case.words}: a size") for n in numbers(data, f"{case.words}: sizes")]
    if given == right:
        return None
    start = f"{case.words}: the sizes are {_some(given)}. "
    if len(given) != m:
        return Finding(f"{start}That is {len(given)} micro-batches, not {m}.")
    if sum(given) < batch:
        lost = batch - sum(given)
        return Finding(f"{start}They add up to {sum(given)}, so {lost} of the {batch} sequences are never trained on.")
    if sum(given) > batch:
        return Finding(f"{start}They add up to {sum(given)}, but the batch has {batch}. Rounding up takes too many.")
    if min(given) < 1:
        return Finding(f"{start}Every micro-batch needs at least one sequence.")
    if sorted(given) == sorted(right):
        return Finding(f"{start}The sizes are right, but tensor_split puts the larger ones first.")
    widest = max(given)
    if given[-1] == widest and len(set(given[:-1])) == 1:
        why = f"The last one gets all that is left, {widest} sequences, and every device waits for it."
    else:
        why = f"The largest has {widest} sequences and sets the pace."
    return Finding(f"{start}{why} {max(right)} are enough, because sizes need not differ by more than 1.")


def _judge_weights(case: Case, given: Sequence[float], sizes: Sequence[int]) -> Finding | None:
    batch, m = case["B"], case["m"]
    if len(given) != m:
        raise Refused(f"{case.words}: there should be {m} weights, one for each micro-batch; there are {len(given)}")
    wrong = [k for k in range(m) if not close(given[k], sizes[k] / batch, 1e-6)]
    if not wrong:
        return None
    k = wrong[0]
    start = f"{case.words}: micro-batch {k} has {sizes[k]} of {batch} sequences and the weight {given[k]:.7g}. "
    if all(abs(mine - n / batch) < 6e-4 for mine, n in zip(given, sizes, strict=True)) and any(
        mine in [round(n / batch, digits) for digits in range(1, 7)] for mine, n in zip(given, sizes, strict=True)
    ):
        return Finding(f"{start}That is {sizes[k]}/{batch}, rounded. Do not round it: errors add up over the steps.")
    if all(close(mine, 1 / m, 1e-3) for mine in given):
        return Finding(
            f"{start}If all have 1/m, a sequence in a small micro-batch counts for more than one in a large one. The "
            "mean of the means is not the mean of the batch."
        )
    if all(close(mine, n, 1e-3) for mine, n in zip(given, sizes, strict=True)):
        return Finding(f"{start}Each loss is a mean, so the weights have to add up to 1, not to {batch}.")
    if all(close(mine, 1, 1e-3) for mine in given):
        return Finding(f"{start}With a weight of 1 for each mean, the gradient is m = {m} times too large.")
    total = sum(given)
    if not close(total, 1, 1e-3):
        return Finding(f"{start}The weights add up to {total:.4g}. A mean needs weights that add up to 1.")
    if all(close(mine, n / batch, 1e-3) for mine, n in zip(sorted(given), sorted(sizes), strict=True)):
        return Finding(f"{start}The weights are right, but their order is not. The larger micro-batches come first.")
    return Finding(f"{start}Each sequence should count 1/{batch}. What should a micro-batch of {sizes[k]} count?")


def _some(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:14]))
    return shown + (", ..." if len(values) > 14 else "")


EXERCISE = Exercise(
    name="slices",
    lesson="05_choosing_m",
    title="Uneven slices",
    answers=("sizes", "loss_weights"),
    parts={"sizes": 1, "weights": 1},
    visible=[
        *_slices("sizes", [(6, 3), (8, 3), (5, 5), (11, 4), (64, 12), (64, 20)]),
        *_slices("weights", [(6, 3), (8, 3), (11, 4), (64, 12), (64, 20)]),
    ],
    drawn=_drawn_slices,
    ask=_ask_slices,
    judge=_judge_slices,
)
