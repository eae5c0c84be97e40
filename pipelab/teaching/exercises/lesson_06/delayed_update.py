"""Exercise of lesson 6: the training step of 2BW, on one device."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused

_STEPS = 4  # the third is the first that tells W(t - 1) from W(0)
Weights = list[float]


def _case(part: str, m: int, momentum: float, seed: int, lr: float = 0.1) -> Case:
    optimizer = f"momentum {momentum:g}" if momentum else "plain SGD"
    words = f"{optimizer}, lr {lr:g}, {m} micro-batch{'es' if m > 1 else ''} a batch"
    return Case(part, {"_m": m, "_momentum": momentum, "_seed": seed, "_lr": lr, "_words": words})


def _drawn(random: Random) -> list[Case]:
    rates = random.sample((0.02, 0.05, 0.2), 2)
    return [
        _case("SGD", random.randint(2, 6), 0.0, random.randint(100, 999), rates[0]),
        _case("momentum", random.randint(1, 5), random.choice((0.5, 0.8, 0.9)), random.randint(100, 999), rates[1]),
    ]


def _material(case: Case) -> tuple[Any, Any, list[list[tuple[Any, Any]]]]:
    """A small model, a mean loss, and batches of micro-batches: made by the asker and by the judge, each for itself."""
    import torch

    generator = torch.Generator().manual_seed(case["_seed"])

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(draw(*parameter.shape))
    batches = [[(draw(2, 3), draw(2, 2)) for _ in range(case["_m"])] for _ in range(_STEPS)]
    return model, torch.nn.functional.mse_loss, batches


def _ask(call: Call, case: Case) -> Any:
    """Several batches in a row; the model's weights after each, and whether its parameters are the same ones.

    A second model, with a state of its own, is trained in between on what is left of the batches.
    """
    _first_step()
    model, loss, batches = _material(case)
    other = _material(case)[0]
    state: dict[Any, Any] = {}
    others: dict[Any, Any] = {}
    before = [id(p) for p in model.parameters()]
    found, kept = [], True
    for batch in batches:
        was = [(x.clone(), y.clone()) for x, y in batch]
        for one, own in ((model, state), (other, others)):
            given = (one, own, loss, batch, case["_lr"], case["_momentum"])
            call("train_batch", *given, _none=True, _keep=False)
            kept = kept and len(batch) == len(was)
            kept = kept and all((x == u).all() and (y == v).all() for (x, y), (u, v) in zip(batch, was, strict=True))
        found.append(_flat(model))
    same = [id(p) for p in model.parameters()] == before
    return {"weights": found, "same": same, "kept": bool(kept), "alike": _flat(other) == found[-1]}


def _first_step() -> None:
    """Let torch load what it loads at the first step of an optimizer: not in the time of a learner's call."""
    import torch

    weight = torch.nn.Parameter(torch.zeros(1))
    weight.clone().backward(torch.zeros(1))
    torch.optim.SGD([weight], lr=0.1).step()


def _flat(model: Any) -> Weights:
    return [number for p in model.parameters() for number in p.detach().flatten().tolist()]


