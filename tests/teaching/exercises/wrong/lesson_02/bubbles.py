from tests.teaching.exercises.wrong import Wrong

FRACTION = """
def bubble_fraction(devices, microbatches, forward, backward):
    return (devices - 1) / (microbatches + devices - 1)
"""
RATIO = """
def bubble_ratio(devices, microbatches, forward, backward):
    return (devices - 1) / microbatches
"""
LEAST = """
def least_microbatches(devices, percent):
    return max(1, -(-percent * (devices - 1) // (100 - percent)))
"""


def fraction(body, says):
    head = "def bubble_fraction(devices, microbatches, forward, backward):\n    p, m, f, b = devices, microbatches, "
    return Wrong("bubbles", RATIO + LEAST + head + f"forward, backward\n    {body}\n", says, ("fraction",))


def ratio(body, says):
    head = "def bubble_ratio(devices, microbatches, forward, backward):\n    p, m, f, b = devices, microbatches, "
    return Wrong("bubbles", FRACTION + LEAST + head + f"forward, backward\n    {body}\n", says, ("ratio",))


def least(body, says):
    head = "import math\n\ndef least_microbatches(devices, percent):\n"
    return Wrong("bubbles", FRACTION + RATIO + head + f"    {body}\n", says, ("least m",))


WRONG = [
    fraction("return (p - 1) / m", "bubble ratio, idle over busy"),
    fraction("return p / (m + p)", "with p for p - 1"),
    fraction("return p / (m + p - 1)", "with p for p - 1 above the line"),
    fraction("return (p - 1) * f / ((p - 1) * f + m * (f + b))", "waiting for forwards alone"),
    fraction("return m / (m + p - 1)", "the busy part"),
    fraction("return (p - 1) * (f + b)", "the idle time of a device itself"),
    fraction("return 1 - 1 / p", "idle over all device-time is"),
    ratio("return (p - 1) / (m + p - 1)", "bubble fraction, idle over all"),
    ratio("return p / m", "with p for p - 1"),
    ratio("return p * (p - 1) / m", "divide by all devices' time"),
    ratio("return (p - 1) * b / (m * f)", "fall out of the quotient"),
    least("return 9 * devices", "with p for p - 1"),
    least("return math.ceil(100 * (devices - 1) / (100 - percent))", "the bubble ratio; asked for is the part"),
    least("return max(1, 9 * (devices - 1))", "here the target is another"),
    least(
        "q = percent / 100\n    return max(1, math.ceil(q * (devices - 1) / (1 - q)))",
        "a hair above a whole number",
    ),
    least("return percent * (devices - 1) // (100 - percent) + 1", "exactly, and at least"),
    least("return percent * (devices - 1) // (100 - percent)", "Too few"),
    least("return max(1, math.ceil((100 - percent) * (devices - 1) / percent))", "exchanged"),
]
