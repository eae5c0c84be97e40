"""Exercise of lesson 10: two linear layers, and the heads of an attention, split over ranks by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from random import Random
from typing import TYPE_CHECKING, Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists
from pipelab.teaching.exercises.lesson_10.heads import judge_heads

if TYPE_CHECKING:
    from torch import Tensor

    from pipelab.teaching.exercises.lesson_10.apart import Apart

_FORWARD, _BACKWARD, _HEADS = "forward", "backward", "heads"
NAMES = ("w1", "b1", "w2", "b2")


def _mlp(part: str, seed: int, ranks: int, rows: int, wide: int, hidden: int, out: int) -> Case:
    words = f"t = {ranks}, x of shape {[rows, wide]}, w1 {[hidden, wide]}, w2 {[out, hidden]}"
    return Case(part, {"_seed": seed, "_t": ranks, "_sizes": [rows, wide, hidden, out], "_words": words})


def _attention(ranks: int, heads: int, size: int) -> Case:
    words = f"t = {ranks}, {heads} heads of {size} numbers"
    return Case(_HEADS, {"_t": ranks, "_heads": heads, "_size": size, "_words": words})


def _drawn(random: Random) -> list[Case]:
    cases = []
    for _ in range(4):
        t = random.randint(1, 4)
        sizes = [random.randint(2, 5), t * random.randint(1, 3), t * random.randint(2, 3), t * random.randint(1, 3)]
        cases += [_mlp(part, random.randint(100, 10**6), t, *sizes) for part in (_FORWARD, _BACKWARD)]
        cases.append(_attention(t, t * random.randint(1, 3), random.randint(2, 4)))
    return cases


def _material(case: Case) -> tuple[Tensor, list[Tensor], Tensor]:
    """(x, weights, gradient of the output) in float64: the asker and the judge make their own."""
    import torch

    generator = torch.Generator().manual_seed(case["_seed"])
    rows, wide, hidden, out = case["_sizes"]

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw(rows, wide), [draw(hidden, wide), draw(hidden), draw(out, hidden), draw(out)], draw(rows, out)


def _numbered(shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Tensors that hold 1, 2, 3, ...: what is made of them tells which numbers it has."""
    import torch

    sizes = [torch.Size(shape).numel() for shape in shapes]
    parts = torch.arange(1, sum(sizes) + 1, dtype=torch.float64).split(sizes)
    return [part.reshape(tuple(shape)) for part, shape in zip(parts, shapes, strict=True)]


def _ask(call: Call, case: Case) -> Any:
    if case.part == _HEADS:
        wide = case["_heads"] * case["_size"]
        return call("cut_attention", *_numbered([(3 * wide, wide), (wide, wide)]), case["_heads"], case["_t"])
    import torch

    from pipelab.teaching.exercises.lesson_10.apart import Apart

    t, (x, weights, gradient) = case["_t"], _material(case)
    places = _shards(call("cut_mlp", *_numbered([w.shape for w in weights]), t, _plain=False), case)
    shards = call("cut_mlp", *weights, t, _plain=False)
    values = _shards(shards, case)
    apart = Apart(t)
    inputs = [apart.put(x.clone().requires_grad_(), rank) for rank in range(t)]
    shards = [_own(shard, apart, rank) for rank, shard in enumerate(shards)]
    with apart:
        made = call("mlp", inputs, shards, apart.sum_forward, apart.sum_backward, _keep=False, _plain=False)
    if not isinstance(made, list | tuple) or len(made) != t or not all(isinstance(y, torch.Tensor) for y in made):
        raise Refused(f"{case.words}: mlp should return a list of {t} outputs, one tensor of each rank")
    outputs = [y.detach().clone() for y in made]
    if case.part == _BACKWARD and all(y.shape == gradient.shape for y in made):
        torch.autograd.backward([y for y in made if y.requires_grad], [gradient for y in made if y.requires_grad])
    return {
        "places": [[one.flatten() for one in shard] for shard in places],
        "values": [[one.flatten() for one in shard] for shard in values],
        "outputs": outputs,
        "met": apart.met[:1],
        "calls": dict(apart.calls),
        "inputs": [one.grad for one in inputs],
        "weights": [
            [None if one.grad is None else one.grad.flatten() for one in shard] for shard in _shards(shards, case)
        ],
    }


def _shards(given: Any, case: Case) -> list[list[Tensor]]:
    """The tensors of each rank."""
    import torch
    from torch.utils import _pytree as pytree

    if not isinstance(given, list | tuple) or len(given) != case["_t"]:
        raise Refused(f"{case.words}: cut_mlp should return a list with what each of the {case['_t']} ranks holds")
    found = [[one for one in pytree.tree_leaves(shard) if isinstance(one, torch.Tensor)] for shard in given]
    if not all(found):
        raise Refused(f"{case.words}: what a rank holds should be tensors in a tuple, list or dictionary")
    return found


