from tests.teaching.exercises.wrong import Wrong

_ALL = """
def sizes(model, shape):
    dp, pp, tp, m, v = (shape[name] for name in ("dp", "pp", "tp", "m", "v"))
    number, layers = model["number_bytes"], model["layers"] / pp
    each = model["tokens"] * model["width"]
    activation = shape["batch"] / dp / m * each * number
    return dp, pp, tp, m, v, number, layers, each, activation, layers * model["layer_parameters"] / tp * number


def tensor_bytes(model, shape):
    dp, pp, tp, m, v, number, layers, each, activation, _ = sizes(model, shape)
    return {tensor}


def pipeline_bytes(model, shape, device):
    dp, pp, tp, m, v, number, layers, each, activation, _ = sizes(model, shape)
    ahead, back = v - (device == pp - 1), v - (device == 0)
    if {alone}:
        return 0
    return {pipeline}


def data_bytes(model, shape):
    dp, pp, tp, m, v, number, layers, each, activation, weights = sizes(model, shape)
    return {data}


def zero3_bytes(model, shape):
    dp, pp, tp, m, v, number, layers, each, activation, weights = sizes(model, shape)
    return {zero3}
"""
_TENSOR = "8 * layers * m * (tp - 1) / tp * activation"
_PIPELINE = "(ahead + back) * m * activation"
_DATA = "2 * (dp - 1) / dp * weights"
_ZERO3 = "3 * m * (dp - 1) / dp * weights"


def _but(part, says, **changed):
    right = {"tensor": _TENSOR, "pipeline": _PIPELINE, "data": _DATA, "zero3": _ZERO3, "alone": "pp == 1"}
    text = _ALL
    for name, value in {**right, **changed}.items():
        text = text.replace("{" + name + "}", value)
    return Wrong("bytes_per_step", text, says=says, open=(part,))


def _tensor(says, old, new):
    return _but("tensor parallel", says, tensor=_TENSOR.replace(old, new))


def _pipeline(says, old, new, **changed):
    return _but("pipeline", says, pipeline=_PIPELINE.replace(old, new), **changed)


def _data(says, old, new):
    return _but("data parallel", says, data=_DATA.replace(old, new))


def _zero3(says, old, new):
    return _but("ZeRO-3", says, zero3=_ZERO3.replace(old, new))


WRONG = [
    _tensor("The backward has two all-reduces a layer too", "8 *", "4 *"),
    _tensor("two all-reduces forward and two backward", "8 *", "2 *"),
    _tensor("never sends a piece to itself", "(tp - 1) / tp", "1"),
    _tensor("You counted n - 1 whole tensors", "(tp - 1) / tp", "(tp - 1)"),
    _tensor("In a step there are m = 11", "* m", ""),
    _tensor("All layers were counted", "layers", "model['layers']"),
    _tensor("The batch was not shared out", "activation", "activation * dp"),
    _tensor("with all sequences of the replica", "activation", "activation * m"),
    _tensor("with the whole batch", "activation", "shape['batch'] * each * number"),
    _tensor("These are numbers", "activation", "activation / number"),
    _tensor("Each rank has a sum of full width", "activation", "activation / tp"),
    _pipeline("it later gets a gradient, and sends one back", "(ahead + back)", "ahead"),
    _pipeline("That is half", "(ahead + back)", "back"),
    _pipeline("counted as one in the middle", "(ahead + back)", "2 * v"),
    _pipeline("That is for one stage on the device", "(ahead + back)", "((device < pp - 1) + (device > 0))"),
    _pipeline("The way round is missing", "(ahead + back)", "v * ((device < pp - 1) + (device > 0))"),
    _pipeline("In a step there are m = 11", "* m", ""),
    _pipeline("Here each rank sends all of it", "activation", "activation / tp"),
    _pipeline("The batch was not shared out", "activation", "activation * dp"),
    _pipeline("there is nobody to send to", "", "", alone="False"),
    _data("first it adds up the pieces", "2 *", "1 *"),
    _data("never sends a piece to itself", "(dp - 1) / dp", "1"),
    _data("You counted n - 1 whole tensors", "(dp - 1) / dp", "(dp - 1)"),
    _data("They are reduced once", "weights", "weights * m"),
    _data("All layers were counted", "weights", "weights * pp"),
    _data("You counted whole layers", "weights", "weights * tp"),
    _data("That is the whole model", "weights", "weights * pp * tp"),
    _zero3("That is one micro-batch", "3 * m", "3"),
    _zero3("One of the three is missing", "3 * m", "2 * m"),
    _zero3("as in plain data parallelism", "3 * m", "2"),
    _zero3("a device would need room for all of them", "3 * m", "(2 * m + 1)"),
    _zero3("for one of the two passes", "3 * m", "(m + 2)"),
    _zero3("so nothing is handed out", "3 * m", "4 * m"),
    _zero3("there is nobody to send to", "(dp - 1) / dp * weights", "max(dp - 1, 1) / dp * weights"),
]
