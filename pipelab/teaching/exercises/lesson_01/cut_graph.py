"""Exercises of lesson 1: what must fit, cutting an autograd graph, the naive timetable."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from pipelab import view
from pipelab.errors import PipelabError
from pipelab.schedules import Action, TimeTable, build_schedule, check_schedule, format_slot
from pipelab.schedules.text import read_rows
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import close, kind_of, read_number, read_whole

if TYPE_CHECKING:
    from torch import Tensor, nn

LESSON = "01_four_devices"
GIB = 2**30
GPT3 = 175_000_000_000


# ---- what must fit ------------------------------------------------------------------------------------------------


def per_parameter(moments: int) -> int:
    """Bytes a parameter: 16-bit weight and gradient, fp32 master copy, fp32 moments (arXiv 1910.02054, section 3.1)."""
    return 2 + 2 + 4 + 4 * moments


def _slips(moments: int) -> Iterator[tuple[float, str]]:
    """Wrong counts of bytes a parameter, the likeliest first, each with what was overlooked."""
    all_of_it = per_parameter(moments)
    kept = {0: "no optimizer state", 1: "one fp32 value of optimizer state"}.get(moments, "Adam's two fp32 moments")
    yield (
        2,
        "That is 2 bytes a parameter: the 16-bit weights alone. Training also keeps gradients, a master copy, moments.",
    )
    yield 4, "That is 4 bytes a parameter: 16-bit weights and gradients. The optimizer keeps more than both of them."
    yield all_of_it - 2, "The gradients are forgotten: 2 bytes a parameter, as large as the weights themselves."
    yield (
        all_of_it - 4,
        "There is no fp32 master copy: 4 bytes a parameter. Updates are smaller than the last digit of a 16-bit "
        "weight, so they are applied to a copy of the weights in 32 bits.",
    )
    yield all_of_it - 6, "Gradients (2 bytes a parameter) and the fp32 master copy (4 bytes) are both forgotten."
    yield 8, "The optimizer's moments are forgotten: 4 bytes a parameter for each of them."
    yield 16, f"That is Adam's 16 bytes a parameter; here the optimizer keeps {kept}: moments = {moments}."
    yield all_of_it - 2 * moments, "Moments are kept in 32 bits: 4 bytes a parameter for each, not 2."
    yield all_of_it + 2, "Gradients are kept in 16 bits here: 2 bytes a parameter, not 4."
    yield all_of_it + 4, "Weights and gradients are kept in 16 bits here: 2 bytes a parameter each, not 4."
    yield 8 * all_of_it, "That is in bits."


def _fit_case(part: str, parameters: int, moments: int, **given: int) -> Case:
    named = f"{parameters / 1e9:g} billion" if parameters >= 10**9 and parameters % 10**8 == 0 else f"{parameters:,}"
    words = [f"{named} parameters", f"moments = {moments}", *(f"{name} = {value}" for name, value in given.items())]
    return Case(part, {"parameters": parameters, "moments": moments, **given, "_words": ", ".join(words)})


def _fit_cases() -> list[Case]:
    return [
        _fit_case("bytes", 1000, 2),
        _fit_case("bytes", 1000, 1),
        _fit_case("bytes", 1000, 0),
        _fit_case("bytes", GPT3, 2),
        _fit_case("GiB per device", GIB, 2, devices=1),
        _fit_case("GiB per device", GIB, 1, devices=4),
        _fit_case("GiB per device", 10, 2, devices=3),
        _fit_case("GiB per device", GPT3, 2, devices=8),
        _fit_case("least devices", 100 * GIB, 2, gib=16),
        _fit_case("least devices", GIB, 2, gib=10),
        _fit_case("least devices", GIB, 0, gib=80),
        _fit_case("least devices", 100 * GIB + 1, 2, gib=16),
        _fit_case("least devices", GPT3, 2, gib=80),
        _fit_case("least devices", 7_000_000_000, 1, gib=24),
    ]


def _fit_drawn(random: Random) -> list[Case]:
    cases = []
    for moments in (0, 1, 2):
        cases.append(_fit_case("bytes", random.randrange(10**6, 10**9), moments))
        parameters = random.randrange(10, 5000) * 10**8
        cases.append(_fit_case("GiB per device", parameters, moments, devices=random.randint(2, 64)))
        exact = random.randint(2, 40)  # a device of 8 GiB holds half a 2**30 of Adam's 16 bytes
        cases.append(_fit_case("least devices", exact * GIB, moments, gib=per_parameter(moments)))
        gib = random.choice((16, 24, 40, 80, 96))
        while (parameters * per_parameter(moments) / GIB / gib) % 1 < 1e-3:
            parameters += 10**8
        cases.append(_fit_case("least devices", parameters, moments, gib=gib))
    return cases


def _ask_fit(call: Call, case: Case) -> Any:
    if case.part == "bytes":
        return call("training_bytes", case["parameters"], case["moments"])
    if case.part == "GiB per device":
        return call("gib_per_device", case["parameters"], case["devices"], case["moments"])
    return call("least_devices", case["parameters"], case["gib"], case["moments"])


def _judge_fit(case: Case, data: Any) -> Finding | None:
    return {"bytes": _judge_bytes, "GiB per device": _judge_gib, "least devices": _judge_least}[case.part](case, data)


def _judge_bytes(case: Case, data: Any) -> Finding | None:
    given = read_number(data, f"{case.words}: training_bytes")
    parameters, moments = case["parameters"], case["moments"]
    wanted = parameters * per_parameter(moments)
    if close(given, wanted):
        return None
    why = next((why for count, why in _slips(moments) if close(given, parameters * count)), "")
    if not why and close(given, wanted / GIB):
        why = "That is in GiB; bytes are asked for."
    return Finding(
        f"{case.words}: training_bytes returned {given:,.6g}, {given / parameters:.4g} bytes a parameter. "
        + (why or "Add up weights, gradients, master copy and moments, in bytes a parameter.")
    )


def _judge_gib(case: Case, data: Any) -> Finding | None:
    given = read_number(data, f"{case.words}: gib_per_device")
    parameters, moments, devices = case["parameters"], case["moments"], case["devices"]
    wanted = parameters * per_parameter(moments) / GIB / devices
    if close(given, wanted):
        return None
    start = f"{case.words}: gib_per_device returned {given:.6g}. "
    if close(given, wanted * GIB / 1e9):
        why = "That is in GB, 10^9 bytes each; a GiB is 2^30 bytes, 7 % more."
    elif devices > 1 and close(given, wanted * devices):
        why = f"That is all of it; each of the {devices} devices holds 1/{devices}."
    elif close(given, wanted * GIB):
        why = "That is in bytes; a GiB is 2^30 bytes."
    elif close(given, wanted * 1024):
        why = "That is in MiB, 2^20 bytes each; a GiB is 2^30 bytes."
    else:
        scales = ((GIB, ""), (1e9, " And GB, 10^9 bytes, are not GiB, 2^30 bytes."))
        slips = ((count, text + more, size) for size, more in scales for count, text in _slips(moments))
        why = next(
            (text for count, text, size in slips if close(given, parameters * count / size / devices)),
            "Bytes of training state, over 2^30, over the devices.",
        )
    return Finding(start + why)


def _judge_least(case: Case, data: Any) -> Finding | None:
    given = read_whole(data, f"{case.words}: least_devices")
    parameters, moments, gib = case["parameters"], case["moments"], case["gib"]
    needed = parameters * per_parameter(moments) / GIB / gib
    wanted = math.ceil(needed)
    if given == wanted:
        return None
    start = f"{case.words}: least_devices returned {given}. "
    held = parameters * per_parameter(moments) / GIB / given if given > 0 else math.inf
    short = f"Spread over {given}, each device would have to hold {held:.5g} GiB, but has {gib}. "
    spare = f"{wanted} are enough: {parameters * per_parameter(moments) / GIB / wanted:.5g} GiB each. "
    start += short if given < wanted else spare
    if given == math.floor(needed):
        return Finding(start + "A part of a device is a whole device more: round up.")
    if given == wanted + 1 and needed == wanted:
        return Finding(start + "Where it fits exactly, there is nothing left for one device more.")
    confused = "GB, 10^9 bytes, are not GiB, 2^30 bytes."
    if given == math.ceil(parameters * per_parameter(moments) / 1e9 / gib):
        return Finding(start + confused)
    for size, more in ((GIB, ""), (1e9, f" {confused}")):
        for count, text in _slips(moments):
            if given == math.ceil(parameters * count / size / gib):
                return Finding(start + text + more)
    return Finding(start + "The training state in GiB, over the GiB of one device, rounded up.")


# ---- cut the graph ------------------------------------------------------------------------------------------------


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
        reached = _reached([handed, *_tensors(memories[s])], stages)
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
        rooted = any(tensor.grad_fn is not None for tensor in _tensors(memories[s]))
        gradient = call("backward_piece", gradient, memories[s], _keep=False, _plain=False, _none=True)
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
            leaf = any(t.is_leaf and t.requires_grad and t.grad is not None for t in _tensors(memories[s]))
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


def _tensors(memory: Mapping[Any, Any]) -> list[Tensor]:
    """The tensors that a device has kept, also inside lists and tuples."""
    import torch

    found: list[Any] = []
    todo: list[Any] = list(memory.values())
    while todo:
        value = todo.pop()
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            todo += value
    return found


def _reached(tensors: Sequence[Tensor], stages: Sequence[nn.Module]) -> list[int]:
    """The stages whose parameters a backward from ``tensors`` would come to."""
    owner = {id(parameter): s for s, stage in enumerate(stages) for parameter in stage.parameters()}
    seen: set[Any] = set()
    todo: list[Any] = [tensor.grad_fn for tensor in tensors]
    reached: set[int] = set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if id(variable) in owner:
            reached.add(owner[id(variable)])
        todo += [following for following, _ in node.next_functions]
    return sorted(reached)


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
        return Finding(f"{case.words}: only {len(data)} of {case['steps']} steps came to an end")
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
            f"{where}: what came out of the last stage is not what the unsplit model computes. forward_piece runs its "
            "stage on what it received and returns the output."
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
    return None


def _uncut(where: str, record: Mapping[str, Any]) -> Finding:
    s, stages = record["uncut"], ", ".join(map(str, record["reached"]))
    plural = "stages" if len(record["reached"]) > 1 else "stage"
    if record.get("backward"):
        seen = f"backward_piece on device {s} already filled .grad of {plural} {stages}"
    else:
        seen = f"after forward_piece on device {s}, its graph reaches the parameters of {plural} {stages}"
    return Finding(
        f"{where}: {seen}. The gradients may come out right here, in one process, but the graph is not cut: between "
        "two devices numbers travel, no graph. Detach what was received."
    )


def _no_gradient(s: int, *, rootless: bool) -> str:
    start = f"after backward_piece on device {s} the parameters of stage {s} have no .grad. "
    if rootless:
        return start + (
            "No tensor in this device's memory leads back to them any more. Was it detached in place? detach_() "
            "changes the very tensor that the device before has kept as its output; detach() makes another one."
        )
    return start + (
        "A backward gives two things: gradients of the weights, which stay, and the gradient of the input, which is "
        "sent. torch.autograd.grad only returns what it is asked for; Tensor.backward fills .grad."
    )


def _nothing(s: int, *, there: bool) -> str:
    start = f"backward_piece on device {s} returned None, so device {s - 1} gets nothing to go on with. "
    if there:
        return start + "The gradient is there, in .grad of what was received: return it."
    return start + (
        "detach() gives a tensor that asks for no gradient, so this backward stops at the weights of its own stage. "
        "With requires_grad_() the received tensor is a leaf of the new graph, and its .grad is what to send."
    )


def _wrong_gradient(s: int, last: int, given: Sequence[Any], wanted: Sequence[Tensor], ones: Sequence[Tensor]) -> str:
    start = f"the gradients of stage {s} are not the unsplit model's. "
    if _all_near(given, ones):
        source = "of the loss" if s == last else f"that device {s + 1} sent"
        return start + (
            f"They are those of a backward seeded with ones, as after .sum().backward(). The backward of device {s} "
            f"starts from the gradient {source}: y.backward(gradient)."
        )
    if _all_near([[v / 2 for v in entry] for entry in given], wanted):
        return start + "They are twice as large: did the backward run twice, or add to .grad itself?"
    return start + "Its backward starts from the gradient that was handed in, at the output of this very step."


def _wrong_message(s: int, shape: Sequence[int], values: Tensor, wanted: Tensor, before: Sequence[Tensor]) -> str:
    start = f"what backward_piece on device {s} returned is not the gradient of what it received. "
    if list(shape) != list(wanted.shape):
        return start + (
            f"Its shape is {list(shape)}, the input of stage {s} has {list(wanted.shape)}: sent on is the gradient of "
            "the stage's input, not of its output."
        )
    summed = wanted.clone()
    for k, earlier in enumerate(reversed(before)):
        summed = summed + earlier
        if _near(values.reshape(wanted.shape), summed):
            count = "the step before" if k == 0 else f"{k + 1} steps before"
            return start + (
                f"It is this step's gradient plus that of {count}: .grad accumulates, and the same leaf was used again "
                "(stale boundary gradient). Make a new leaf in each forward, or clear its .grad."
            )
    if any(_near(values.reshape(wanted.shape), earlier) for earlier in before):
        return start + "It is that of an earlier step."
    return start + "It should be .grad of the received tensor after this device's backward."


def _near(given: Any, wanted: Tensor) -> bool:
    import torch

    try:
        found = torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError):
        return False
    return found.shape == wanted.shape and bool(torch.allclose(found, wanted, rtol=1e-9, atol=1e-12))


def _all_near(given: Sequence[Any], wanted: Sequence[Tensor]) -> bool:
    return len(given) == len(wanted) and all(_near(g, w.flatten()) for g, w in zip(given, wanted, strict=True))


# ---- naive for any p ----------------------------------------------------------------------------------------------


def _naive_cases() -> list[Case]:
    times = [(3, 2, 1, 1), (4, 4, 1, 1), (2, 5, 1, 2), (3, 3, 1.5, 1)]
    return [
        *(Case("table", {"p": p}) for p in (1, 2, 3, 4, 8)),
        *(Case("time", {"p": p, "m": m, "tF": f, "tB": b}) for p, m, f, b in times),
    ]


def _naive_drawn(random: Random) -> list[Case]:
    drawn = [Case("table", {"p": random.randint(5, 12)}), Case("table", {"p": random.randint(13, 40)})]
    for _ in range(3):
        p, m = random.randint(2, 16), random.randint(2, 32)
        drawn.append(Case("time", {"p": p, "m": m, "tF": random.choice((1, 1.5, 2)), "tB": random.choice((1, 2, 2.5))}))
    return drawn


def _ask_naive(call: Call, case: Case) -> Any:
    if case.part == "table":
        return call("naive_table", case["p"])
    return call("naive_time", case["p"], case["m"], case["tF"], case["tB"])


def _judge_naive(case: Case, data: Any) -> Finding | None:
    return _judge_table(case, data) if case.part == "table" else _judge_time(case, data)


def _judge_table(case: Case, data: Any) -> Finding | None:
    p = case["p"]
    table = _timed(case, data)
    actions = [action for row in table.rows for slot in row if slot is not None for action in _of(slot)]
    if any(action.microbatch > 0 for action in actions):
        first = next(action for action in actions if action.microbatch > 0)
        return Finding(
            f"{case.words}: your table has {first}, but in the naive pipeline there is one micro-batch, number 0: the "
            "whole batch."
        )
    astray = [
        (r, t, action)
        for r, row in enumerate(table.rows)
        for t, slot in enumerate(row)
        for action in (_of(slot) if slot is not None else ())
        if action.stage != r
    ]
    if astray:
        r, t, action = min(astray, key=lambda found: found[1])
        return Finding(
            f"{case.words}: device {r} runs {action}, but stage {action.stage} is not on it. Device r holds stage r, "
            "and both count from 0.",
            partial(_drawing, table, case, [(r, t)]),
        )
    violations = check_schedule(table)
    if violations:
        missing = [v for v in violations if v.code == "missing"]
        first_one = (missing or sorted(violations, key=lambda v: (v.position or 0, v.device)))[0]
        places = [] if first_one.position is None else [(first_one.device, first_one.position)]
        return Finding(
            f"{case.words}: {first_one.message}. {_reason(first_one)}".rstrip(), partial(_drawing, table, case, places)
        )
    truth = {(r, f"{r}F0"): r for r in range(p)} | {(r, f"{r}B0"): 2 * p - 1 - r for r in range(p)}
    starts = {
        (r, format_slot(slot)): t for r, row in enumerate(table.rows) for t, slot in enumerate(row) if slot is not None
    }
    for (r, name), t in sorted(truth.items(), key=lambda pair: pair[1]):
        if (r, name) not in starts:
            return Finding(
                f"{case.words}: device {r} has no {name}. Each device runs one forward and one whole backward (B).",
                partial(_drawing, table, case, []),
            )
        if starts[r, name] != t:
            return Finding(
                f"{case.words}: sound, but device {r} runs {name} at t = {starts[r, name]}, and all that it needs is "
                f"there at t = {t}. Columns count from 0, and nobody waits longer than needed.",
                partial(_drawing, table, case, [(r, starts[r, name])]),
            )
    extra = set(starts) - set(truth)
    if extra:
        r, name = min(extra)
        return Finding(
            f"{case.words}: device {r} also runs {name}; the naive pipeline is one F and one B per device.",
            partial(_drawing, table, case, [(r, starts[r, name])]),
        )
    return None


def _of(slot: Any) -> tuple[Action, ...]:
    return (slot,) if isinstance(slot, Action) else slot


def _timed(case: Case, data: Any) -> TimeTable:
    """What came as a timed table, idle columns behind the last action left out."""
    what = f"{case.words}: naive_table"
    if not isinstance(data, list):
        raise Refused(f"{what} should return a list of rows, one per device; it returned {kind_of(data)}")
    if len(data) != case["p"]:
        raise Refused(f"{what} should return {case['p']} rows, one per device; it returned {len(data)}")
    strange = next((row for row in data if not isinstance(row, list)), None)
    if strange is not None:
        raise Refused(f"{what}: a row should be a list of cells such as '0F0' or '.', one is {kind_of(strange)}")
    try:
        rows = read_rows(data)
    except PipelabError as error:
        raise Refused(f"{what}: {error}") from None
    columns = max((t + 1 for row in rows for t, slot in enumerate(row) if slot is not None), default=0)
    return TimeTable(tuple((row + (None,) * columns)[:columns] for row in rows))


def _reason(violation: Any) -> str:
    """The classic mistake behind a violation, in the field's words."""
    action, blocker = violation.action, violation.blocker
    if violation.code == "too-early" and action.op == "F":
        if violation.position == 0:
            return (
                "Everyone starts at 0 here; in a pipeline a device has nothing to work on until the activation of the "
                "stage before it has come."
            )
        return "An activation goes down the devices one by one, one slot each."
    if violation.code in ("too-early", "order") and action.op == "B" and blocker is not None and blocker.op == "B":
        return (
            "The gradient comes from the last stage and goes up, from the last device to the first: backwards run in "
            "the reverse order of forwards."
        )
    if violation.code in ("too-early", "order") and action.op == "B":
        return "The gradient is known only when the last stage has finished its forward, and comes back from there."
    return ""