def _own(shard: Any, apart: Apart, rank: int) -> Any:
    """``shard`` again, its tensors as parameters of ``rank``."""
    import torch
    from torch.utils import _pytree as pytree

    def own(weight: Tensor) -> Tensor:
        return apart.put(weight.detach().clone().requires_grad_(), rank)

    return pytree.tree_map_only(torch.Tensor, own, shard)


@reserved
def whole(case: Case) -> dict[str, Any]:
    """Output and gradients of the layers in one piece."""
    import torch

    x, weights, gradient = _material(case)
    leaves = [tensor.requires_grad_() for tensor in (x, *weights)]
    w1, b1, w2, b2 = weights
    y = torch.nn.functional.gelu(x @ w1.T + b1) @ w2.T + b2
    grads = torch.autograd.grad(y, leaves, gradient)
    return {"output": y.detach(), "input": grads[0], "weights": torch.cat([g.flatten() for g in grads[1:]])}


def _judge(case: Case, data: Any) -> Finding | None:
    if case.part == _HEADS:
        return judge_heads(case.words, data, case["_t"], case["_heads"], case["_size"])
    wanted = {"places", "values", "outputs", "met", "calls", "inputs", "weights"}
    if not isinstance(data, dict) or set(data) != wanted:
        raise Refused(f"{case.words}: what the ranks made did not come back")
    data = {name: as_lists(value) for name, value in data.items()}
    why = (
        _wrong_cut(case, data)
        or _met(data)
        or _wrong_output(case, data)
        or (_wrong_gradient(case, data) if case.part == _BACKWARD else "")
    )
    return Finding(f"{case.words}: {why}") if why else None


def _places(case: Case) -> dict[str, tuple[int, list[int]]]:
    """Of each weight, how many numbers stand before it, and its shape."""
    _, wide, hidden, out = case["_sizes"]
    shapes: Mapping[str, list[int]] = {"w1": [hidden, wide], "b1": [hidden], "w2": [out, hidden], "b2": [out]}
    found, before = {}, 0
    for name, shape in shapes.items():
        found[name] = (before, shape)
        before += shape[0] * (shape[1] if len(shape) > 1 else 1)
    return found


def _named(case: Case, place: int) -> str:
    """``"w1[2, 0]"`` of a number's place among all."""
    name, (before, shape) = next((n, p) for n, p in reversed(_places(case).items()) if place > p[0])
    at = place - before - 1
    return f"{name}[{at // shape[1]}, {at % shape[1]}]" if len(shape) > 1 else f"{name}[{at}]"


def _wrong_cut(case: Case, data: Mapping[str, Any]) -> str:
    """Each number of w1 and w2 belongs to one rank, those of biases to one or more, and nothing else to any."""
    import torch

    numbers = torch.cat([w.flatten() for w in _material(case)[1]]).tolist()
    held: Counter[int] = Counter()
    for rank, (places, values) in enumerate(zip(data["places"], data["values"], strict=True)):
        for place, value in zip(chain(*places), chain(*values), strict=True):
            if place not in range(1, len(numbers) + 1) or numbers[int(place) - 1] != value:
                return (
                    f"rank {rank} holds {value:.4g}, which is none of the weights. Cut the weights, and change none: "
                    "a bias that is divided, or made 0 on some ranks, gets the gradient of a whole one."
                )
            held[int(place)] += 1
    many = next((p for p, count in sorted(held.items()) if count > 1 and _named(case, p)[0] == "w"), None)
    if many is not None:
        return (
            f"{_named(case, many)} is held {held[many]} times. Each number of w1 and w2 belongs to one rank: that is "
            "what saves memory."
        )
    missing = next((p for p in range(1, len(numbers) + 1) if not held[p]), None)
    return "" if missing is None else f"no rank holds {_named(case, missing)}."


def _met(data: Mapping[str, Any]) -> str:
    if not data["met"]:
        return ""
    return (
        f"tensors of two ranks met in {data['met'][0]}. Only sum_forward and sum_backward carry numbers from one rank "
        "to another."
    )


