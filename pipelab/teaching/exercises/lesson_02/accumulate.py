"""Exercise of lesson 2: exact accumulation of gradients."""

from __future__ import annotations

from random import Random
from typing import Any

from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused

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
                f"{case.words}: the gradient is right, but {found['held']} forwards ran before the first backward. "
                "The activations of all of them were held at once. Run each micro-batch's backward before the next "
                "forward."
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
        return Finding(start + "the model was never called. Each micro-batch needs a forward.")
    if given == [n]:
        return Finding(
            start
            + "the whole batch went through in one piece. The gradient is right, but nothing was accumulated: the "
            f"device has to hold the activations of all {n} sequences."
        )
    shown = f"the model saw {_parts(given)}"
    if sum(given) == n:
        return Finding(start + f"{shown}: these are {len(given)} micro-batches, not {m} of the sizes asked for. {cut}.")
    if sum(given) < n:
        return Finding(start + f"{shown}: {n - sum(given)} of {n} sequences were left out. {cut}.")
    return Finding(
        start + f"{shown}. That is {sum(given)} sequences of {n}, so some went through more than once. {cut}."
    )


def _parts(sizes: list[int]) -> str:
    counts = {size: sizes.count(size) for size in sizes}
    return " and ".join(f"{count} of {size}" for size, count in counts.items())


def _judge_gradient(case: Case, step: int, data: list[Any], sizes: list[int]) -> Finding | None:
    n, m = case["_n"], case["_m"]
    if any(grad is None for grad in data[step]["grads"]):
        return Finding(f"{case.words}: a parameter has no .grad. Call backward() on each micro-batch's loss.")
    given = _flat(data[step]["grads"])
    whole, pieces = _true(case, step, sizes)
    if _alike(given, whole):
        return None
    shares = [size / n for size in sizes]
    ways = [
        (
            [1.0] * m,
            f"It is the sum of the micro-batches' mean gradients, which is {m} times too large. Weigh each of them.",
        ),
        (
            [1 / m] * m,
            "It is the mean of the micro-batches' means. That is right where all have the same size. Here there are "
            f"{_parts(sizes)}, and each micro-batch counts by its number of sequences.",
        ),
        (
            [0.0] * (m - 1) + [1.0],
            "It is the gradient of the last micro-batch alone. Clear the gradients once, before the loop.",
        ),
        (
            [0.0] * (m - 1) + [shares[-1]],
            "Only the last micro-batch is left in it. Clear the gradients once, before the loop.",
        ),
        (
            [0.0] * (m - 1) + [1 / m],
            "Only the last micro-batch is left in it. Clear the gradients once, before the loop.",
        ),
        (
            [float(size) for size in sizes],
            f"It is the gradient of the summed loss, {n} times too large. Divide by the batch's {n} sequences.",
        ),
    ]
    start = f"{case.words}, step {step}: the gradient differs from that of the whole batch's mean loss. "
    for weights, why in ways:
        if _alike(given, _weighted(pieces, weights)):
            return Finding(start + why)
    if step:
        grown = [a - b for a, b in zip(given, _flat(data[step - 1]["grads"]), strict=True)]
        if _alike(grown, whole):
            why = "It still holds the gradient of the previous step. Clear .grad before the first micro-batch."
            return Finding(start + why)
    off = max(abs(a - b) for a, b in zip(given, whole, strict=True)) / max(map(abs, whole))
    return Finding(
        start
        + f"It is off by {off:.2g} of the largest gradient. Micro-batch i has the weight n_i / n, and the sizes are "
        f"{_parts(sizes)}. Do not change the model's weights before the whole batch is through."
    )


EXERCISE = Exercise(
    name="accumulate",
    lesson="02b_gradient_and_memory",
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
