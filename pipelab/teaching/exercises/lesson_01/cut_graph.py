"""Exercise of lesson 1: cutting an autograd graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.lesson_01.graphs import stages_reached, still_held, tensors_in

if TYPE_CHECKING:
    from torch import Tensor, nn


def pieces(seed: int, stages: int) -> list[nn.Module]:
    """Small stages in float64 whose weights depend on the seed alone. No two boundaries are equally wide."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    made: list[nn.Module] = []
    for s in range(stages):
        layer = torch.nn.Linear(3 + s, 4 + s, dtype=torch.float64)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2)
        made.append(torch.nn.Sequential(layer, torch.nn.Tanh()))
    return made


def _batch(seed: int, stages: int, step: int) -> tuple[Tensor, Tensor]:
    import torch

    generator = torch.Generator().manual_seed(seed + 7919 * (step + 1))
    shapes = ((6, 3), (6, 3 + stages))
    x, y = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return x, y


def _loss_gradient(output: Tensor, targets: Tensor) -> Tensor:
    """Of a mean of squares, with respect to the last stage's output."""
    return 2 * (output.detach() - targets) / targets.numel()


def _cut_case(part: str, stages: int, steps: int, seed: int) -> Case:
    return Case(part, {"stages": stages, "steps": steps, "_seed": seed, "_words": f"{stages} stages"})


def _cut_cases() -> list[Case]:
    return [
        _cut_case("one cut", 2, 1, 1),
        _cut_case("three cuts", 4, 1, 2),
        _cut_case("two steps", 2, 2, 3),
        _cut_case("two steps", 4, 2, 4),
    ]


def _cut_drawn(random: Random) -> list[Case]:
    seeds = [random.randrange(10**6) for _ in range(4)]
    return [
        _cut_case("one cut", 2, 1, seeds[0]),
        _cut_case("three cuts", 4, 1, seeds[1]),
        _cut_case("three cuts", random.randint(5, 8), 1, seeds[2]),
        _cut_case("two steps", random.randint(2, 5), 3, seeds[3]),
    ]


def _where(case: Case, step: int) -> str:
    return case.words if case["steps"] == 1 else f"{case.words}, step {step} (counted from 0)"