def _cut_across(case: Case, data: Mapping[str, Any], name: str, along: int) -> bool:
    """Whether rank 0 has only a part of the numbers along one dimension of a weight."""
    before, (rows, columns) = _places(case)[name]
    mine = [int(p) - before - 1 for p in chain(*data["places"][0]) if before < p <= before + rows * columns]
    lines = {p // columns if along else p % columns for p in mine}
    return len(mine) < len(lines) * (columns if along else rows)


_ROWS_FIRST = (
    "w1 is cut across its input. Then each rank has a part of each sum, and GELU of a part is not a part of GELU. "
)
_GATHER = "w2 is cut across its output. Then a rank needs hidden numbers that are on other ranks. "


def _structure(case: Case, data: Mapping[str, Any]) -> str:
    rows_first = _cut_across(case, data, "w1", along=1)
    return _ROWS_FIRST * rows_first + _GATHER * (not rows_first and _cut_across(case, data, "w2", along=0))


def _wrong_output(case: Case, data: Mapping[str, Any]) -> str:
    import torch

    t, wanted = case["_t"], whole(case)["output"]
    calls = data["calls"].get("sum_forward", 0)
    for rank, listed in enumerate(data["outputs"]):
        given = torch.tensor(listed, dtype=torch.float64)
        if given.shape != wanted.shape:
            return (
                f"the output of rank {rank} has shape {list(given.shape)} instead of {list(wanted.shape)}. "
                f"{_structure(case, data)}"
            ).rstrip()
        if not _near(given, wanted):
            start = f"the output of rank {rank} is wrong. "
            if t > 1 and not calls:
                return f"{start}sum_forward was never called, so each rank has a part of the sum only."
            why = next((why for value, why in _mistakes(case) if _near(given, value)), "")
            return (start + (why or _structure(case, data))).rstrip()
    if calls > 1:
        return (
            f"the output is right, but sum_forward was called {calls} times. One all-reduce is enough forward. "
            f"{_structure(case, data)}"
        ).rstrip()
    return ""


def _near(given: Tensor, wanted: Tensor) -> bool:
    return given.shape == wanted.shape and bool((given - wanted).abs().max() <= 1e-9 * wanted.abs().max())


def _mistakes(case: Case) -> list[tuple[Tensor, str]]:
    import torch

    (x, (w1, b1, w2, b2), _), t = _material(case), case["_t"]
    right, between = whole(case)["output"], x @ w1.T + b1
    return [
        (right + (t - 1) * b2, f"b2 was added {t} times. Each rank added it to its part of the sum."),
        (right - b2, "b2 is missing."),
        (torch.nn.functional.gelu(x @ w1.T) @ w2.T + b2, "b1 is missing."),
        (between @ w2.T + b2, "There is no GELU between the two layers."),
        (torch.relu(between) @ w2.T + b2, "There is a ReLU between the two layers, and not a GELU."),
        (
            torch.nn.functional.gelu(between, approximate="tanh") @ w2.T + b2,
            "That GELU is the approximate one, with tanh.",
        ),
        (right * t, f"The output is {t} times too large: it was summed twice."),
    ]


def _wrong_gradient(case: Case, data: Mapping[str, Any]) -> str:
    import torch

    t, truth = case["_t"], whole(case)
    calls = data["calls"].get("sum_backward", 0)
    inputs = [None if one is None else torch.tensor(one, dtype=torch.float64) for one in data["inputs"]]
    for rank, given in enumerate(inputs):
        if given is None:
            return f"the output is right, but no gradient reaches x on rank {rank}."
        if not _near(given, truth["input"]):
            start = f"the output is right, but the gradient of x on rank {rank} is wrong. "
            if not calls:
                return (
                    f"{start}It comes from this rank's part of w1 alone. The gradient of x is the sum over all ranks' "
                    "parts, so something must sum it up backward."
                )
            if _near(given, truth["input"] * t):
                return f"{start}It is {t} times too large: what was summed up already was summed up again."
            return f"{start}What sum_backward sums up must be a gradient of the same thing on all ranks."
    for rank, (places, grads) in enumerate(zip(data["places"], data["weights"], strict=True)):
        for place, grad in zip(places, grads, strict=True):
            right = truth["weights"][torch.tensor(place).long() - 1]
            name = _named(case, int(place[0])).partition("[")[0]
            start = f"the gradient of rank {rank}'s part of {name} "
            if grad is None:
                return f"{start}is missing. What a rank holds should be used on this rank."
            given = torch.tensor(grad, dtype=torch.float64)
            if _near(given, right * t) and t > 1:
                return f"{start}is {t} times too large. Sum up the gradient of x, and no other."
            if not _near(given, right):
                return f"{start}is not that of the unsplit layers."
    if calls > 1:
        return f"all gradients are right, but sum_backward summed up {calls} times. One all-reduce is enough backward."
    return ""


EXERCISE = Exercise(
    name="split_layers",
    lesson="10b_inside_layers",
    title="Split inside layers",
    answers=("cut_mlp", "mlp", "cut_attention"),
    parts={_FORWARD: 2, _BACKWARD: 1, _HEADS: 2},
    visible=[
        _mlp(_FORWARD, 1, 2, 3, 4, 6, 2),
        _mlp(_FORWARD, 2, 3, 2, 6, 6, 3),
        _mlp(_FORWARD, 3, 1, 2, 3, 4, 2),
        _mlp(_BACKWARD, 4, 2, 3, 4, 6, 2),
        _mlp(_BACKWARD, 5, 3, 4, 3, 9, 6),
        _attention(2, 2, 3),
        _attention(2, 4, 2),
        _attention(3, 6, 4),
        _attention(1, 3, 2),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
