from tests.teaching.exercises.wrong import Wrong

_PLACEMENT = """
def device_of(stage, devices, chunks):
    p, v = devices, chunks
    return {device}

def layers_on(device, layers, devices, chunks):
    r, p, v = device, devices, chunks
    each = layers // (p * v)
    return {layers}
"""
_DEVICE = "stage % p"
_LAYERS = "[(c * p + r) * each + k for c in range(v) for k in range(each)]"


def _device(answer, says):
    return Wrong("placement", _PLACEMENT.format(device=answer, layers=_LAYERS), says=says, open=("stages",))


def _layers(answer, says):
    return Wrong("placement", _PLACEMENT.format(device=_DEVICE, layers=answer), says=says, open=("layers",))


WRONG = [
    _device("stage // v", "neighbouring chunks"),
    _device("stage // p", "That is the chunk"),
    _device("stage % v", "begins again after v"),
    _device("stage % p if stage // p % 2 == 0 else p - 1 - stage % p", "like a V"),
    _device("stage % p + 1", "counted from 0"),
    _device("min(stage, p - 1)", "Each device holds v"),
    _layers("list(range(r * each * v, (r + 1) * each * v))", "one run of neighbouring layers"),
    _layers("list(range(r, layers, p))", "deals out single layers"),
    _layers("list(range(r * each, (r + 1) * each))", "the first chunk alone"),
    _layers("[c * p + r for c in range(v)]", "stages has"),
    _layers(
        "[(c * p + r) * (layers // p) + k for c in range(v) for k in range(layers // p)]", "a stage has layers/(p v)"
    ),
    _layers("[(c * p + r) * each + k + 1 for c in range(v) for k in range(each)]", "there is no layer"),
    _layers("[(c * p + r) * each + k for c in range(v - 1, -1, -1) for k in range(each)]", "in ascending order"),
]
