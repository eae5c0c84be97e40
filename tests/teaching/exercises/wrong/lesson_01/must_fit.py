from tests.teaching.exercises.wrong import Wrong

UP = "ceil(gib_per_device(parameters, 1, moments) / gib)"


def fit(count: str, size: str = "2**30", whole: str = UP) -> str:
    """All three answers with one and the same mistake: ``count`` bytes a parameter, a GiB of ``size`` bytes."""
    return f"""
from math import ceil, floor

GIB = {size}

def training_bytes(parameters, moments=2):
    return parameters * ({count})

def gib_per_device(parameters, devices, moments=2):
    return training_bytes(parameters, moments) / GIB / devices

def least_devices(parameters, gib, moments=2):
    return {whole}
"""


WRONG = [
    Wrong("must_fit", fit("2"), says="the 16-bit weights alone"),
    Wrong("must_fit", fit("2 + 4 + 4 * moments"), says="The gradients are missing"),
    Wrong("must_fit", fit("2 + 2 + 4 * moments"), says="The master copy in 32 bits is missing"),
    Wrong(
        "must_fit",
        fit("8 + 4 * moments", size="10**9"),
        says="A GiB is 2^30 bytes, 7 % more",
        open=("GiB per device", "least devices"),
    ),
    Wrong(
        "must_fit",
        fit("8 + 4 * moments", size="10**9"),
        says="That counts in GB, 10^9 bytes",
        open=("GiB per device", "least devices"),
    ),
    Wrong("must_fit", fit("2 + 2 + 4"), says="The optimizer's moments are missing"),
    Wrong("must_fit", fit("16"), says="That is Adam's 16 bytes a parameter"),
    Wrong("must_fit", fit("4 + 4 + 4 + 4 * moments"), says="have 16 bits here"),
    Wrong(
        "must_fit",
        fit("8 + 4 * moments", whole="floor(gib_per_device(parameters, 1, moments) / gib)"),
        says="so round up",
        open=("least devices",),
    ),
    Wrong(
        "must_fit",
        fit("8 + 4 * moments", whole="int(gib_per_device(parameters, 1, moments) / gib) + 1"),
        says="fits exactly",
        open=("least devices",),
    ),
]