def _truth(case: Case) -> list[Weights]:
    """The weights after each batch, by pipelab's reference."""
    import torch

    from pipelab.runtime.measuring.delayed import delayed_training

    model, loss, batches = _material(case)
    m, names = case["_m"], [name for name, _ in model.named_parameters()]

    def optimizer(named: list[tuple[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for _, p in named], lr=case["_lr"], momentum=case["_momentum"])

    micro = [pair for batch in batches for pair in batch]
    history = delayed_training(model, [names], optimizer, loss, micro, lambda s, i: max(i // m - 1, 0), m)
    return [[v for name in names for v in weights[name].flatten().tolist()] for weights in history]


def _other(
    case: Case,
    *,
    delay: int = 1,
    base: int = 0,
    scale: float = 1.0,
    momentum: float | None = None,
    damp: bool = False,
    nesterov: bool = False,
    only_last: bool = False,
    kept: bool = False,
) -> list[Weights]:
    """The weights after each batch where the formula is another one.

    The gradient is that of ``delay`` updates ago, and the step starts ``base`` updates ago. ``kept``: the gradient is
    never cleared.
    """
    import torch

    model, loss, batches = _material(case)
    parameters = list(model.parameters())
    mu = case["_momentum"] if momentum is None else momentum
    history = [torch.tensor(_flat(model), dtype=torch.float64)]
    speed = torch.zeros_like(history[0])
    total = torch.zeros_like(history[0])
    for t, batch in enumerate(batches):
        torch.nn.utils.vector_to_parameters(history[max(t - delay, 0)], parameters)
        losses = [loss(model(x), y) for x, y in (batch[-1:] if only_last else batch)]
        grads = torch.autograd.grad(sum(losses), parameters)
        gradient = scale * torch.cat([g.flatten() for g in grads]) / len(batch)
        total = gradient + (total if kept else 0)
        first = mu * speed if t else 0 * speed
        speed = first + ((1 - mu) if damp else 1) * total
        step = total + mu * speed if nesterov else speed
        history.append(history[max(t - base, 0)] - case["_lr"] * step)
    return [weights.tolist() for weights in history[1:]]


def _near(given: Weights, wanted: Weights) -> bool:
    largest = max(map(abs, wanted))
    bound = 1e-9 * largest  # no comparison with nan is true
    return len(given) == len(wanted) and all(abs(a - b) < bound for a, b in zip(given, wanted, strict=True))


def _judge(case: Case, data: Any) -> Finding | None:
    if not isinstance(data, dict) or len(data.get("weights", ())) != _STEPS:
        raise Refused(f"{case.words}: not all batches came back")
    if not data["kept"]:
        return Finding(f"{case.words}: train_batch changed the micro-batches. Leave x and y as they are.")
    given, truth = data["weights"], _truth(case)
    wrong = next((t for t in range(_STEPS) if not _near(given[t], truth[t + 1])), None)
    if wrong is None and data["same"] and data["alike"]:
        return None
    if wrong is None:
        return Finding(f"{case.words}: {_SHARED if data['same'] else _REPLACED}")
    start = f"{case.words}: after batch {wrong} the model's weights are not W({wrong + 1}). "
    if all(_near(w, truth[0]) for w in given):
        return Finding(start + "They never changed. Write the new weights into the model, under torch.no_grad().")
    if all(_near(given[t], truth[t]) for t in range(_STEPS)):
        return Finding(
            start + f"They are W({wrong}). After the call the model has to hold the newest version, the one just made."
        )
    if all(_near(given[t], truth[max(t - 1, 0)]) for t in range(_STEPS)):
        return Finding(
            start + "They are those that the gradient was computed with. Go back to the newest, and step it."
        )
    for history, why in _mistakes(case):
        if all(_near(a, b) for a, b in zip(given, history, strict=True)):
            return Finding(start + why)
    apart = [abs(a - b) for a, b in zip(given[wrong], truth[wrong + 1], strict=True)]
    off = max(apart) / max(map(abs, truth[wrong + 1]))
    if not all(map(math.isfinite, apart)):
        return Finding(start + "Some of them are nan or infinite.")
    if off < 1e-6:
        return Finding(
            start + f"They are off by {off:.2g} of the largest weight, as with 32-bit numbers. Keep v and the weights "
            "in the dtype of the parameters, for example with torch.zeros_like."
        )
    return Finding(
        start + f"They are off by {off:.2g} of the largest weight. The gradient is that of W({max(wrong - 1, 0)}), the "
        f"mean over {case['_m']} micro-batch{'es' * (case['_m'] > 1)}, and the step starts from W({wrong})."
    )


_SHARED = (
    "the weights are right, but not those of a second model that is trained in turns with it. Keep what belongs to a "
    "model in its `state`, and nowhere else."
)
_REPLACED = (
    "the weights are right, but the model has other parameter objects than before. An optimizer and the other stages "
    "would still hold the old ones. Write into the parameters with copy_, or change them in place."
)


def _mistakes(case: Case) -> list[tuple[list[Weights], str]]:
    """Other formulas that are often written, each with what is wrong with it."""
    m, mu = case["_m"], case["_momentum"]
    found = [
        (
            _other(case, delay=0),
            "That is training without a delay: the gradient is that of W(t). Was the kept version a second name of "
            "the same tensors? clone() makes a copy.",
        ),
        (
            _other(case, base=1),
            "The step starts from the old version: W(t - 1) - lr g. The formula takes the gradient there, but changes "
            "W(t).",
        ),
        (_other(case, delay=2), "The gradient is two updates old. Keep one version beside the newest, not two."),
        (_other(case, delay=_STEPS), "The gradient is always that of W(0). Keep the newest version anew in each call."),
        (_other(case, kept=True), "The gradients of earlier batches are still in .grad. Clear them before each batch."),
        (_other(case, scale=-1.0), "The weights go up the slope. The step is minus lr times the gradient."),
    ]
    if m > 1:
        found += [
            (_other(case, scale=m), f"The gradients of {m} micro-batches are added up. The batch's is their mean."),
            (_other(case, only_last=True, scale=m), _ONLY_LAST),
            (_other(case, only_last=True), _ONLY_LAST),
        ]
    if mu:
        found += [
            (_other(case, momentum=0.0), "There is no momentum in it. Keep v in the state, and step by v."),
            (_other(case, damp=True), "That weighs the gradient by 1 - momentum. Here v = momentum * v + g."),
            (_other(case, nesterov=True), "That is Nesterov's step, lr (g + momentum * v). Here the step is lr v."),
            (
                _other(case, delay=0, momentum=0.0),
                "There is neither a delay nor momentum in it. Both the previous weights and v are kept in the state.",
            ),
        ]
    return found


_ONLY_LAST = "Only the last micro-batch's gradient is left in it. Clear the gradients once, before the loop."

EXERCISE = Exercise(
    name="delayed_update",
    lesson="06b_worth_it",
    title="The delayed update",
    answers=("train_batch",),
    parts={"SGD": 2, "momentum": 1},
    visible=[
        _case("SGD", 1, 0.0, 1),
        _case("SGD", 3, 0.0, 2),
        _case("momentum", 1, 0.9, 3),
        _case("momentum", 4, 0.5, 4),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
