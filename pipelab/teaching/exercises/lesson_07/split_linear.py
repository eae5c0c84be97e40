"""Exercise of lesson 7: the backward of a linear layer in two halves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.lesson_01.graphs import tensors_in

if TYPE_CHECKING:
    from torch import Tensor

_LAYER = "weight", "bias"
_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "einsum", "linear", "tensordot", "addmm"}


def _case(part: str, seed: int, rows: Sequence[int], wide: int, out: int, count: int = 1) -> Case:
    words = f"x of shape {[*rows, wide]}, weight of shape {[out, wide]}"
    words += f", {count} micro-batches" if count > 1 else ""
    return Case(part, {"_seed": seed, "_rows": list(rows), "_in": wide, "_out": out, "_count": count, "_words": words})


def _drawn(random: Random) -> list[Case]:
    def size() -> int:
        return random.randint(2, 7)

    def seed() -> int:
        return random.randint(100, 10**6)

    return [
        *(_case("I", seed(), [size() for _ in range(k)], size(), size()) for k in (1, 2)),
        *(_case("W", seed(), [size()], size(), size()) for _ in range(2)),
        *(_case("3-d", seed(), [size(), size()], size(), size()) for _ in range(2)),
        _case("later", seed(), [size() for _ in range(random.randint(1, 2))], size(), size(), random.randint(2, 4)),
    ]


def _material(case: Case) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """(weight, bias) and (x, gradient of the output) of each micro-batch: the asker and the judge make their own."""
    import torch

    generator = torch.Generator().manual_seed(case["_seed"])

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows, wide, out = case["_rows"], case["_in"], case["_out"]
    return draw(out, wide), draw(out), [(draw(*rows, wide), draw(*rows, out)) for _ in range(case["_count"])]


def _ask(call: Call, case: Case) -> Any:
    """All I first, then all W. In between the layer changes, as an optimizer or another micro-batch might do it."""
    weight, bias, batches = _material(case)
    product = math.prod([*case["_rows"], case["_in"], case["_out"]])
    waiting, told = [], []
    for x, gradient in batches:
        given = [t.clone() for t in (x, weight, bias, gradient)]
        made, ran = _products(partial(call, "backward_input", *given, _keep=False, _plain=False), product)
        if not isinstance(made, tuple | list) or len(made) != 2:
            raise Refused(
                f"{case.words}: backward_input should return two things, the gradient of x and a tuple of what W needs"
            )
        if not all(map(_equal, given, (x, weight, bias, gradient))):
            raise Refused(f"{case.words}: backward_input changed its arguments. Make new tensors instead.")
        waiting.append(made[1])
        kept = _named(made[1], dict(zip(("x", *_LAYER, "grad_output"), given, strict=True)), case)
        told.append({"input": _told(made[0], "the gradient of x", case), "products": ran, "kept": kept})
        if case.part == "later":
            given[1].fill_(math.nan)
            given[2].fill_(math.nan)
    for record, kept in zip(told, waiting if case.part != "I" else [], strict=False):
        made = call("backward_weight", kept, _keep=False, _plain=False)
        if not isinstance(made, tuple | list) or len(made) != 2:
            raise Refused(f"{case.words}: backward_weight should return two tensors, the gradients of weight and bias")
        for name, value in zip(_LAYER, made, strict=True):
            record[name] = _told(value, f"the gradient of the {name}", case)
    return told


def _equal(a: Tensor, b: Tensor) -> bool:
    """Same shape and numbers."""
    return a.shape == b.shape and bool((a == b).all())


def _products(run: Callable[[], Any], size: int) -> tuple[Any, float]:
    """What ``run`` returns, and how many matrix products of ``size`` multiplications it asked for.

    Each index of a product occurs in two of the two factors and the result. A call of autograd is one product or more.
    """
    from torch.overrides import TorchFunctionMode

    class Counter(TorchFunctionMode):
        made = 0.0

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            name = getattr(func, "__name__", "")
            if name in _PRODUCTS:
                factors = sorted(tensor.numel() for tensor in tensors_in({0: args, 1: kwargs or {}}))
                self.made += math.sqrt(math.prod(factors[-2:]) * result.numel()) / size
            self.made += name in ("grad", "backward")
            return result

    with Counter() as counted:
        value = run()
    return value, counted.made


def _told(value: Any, what: str, case: Case) -> dict[str, Any]:
    import torch

    if not isinstance(value, torch.Tensor):
        raise Refused(f"{case.words}: {what} should be a tensor, not of type {type(value).__name__}")
    return {"shape": list(value.shape), "values": value.detach().double().flatten().tolist()}


def _named(kept: Any, given: Mapping[str, Tensor], case: Case) -> list[str]:
    """What the tensors in ``kept`` are: arguments by their name, others by their shape."""
    import torch

    if not isinstance(kept, torch.Tensor | tuple | list | dict):
        raise Refused(f"{case.words}: what W needs should be tensors in a tuple, not of type {type(kept).__name__}")
    found = []
    for tensor in tensors_in({0: kept}):
        same = (name for name, one in given.items() if _same(tensor, one))
        found.append(next(same, f"a tensor of shape {list(tensor.shape)}"))
    return found


def _same(tensor: Tensor, one: Tensor) -> bool:
    """Whether it has the numbers of ``one``, in any shape and order of dimensions."""
    return _equal(tensor.detach().flatten().sort().values, one.flatten().sort().values)


def _truth(case: Case) -> list[dict[str, Tensor]]:
    """Of each micro-batch, by autograd."""
    import torch

    weight, bias, batches = _material(case)
    found = []
    for x, gradient in batches:
        leaves = [t.requires_grad_() for t in (x, weight, bias)]
        grads = torch.autograd.grad(torch.nn.functional.linear(*leaves), leaves, gradient)
        found.append(dict(zip(("input", *_LAYER), grads, strict=True)))
    return found


def _judge(case: Case, data: Any) -> Finding | None:
    needed = {"input", "products"} if case.part == "I" else {*_LAYER, "kept"}
    whole = isinstance(data, list) and all(isinstance(record, dict) and needed <= record.keys() for record in data)
    if not whole or len(data) != case["_count"]:
        raise Refused(f"{case.words}: not all micro-batches came back")
    truth = _truth(case)
    for k, (record, right) in enumerate(zip(data, truth, strict=True)):
        why = _wrong_input(case, record, right, k) if case.part == "I" else _wrong_weight(case, data, truth, k)
        if why:
            return Finding(f"{case.words}: {why}")
    return None


def _near(told: Mapping[str, Any], wanted: Tensor) -> bool:
    import torch

    values = torch.tensor(told["values"], dtype=torch.float64)
    return told["shape"] == list(wanted.shape) and bool(
        torch.allclose(values.reshape(wanted.shape), wanted, rtol=1e-9, atol=1e-11)
    )


def _shape(told: Mapping[str, Any], wanted: Tensor) -> str:
    return f"it has shape {told['shape']} instead of {list(wanted.shape)}"


def _wrong_input(case: Case, record: Mapping[str, Any], right: Mapping[str, Tensor], k: int) -> str:
    told, wanted = record["input"], right["input"]
    if not _near(told, wanted):
        weight, _, batches = _material(case)
        start = "the gradient of x is wrong: "
        if told["shape"] != list(wanted.shape):
            return start + _shape(told, wanted) + "."
        if weight.shape[0] == weight.shape[1] and _near(told, batches[k][1] @ weight.T):
            return (
                start + "it is multiplied by the transposed weight. Forward, a row of x meets a row of the weight. "
                "Backward, a row of grad_output meets a column."
            )
        return start + "it does not agree with autograd's. It is grad_output times the weight, and nothing else."
    if record["products"] > 1.01:
        return (
            f"the gradient of x is right, but backward_input computes {record['products']:.3g} matrix products of this "
            "size. I is one product. The product of W belongs into backward_weight, and no forward is needed again."
        )
    return ""


def _wrong_weight(case: Case, data: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Tensor]], k: int) -> str:
    where = f"of micro-batch {k} " if case["_count"] > 1 else ""
    for name in _LAYER:
        told, wanted = data[k][name], truth[k][name]
        if not _near(told, wanted):
            return f"the gradient of the {name} {where}is wrong: {_mistake(case, told, truth, k, name)}"
    if case.part == "later":
        names = data[k]["kept"]
        strange = next((name for name in reversed(names) if name not in ("x", "grad_output")), None)
        if strange is not None:
            return (
                f"backward_input keeps {strange if ' ' in strange else 'the ' + strange} for W. All that it needs is x "
                "and grad_output. What is kept takes memory until W runs."
            )
        lacking = {"x", "grad_output"} - set(names)
        if lacking:
            return (
                f"backward_input does not hand on {min(lacking)}, so W finds it elsewhere. Return what W needs, and "
                "keep nothing outside."
            )
    return ""


def _mistake(case: Case, told: Mapping[str, Any], truth: Sequence[Mapping[str, Tensor]], k: int, name: str) -> str:
    """What is wrong with a gradient of weight or bias."""
    wanted, rows = truth[k][name], math.prod(case["_rows"])
    if any(map(math.isnan, told["values"])):
        return (
            "it is nan. By the time W runs, weight and bias have gone, and the check has filled them with nan. Use "
            "only what backward_input kept."
        )
    if name == "weight" and _near(told, wanted.T):
        return "it is transposed. It has the shape of the weight: grad_output's width, then that of x."
    if told["shape"] != list(wanted.shape):
        last = " Sum over all dimensions but the last: a sequence's tokens are rows too." * (len(case["_rows"]) > 1)
        return _shape(told, wanted) + "." + last
    if not any(told["values"]):
        return "it is 0. The bias is added to each row, so it gets the sum of grad_output's rows."
    for count in {rows, *case["_rows"]} - {1}:
        if _near(told, wanted / count):
            return f"it is a mean, {count} times too small. The rows add up: the loss has its own mean already."
    if _near(told, 2 * wanted):
        return "it is twice as large. Was something added twice?"
    for other, right in enumerate(truth):
        if other != k and _near(told, right[name]):
            return f"it is that of micro-batch {other}. Keep nothing outside: W gets what its own I returned."
    if k and _near(told, sum(right[name] for right in truth[: k + 1])):  # type: ignore[arg-type]
        return "it has those of earlier micro-batches in it. Return this one's alone: whoever calls adds them up."
    if len(case["_rows"]) > 1:
        return "it does not agree with autograd's. Sum over all dimensions but the last."
    return "it does not agree with autograd's."


EXERCISE = Exercise(
    name="split_linear",
    lesson="07_zero_bubble",
    title="Split a backward",
    answers=("backward_input", "backward_weight"),
    parts={"I": 1, "W": 1, "3-d": 1, "later": 1},
    visible=[
        _case("I", 1, [2], 3, 3),
        _case("I", 2, [4], 3, 5),
        _case("I", 3, [2, 3], 4, 2),
        _case("W", 4, [3], 2, 2),
        _case("W", 5, [4], 3, 5),
        _case("3-d", 6, [2, 3], 4, 2),
        _case("later", 7, [4], 3, 2, 2),
        _case("later", 8, [2, 3], 3, 2, 3),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