def _ask_cut(call: Call, case: Case) -> Any:
    """Drive the learner's two functions as a pipeline of devices does; tell, as numbers, what each of them left."""
    import warnings

    _first_backward()
    stages = pieces(case["_seed"], case["stages"])
    memories: list[dict[str, Any]] = [{} for _ in stages]
    told: list[dict[str, Any]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # .grad of a tensor that is no leaf warns; the check says it better
        for step in range(case["steps"]):
            record: dict[str, Any] = {}
            told.append(record)
            if not _ask_step(call, case, stages, memories, step, record):
                break
    return told


def _first_backward() -> None:
    """Let torch load what it loads at the first backward with a gradient: not in the time of a learner's call.

    Sympy is among it. On a busy machine that takes seconds, and a time limit in the middle of it leaves half of it.
    """
    import torch

    torch.zeros(1, requires_grad=True).clone().backward(torch.zeros(1))


def _ask_step(
    call: Call,
    case: Case,
    stages: Sequence[nn.Module],
    memories: Sequence[dict[str, Any]],
    step: int,
    record: dict[str, Any],
) -> bool:
    x, targets = _batch(case["_seed"], case["stages"], step)
    where = _where(case, step)
    handed: Any = x
    for s, stage in enumerate(stages):
        stage.zero_grad()
        handed = call("forward_piece", stage, handed, memories[s], _keep=False, _plain=False)
        _require_tensor(handed, f"{where}: forward_piece on device {s}")
        reached = stages_reached([handed, *tensors_in(memories[s])], stages)
        if any(k < s for k in reached):
            record |= {"uncut": s, "reached": [k for k in reached if k < s]}
            return False
    record["output"] = handed.tolist()
    record["shape"] = list(handed.shape)
    if handed.shape != targets.shape:
        return False
    gradient: Any = _loss_gradient(handed, targets)
    record["returned"], record["gradients"] = {}, {}
    for s in reversed(range(len(stages))):
        rooted = any(tensor.grad_fn is not None for tensor in tensors_in(memories[s]))
        try:
            gradient = call("backward_piece", gradient, memories[s], _keep=False, _plain=False, _none=True)
        except Refused as refusal:
            if not rooted and "does not require grad" in str(refusal):
                raise Refused(f"{where}: {_no_history(s)}") from None
            raise
        alive = still_held(tensors_in(memories[s]), stages[s])
        if alive:
            record.setdefault("alive", {})[str(s)] = [len(alive), sum(tensor.nbytes for tensor in alive)]
        touched = [k for k in range(s) if any(p.grad is not None for p in stages[k].parameters())]
        if touched:
            record |= {"uncut": s, "reached": touched, "backward": True}
            return False
        grads = [parameter.grad for parameter in stages[s].parameters()]
        record["gradients"][str(s)] = [None if grad is None else grad.flatten().tolist() for grad in grads]
        if not rooted and None in record["gradients"][str(s)]:
            record["rootless"] = s
        if s == 0:
            break
        if gradient is None:
            leaf = any(t.is_leaf and t.requires_grad and t.grad is not None for t in tensors_in(memories[s]))
            record |= {"nothing": s, "there": leaf}
            return False
        _require_tensor(gradient, f"{where}: backward_piece on device {s}")
        record["returned"][str(s)] = {"shape": list(gradient.shape), "values": gradient.flatten().tolist()}
        if gradient.shape != (6, 3 + s):
            return False
    return True


def _require_tensor(value: Any, what: str) -> None:
    import torch

    if not isinstance(value, torch.Tensor):
        raise Refused(f"{what} should return a tensor, it returned {type(value).__name__}")


def _truth(case: Case, step: int) -> tuple[Tensor, list[Tensor], list[list[Tensor]], list[list[Tensor]]]:
    """The unsplit model: output, gradient of each stage's input, of its parameters, and those of a seed of ones."""
    import torch

    stages = pieces(case["_seed"], case["stages"])
    x, targets = _batch(case["_seed"], case["stages"], step)
    values = [x.requires_grad_()]
    for stage in stages:
        values.append(stage(values[-1]))
    seeds = torch.autograd.grad(values[-1], values[:-1], _loss_gradient(values[-1], targets), retain_graph=True)
    parameters = [list(stage.parameters()) for stage in stages]
    loss = ((values[-1] - targets) ** 2).mean()
    flat = torch.autograd.grad(loss, [p for group in parameters for p in group], retain_graph=True)
    rest = iter(flat)
    grads = [[next(rest) for _ in group] for group in parameters]
    ones = [
        list(torch.autograd.grad(value, group, torch.ones_like(value), retain_graph=True))
        for value, group in zip(values[1:], parameters, strict=True)
    ]
    return values[-1].detach(), list(seeds), grads, ones


def _judge_cut(case: Case, data: Any) -> Finding | None:
    if not isinstance(data, list) or not data:
        return Finding(f"{case.words}: nothing came back")
    before: list[list[Tensor]] = []
    for step, record in enumerate(data):
        found = _judge_step(case, step, record, before)
        if found is not None:
            return found
    if len(data) != case["steps"]:
        return Finding(f"{case.words}: only {len(data)} of {case['steps']} steps ended")
    return None


def _judge_step(case: Case, step: int, record: Mapping[str, Any], before: list[list[Tensor]]) -> Finding | None:
    """``before`` are the gradients of the boundaries in the steps before this one; this one's are added."""
    import torch

    where = _where(case, step)
    if "uncut" in record:
        return _uncut(where, record)
    output, boundaries, grads, ones = _truth(case, step)
    if record.get("shape") != list(output.shape) or not _near(record["output"], output):
        return Finding(
            f"{where}: the last stage's output is not what the model in one piece computes. forward_piece should run "
            "the stage on what it received, and return the output."
        )
    last = case["stages"] - 1
    for s in reversed(range(case["stages"])):
        given = record["gradients"].get(str(s))
        if given is None:
            break
        if any(entry is None for entry in given):
            return Finding(f"{where}: " + _no_gradient(s, rootless=record.get("rootless") == s))
        if not _all_near(given, grads[s]):
            return Finding(f"{where}: " + _wrong_gradient(s, last, given, grads[s], ones[s]))
        if record.get("nothing") == s:
            return Finding(f"{where}: " + _nothing(s, there=bool(record.get("there"))))
        if s == 0:
            break
        sent, wanted = record["returned"][str(s)], boundaries[s]
        values = torch.tensor(sent["values"], dtype=torch.float64)
        if sent["shape"] == list(wanted.shape) and _near(values.reshape(wanted.shape), wanted):
            continue
        return Finding(f"{where}: " + _wrong_message(s, sent["shape"], values, wanted, [b[s] for b in before]))
    before.append(boundaries)
    alive = record.get("alive", {})
    if alive and case["steps"] > 1:
        s = max(map(int, alive))
        return Finding(f"{where}: " + _kept_alive(s, *alive[str(s)]))
    return None


def _kept_alive(s: int, count: int, size: int) -> str:
    return (
        f"all gradients are right, but the graph of device {s} still holds {count} tensors ({size:,} bytes) after "
        "backward_piece. A backward frees its graph, unless it is called with retain_graph=True. Then this memory is "
        "never freed as long as the output is kept, and it grows with every micro-batch."
    )


def _no_history(s: int) -> str:
    return (
        f"the backward of device {s} has nothing to go back through: no tensor in its memory has a history (a "
        "grad_fn). Did you keep the detached output? Keep the output as the stage returned it, and detach only what "
        "you send."
    )


def _uncut(where: str, record: Mapping[str, Any]) -> Finding:
    s, stages = record["uncut"], ", ".join(map(str, record["reached"]))
    plural = "stages" if len(record["reached"]) > 1 else "stage"
    if record.get("backward"):
        seen = f"backward_piece on device {s} already filled .grad of {plural} {stages}"
    else:
        seen = f"after forward_piece on device {s}, its graph reaches the parameters of {plural} {stages}"
    return Finding(
        f"{where}: {seen}. The gradients may be right here, in one process, but the graph is not cut. Between two "
        "devices only numbers travel, no graph. Detach what was received."
    )


def _no_gradient(s: int, *, rootless: bool) -> str:
    start = f"after backward_piece on device {s} the parameters of stage {s} have no .grad. "
    if rootless:
        return start + (
            "No tensor in this device's memory leads back to them any more. Was it detached in place? detach_() "
            "changes the tensor itself, and the device before has kept that same tensor as its output. detach() makes "
            "a new one."
        )
    return start + (
        "A backward gives two things. The gradients of the weights stay here, and the gradient of the input is sent. "
        "torch.autograd.grad only returns what you ask for. Tensor.backward fills .grad."
    )


def _nothing(s: int, *, there: bool) -> str:
    start = f"backward_piece on device {s} returned None, so device {s - 1} gets no gradient. "
    if there:
        return start + "The gradient is there, in .grad of the received tensor: return it."
    return start + (
        "detach() gives a tensor that asks for no gradient, so this backward leaves none for it. requires_grad_() "
        "makes the received tensor a leaf of the new graph. Its .grad is what you send."
    )


def _wrong_gradient(s: int, last: int, given: Sequence[Any], wanted: Sequence[Tensor], ones: Sequence[Tensor]) -> str:
    start = f"the gradients of stage {s} are not the unsplit model's. "
    if _all_near(given, ones):
        source = "of the loss" if s == last else f"that device {s + 1} sent"
        return start + (
            f"They come from a backward seeded with ones, as in .sum().backward(). The backward of device {s} must "
            f"start from the gradient {source}: y.backward(gradient)."
        )
    if _all_near([[v / 2 for v in entry] for entry in given], wanted):
        return start + "They are twice as large. Did the backward run twice, or did your code add to .grad as well?"
    return start + "The backward must start at the output of this step, from the gradient that was handed in."


def _wrong_message(s: int, shape: Sequence[int], values: Tensor, wanted: Tensor, before: Sequence[Tensor]) -> str:
    start = f"backward_piece on device {s} did not return the gradient of what this device received. "
    if list(shape) != list(wanted.shape):
        return start + (
            f"Its shape is {list(shape)}, but the input of stage {s} has the shape {list(wanted.shape)}. Send the "
            "gradient of the stage's input, not of its output."
        )
    summed = wanted.clone()
    for k, earlier in enumerate(reversed(before)):
        summed = summed + earlier
        if _near(values.reshape(wanted.shape), summed):
            count = "the step before" if k == 0 else f"{k + 1} steps before"
            return start + (
                f"It is this step's gradient plus that of {count} (a stale boundary gradient). The same leaf was used "
                "again, and .grad adds up. Make a new leaf in each forward, or clear its .grad."
            )
    if any(_near(values.reshape(wanted.shape), earlier) for earlier in before):
        return start + "It is that of an earlier step."
    return start + "Return .grad of the received tensor, after this device's backward."


def _near(given: Any, wanted: Tensor) -> bool:
    import torch

    try:
        found = torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError):
        return False
    return found.shape == wanted.shape and bool(torch.allclose(found, wanted, rtol=1e-9, atol=1e-12))


def _all_near(given: Sequence[Any], wanted: Sequence[Tensor]) -> bool:
    return len(given) == len(wanted) and all(_near(g, w.flatten()) for g, w in zip(given, wanted, strict=True))


EXERCISE = Exercise(
    name="cut_graph",
    lesson="01b_by_hand",
    title="Cut the graph",
    answers=("forward_piece", "backward_piece"),
    parts={"one cut": 1, "three cuts": 1, "two steps": 1},
    visible=_cut_cases(),
    drawn=_cut_drawn,
    ask=_ask_cut,
    judge=_judge_cut,
)
