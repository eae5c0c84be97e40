from tests.teaching.exercises.wrong import Wrong

FRACTION = """
def bubble_fraction(devices, microbatches, forward, backward, recompute):
    idle = (devices - 1) * (forward + backward)
    return idle / (idle + microbatches * (forward + recompute + backward))
"""
RATIO = """
def bubble_ratio(devices, microbatches, forward, backward, recompute):
    return (devices - 1) * (forward + backward) / (microbatches * (forward + recompute + backward))
"""
LEAST = """
def least_microbatches(devices, percent):
    return max(1, -(-percent * (devices - 1) // (100 - percent)))
"""


NAMES = "idle, work = (p - 1) * (f + b), m * (f + r + b)"


def fraction(body, says):
    head = f"def bubble_fraction(p, m, f, b, r):\n    {NAMES}\n    {body}\n"
    return Wrong("bubbles", RATIO + LEAST + head, says, ("fraction",))


def ratio(body, says):
    head = f"def bubble_ratio(p, m, f, b, r):\n    {NAMES}\n    {body}\n"
    return Wrong("bubbles", FRACTION + LEAST + head, says, ("ratio",))


def least(body, says):
    head = "import math\n\ndef least_microbatches(devices, percent):\n"
    return Wrong("bubbles", FRACTION + RATIO + head + f"    {body}\n", says, ("least m",))


WRONG = [
    fraction("return (p - 1) / m", "bubble ratio, idle over busy"),
    fraction("return idle / work", "bubble ratio, idle over busy"),
    fraction("return 100 * idle / work", "the bubble ratio, and in per cent"),
    fraction("return 100 * idle / (idle + work)", "That is in per cent"),
    fraction("return (p - 1) / (m + p - 1)", "right without recomputation"),
    fraction("return (p - 1) / m if r else idle / (idle + work)", "the other measure, and without recomputation"),
    fraction("return (idle + (p - 1) * r) / (idle + (p - 1) * r + m * (f + b))", "adds R to the idle time"),
    fraction("return p / (m + p)", "with p in place of p - 1"),
    fraction("return p / (m + p - 1)", "with p in place of p - 1 above the line"),
    fraction("return (p - 1) * f / ((p - 1) * f + work)", "only the wait for forwards"),
    fraction("return work / (idle + work)", "the busy share"),
    fraction("return idle", "the idle time of one device"),
    fraction("return 1 - 1 / p", "idle over total device time is"),
    ratio("return (p - 1) / (m + p - 1)", "bubble fraction, idle over total"),
    ratio("return (p - 1) / m", "right without recomputation"),
    ratio("return p / m", "with p in place of p - 1"),
    ratio("return p * idle / work", "divide by the time of all"),
    ratio("return (p - 1) * b / (m * f)", "tF and tB cancel"),
    least("return 9 * devices", "with p in place of p - 1"),
    least("return math.ceil(100 * (devices - 1) / (100 - percent))", "the bubble ratio. The question asks"),
    least("return max(1, 9 * (devices - 1))", "here the target is another"),
    least(
        "q = percent / 100\n    return max(1, math.ceil(q * (devices - 1) / (1 - q)))",
        "a hair above a whole number",
    ),
    least("return percent * (devices - 1) // (100 - percent) + 1", "exactly, and at least"),
    least("return percent * (devices - 1) // (100 - percent)", "Too few"),
    least("return max(1, math.ceil((100 - percent) * (devices - 1) / percent))", "Did you exchange"),
]