def _drawing(table: TimeTable, case: Case, places: Sequence[tuple[int, int]]) -> Any:
    note = "Framed: the place in question." if places else ""
    return view.plot_table(table, title=f"Your table, {case.words}", marked=places, note=note)


def _judge_time(case: Case, data: Any) -> Finding | None:
    given = read_number(data, f"{case.words}: naive_time")
    p, m, f, b = (case[name] for name in ("p", "m", "tF", "tB"))
    wanted = simulate(build_schedule("naive", devices=p, microbatches=m), Costs(forward=f, backward=b)).makespan
    if close(given, wanted):
        return None
    slips: list[tuple[float, str]] = [
        (p * (f + b), f"That is the time of one micro-batch; naive sends the whole batch, {m} times as much work."),
        (m * (f + b), f"That is how long one device works; the {p} devices work one after the other."),
        (
            (m + p - 1) * (f + b),
            "That is the time of a schedule that overlaps micro-batches on different devices. In the naive pipeline "
            "nothing overlaps: one device works at a time.",
        ),
        (p * m * f, "Those are the forwards; each device also runs a backward."),
        (p * m * (f + b) / p**2, "Divided by the devices twice: the work of all of them is done one after the other."),
        (2 * p * m, "That counts tF = tB = 1."),
        (2 * p, "That counts the columns of the table; each of them is a forward or backward of the whole batch."),
    ]
    why = next((text for value, text in slips if close(given, value)), "One device works at a time: add up all work.")
    return Finding(f"{case.words}: naive_time returned {given:g}, it takes {wanted:g}. {why}")


EXERCISES = (
    Exercise(
        name="must_fit",
        lesson=LESSON,
        title="What must fit?",
        answers=("training_bytes", "gib_per_device", "least_devices"),
        parts={"bytes": 1, "GiB per device": 1, "least devices": 1},
        visible=_fit_cases(),
        drawn=_fit_drawn,
        ask=_ask_fit,
        judge=_judge_fit,
    ),
    Exercise(
        name="cut_graph",
        lesson=LESSON,
        title="Cut the graph",
        answers=("forward_piece", "backward_piece"),
        parts={"one cut": 1, "three cuts": 1, "two steps": 1},
        visible=_cut_cases(),
        drawn=_cut_drawn,
        ask=_ask_cut,
        judge=_judge_cut,
    ),
    Exercise(
        name="naive_table",
        lesson=LESSON,
        title="Naive for any p",
        answers=("naive_table", "naive_time"),
        parts={"table": 2, "time": 1},
        visible=_naive_cases(),
        drawn=_naive_drawn,
        ask=_ask_naive,
        judge=_judge_naive,
    ),
)
