"""Exercise of lesson 1: what must fit?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from typing import Any

from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import close, read_number, read_whole

GIB = 2**30
GPT3 = 175_000_000_000


def per_parameter(moments: int) -> int:
    """Bytes a parameter: 16-bit weight and gradient, fp32 master copy, fp32 moments (arXiv 1910.02054, section 3.1)."""
    return 2 + 2 + 4 + 4 * moments


def _slips(moments: int) -> Iterator[tuple[float, str]]:
    """Wrong counts of bytes a parameter, the likeliest first, each with what was overlooked."""
    all_of_it = per_parameter(moments)
    kept = {0: "no value", 1: "one 32-bit value"}.get(moments, "two 32-bit values")
    yield (
        2,
        "That is 2 bytes a parameter: the 16-bit weights alone. Training also keeps gradients, a master copy and the "
        "optimizer's moments.",
    )
    yield 4, "That is 4 bytes a parameter: 16-bit weights and gradients. The optimizer needs more than that."
    yield all_of_it - 2, "The gradients are missing: 2 bytes a parameter, as many as for the weights."
    yield (
        all_of_it - 4,
        "The master copy in 32 bits is missing: 4 bytes a parameter. An update can be too small to change a 16-bit "
        "weight. Therefore a copy of the weights in 32 bits is updated.",
    )
    yield all_of_it - 6, "The gradients (2 bytes a parameter) and the master copy (4 bytes) are both missing."
    yield 8, "The optimizer's moments are missing: 4 bytes a parameter for each of them."
    yield 16, f"That is Adam's 16 bytes a parameter. Here moments = {moments}: the optimizer keeps {kept} a parameter."
    yield all_of_it - 2 * moments, "Moments have 32 bits: 4 bytes a parameter for each of them, not 2."
    yield all_of_it + 2, "Gradients have 16 bits here: 2 bytes a parameter, not 4."
    yield all_of_it + 4, "Weights and gradients have 16 bits here: 2 bytes a parameter each, not 4."
    yield 8 * all_of_it, "That is the number of bits. Return bytes."


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
        why = "That is in GiB. Return bytes."
    return Finding(
        f"{case.words}: training_bytes returned {given:,.6g}, {given / parameters:.4g} bytes a parameter. "
        + (why or "Add up the bytes of weight, gradient, master copy and moments of one parameter.")
    )


def _judge_gib(case: Case, data: Any) -> Finding | None:
    given = read_number(data, f"{case.words}: gib_per_device")
    parameters, moments, devices = case["parameters"], case["moments"], case["devices"]
    wanted = parameters * per_parameter(moments) / GIB / devices
    if close(given, wanted):
        return None
    start = f"{case.words}: gib_per_device returned {given:.6g}. "
    if close(given, wanted * GIB / 1e9):
        why = "That is in GB, 10^9 bytes each. A GiB is 2^30 bytes, 7 % more."
    elif devices > 1 and close(given, wanted * devices):
        why = f"That is the whole training state. Each of the {devices} devices holds 1/{devices} of it."
    elif close(given, wanted * GIB):
        why = "That is in bytes. A GiB is 2^30 bytes."
    elif close(given, wanted * 1024):
        why = "That is in MiB, 2^20 bytes each. A GiB is 2^30 bytes."
    else:
        scales = ((GIB, ""), (1e9, " And it counts in GB, 10^9 bytes. A GiB is 2^30 bytes."))
        slips = ((count, text + more, size) for size, more in scales for count, text in _slips(moments))
        why = next(
            (text for count, text, size in slips if close(given, parameters * count / size / devices)),
            "Divide the bytes of training state by 2^30, and by the number of devices.",
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
    short = f"With {given}, each device would have to hold {held:.5g} GiB, but it has only {gib}. "
    spare = f"{wanted} are enough. Each then holds {parameters * per_parameter(moments) / GIB / wanted:.5g} GiB. "
    start += short if given < wanted else spare
    if given == math.floor(needed):
        return Finding(start + "A partly filled device is still a device, so round up.")
    if given == wanted + 1 and needed == wanted:
        return Finding(start + "If it fits exactly, nothing is left for one more device.")
    confused = "That counts in GB, 10^9 bytes. A GiB is 2^30 bytes."
    if given == math.ceil(parameters * per_parameter(moments) / 1e9 / gib):
        return Finding(start + confused)
    for size, more in ((GIB, ""), (1e9, f" {confused}")):
        for count, text in _slips(moments):
            if given == math.ceil(parameters * count / size / gib):
                return Finding(start + text + more)
    return Finding(start + "Divide the training state in GiB by the GiB of one device, and round up.")


EXERCISE = Exercise(
    name="must_fit",
    lesson="01_four_devices",
    title="What must fit?",
    answers=("training_bytes", "gib_per_device", "least_devices"),
    parts={"bytes": 1, "GiB per device": 1, "least devices": 1},
    visible=_fit_cases(),
    drawn=_fit_drawn,
    ask=_ask_fit,
    judge=_judge_fit,
)
