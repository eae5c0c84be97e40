from tests.teaching.exercises.wrong import Wrong

_CHOOSE = """
def choose_method(weights, optimizer, activations, stage_input, devices, microbatches, limit):
    p, m = devices, microbatches
    methods = {{
        "gpipe": (1, m * activations, 3 * m + 3 * (p - 1), 0),
        "gpipe-recompute": (1, {again}, {slots}, 0),
        "1f1b": (1, {one} * activations, 3 * m + 3 * (p - 1), 0),
        "pipedream": ({pipedream}, {endless} * activations, 3 * m, {stale}),
        "vertical-sync": (p, {endless} * activations, 3 * m, {sync}),
        "2bw": ({bw}, {endless} * activations, 3 * m, 1),
    }}
    rated = {{}}
    for order, (name, (versions, held, slots, stale)) in enumerate(methods.items()):
        needed = {versions} * weights + {grads} + {states} * optimizer + held
        if {limit} and {allowed}:
            rated[name] = (1 - 3 * m / slots, stale, {tie}, order)
    if not rated:
        return {{}}, "none", "none"
    fastest = min(rated, key=lambda name: {fast})
    freshest = min(rated, key=lambda name: {fresh})
    return {{name: {pair} for name in rated}}, fastest, freshest
"""
_RIGHT = {
    "again": "(m - 1) * stage_input + activations",
    "slots": "4 * m + 3 * (p - 1)",
    "one": "min(p, m)",
    "pipedream": "p",
    "endless": "p",
    "stale": "(p - 1) / 2",
    "sync": "p - 1",
    "bw": "2",
    "versions": "versions",
    "grads": "weights",
    "states": "1",
    "limit": "needed <= limit",
    "allowed": '(name != "2bw" or m >= p)',
    "tie": "needed",
    "pair": "rated[name][:2]",
    "fast": "rated[name]",
    "fresh": "(rated[name][1], rated[name][0], *rated[name][2:])",
}


def _choose(says, *parts, **changes):
    return Wrong("under_a_limit", _CHOOSE.format(**{**_RIGHT, **changes}), says=says, open=parts)


WRONG = [
    _choose("one version of the weights for each method", "fits", versions="1"),
    _choose("leaves the gradients out", "fits", grads="0"),
    _choose("for each version. There is one of each", "fits", grads="versions * weights", states="versions"),
    _choose("the optimizer's state for each version", "fits", states="versions"),
    _choose("m micro-batches in flight on device 0", "fits", one="m", endless="m"),
    _choose("counts the inputs alone", "fits", again="m * stage_input"),
    _choose("The others keep their input", "fits", again="m * activations"),
    _choose("here m is below p", "fits", one="p"),
    _choose("2BW keeps two versions", "fits", bw="1"),
    _choose("2BW needs m >= p", "fits", allowed="True"),
    _choose("Recomputing is no idle time", "time", slots="3 * m"),
    _choose("so the fewer bytes decide", "time", "staleness", tie="0"),
    _choose("loses", "staleness", fresh="(rated[name][1], rated[name][2])"),
    _choose("The mean staleness of pipedream is", "time", "staleness", stale="0"),
    _choose("Nothing fits", "fits", "time", limit="needed <= 2 * limit"),
    _choose("Stage s is behind by p - 1 - s updates", "staleness", stale="p - 1"),
    _choose("Stage s is behind by p - 1 - s updates", "staleness", stale="p / 2"),
    _choose("All stages are as far behind as stage 0", "staleness", sync="(p - 1) / 2"),
    _choose(
        "of which",
        "time",
        pair='(1 - 3 * m / (4 * m + 3 * (p - 1)), rated[name][1]) if name == "1f1b" else rated[name][:2]',
    ),
    _choose("The pipeline is full all the time", "time", pair="(max(rated[name][0], 0.1), rated[name][1])"),
    Wrong(
        "under_a_limit",
        """
def choose_method(weights, optimizer, activations, stage_input, devices, microbatches, limit):
    from pipelab import build_schedule
    return {name: (0, 0) for name in ("1f1b", "gpipe") if build_schedule(name, devices, microbatches)}, "1f1b", "1f1b"
""",
        says="does not answer here",
    ),
]
