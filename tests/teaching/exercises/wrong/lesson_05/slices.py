from tests.teaching.exercises.wrong import Wrong

_SLICES = """
def sizes(batch, microbatches):
    m = microbatches
    small, rest = divmod(batch, m)
    return {sizes}

def loss_weights(batch, microbatches):
    m = microbatches
    small, rest = divmod(batch, m)
    cut = [small + (i < rest) for i in range(m)]
    return {weights}
"""


def _slices(says, open, sizes="[small + (i < rest) for i in range(m)]", weights="[n / batch for n in cut]"):
    return Wrong("slices", _SLICES.format(sizes=sizes, weights=weights), says=says, open=open)


WRONG = [
    _slices("are never trained on", ("sizes",), sizes="[small] * m"),
    _slices("Rounding up takes too many", ("sizes",), sizes="[-(-batch // m)] * m"),
    _slices("The last one gets all that is left", ("sizes",), sizes="[small] * (m - 1) + [small + rest]"),
    _slices("the larger ones first", ("sizes",), sizes="[small] * (m - rest) + [small + 1] * rest"),
    _slices("micro-batches, not", ("sizes",), sizes="[small] * m + ([rest] if rest else [])"),
    _slices("If all have 1/m", ("weights",), weights="[1 / m] * m"),
    _slices("have to add up to 1, not to", ("weights",), weights="cut"),
    _slices("With a weight of 1 for each mean", ("weights",), weights="[1] * m"),
    _slices("their order is not", ("weights",), weights="[n / batch for n in cut[::-1]]"),
    _slices("rounded. Do not round it", ("weights",), weights="[round(n / batch, 4) for n in cut]"),
    _slices("A mean needs weights that add up to 1", ("weights",), weights="[n / m for n in cut]"),
]
