from tests.teaching.exercises.wrong import Wrong

_ALL = """
def device_memory(model, batch, shape):
    dp, pp, tp, m = shape
    size, layers = batch / (dp * m), model["layers"] / pp
    weights, each = 16 * model["layer_parameters"] * layers / tp, size * model["layer_activations"] * layers / tp
    return {memory}


def link(cluster, span):
    return cluster["inside"] if span <= cluster["node"] else cluster["between"]


def step_time(model, cluster, batch, shape):
    dp, pp, tp, m = shape
    size, layers = batch / (dp * m), model["layers"] / pp
    inside, between = cluster["inside"], cluster["between"]
    tp_link, pp_link, dp_link = (link(cluster, span) for span in (tp, pp * tp, dp * pp * tp))
    message, ring = size * model["message_bytes"], 2 * (tp - 1) / tp
    fixed, work = layers * model["fixed_seconds"], layers * size * model["layer_seconds"] / tp
    tensor = layers * {rings} * message / {tp_link}
    messages = 2 * message / {pp_link} if pp > 1 else 0
    last = 2 * (dp - 1) / dp * 2 * model["layer_parameters"] * layers / tp / {dp_link}
    slot = {slot}
    return {step}


def right_memory(model, batch, shape):
    dp, pp, tp, m = shape
    layers = model["layers"] / pp / tp
    each = batch / (dp * m) * model["layer_activations"]
    return layers * (16 * model["layer_parameters"] + min(pp, m) * each)


def right_time(model, cluster, batch, shape):
    dp, pp, tp, m = shape
    size, layers = batch / (dp * m), model["layers"] / pp
    message = size * model["message_bytes"]
    layer = model["fixed_seconds"] + size * model["layer_seconds"] / tp
    slot = layers * (layer + 8 * (tp - 1) / tp * message / link(cluster, tp))
    slot += 2 * message / link(cluster, pp * tp) if pp > 1 else 0
    gradients = 2 * model["layer_parameters"] * layers / tp
    return (m + pp - 1) * slot + 2 * (dp - 1) / dp * gradients / link(cluster, dp * pp * tp)


def best_shape(model, cluster, batch):
    devices, limit = int(cluster["devices"]), cluster["memory"]
    shapes = [
        (dp, pp, tp, m)
        for dp in range(1, devices + 1)
        for pp in range(1, devices + 1)
        for tp in range(1, devices + 1)
        for m in range(1, batch + 1)
        if {legal}
    ]
    fitting = [shape for shape in shapes if right_memory(model, batch, shape) <= limit]
    return {best}
"""
_RIGHT = {
    "memory": "weights + min(pp, m) * each",
    "rings": "4 * ring",
    "tp_link": "tp_link",
    "pp_link": "pp_link",
    "dp_link": "dp_link",
    "slot": "fixed + work + tensor + messages",
    "step": "(m + pp - 1) * slot + last",
    "legal": "dp * pp * tp == devices and model['layers'] % pp == 0 and batch % (dp * m) == 0",
    "best": "min(fitting, key=lambda shape: right_time(model, cluster, batch, shape), default=None)",
}


def _but(part, says, **changed):
    text = _ALL
    for name, value in {**_RIGHT, **changed}.items():
        text = text.replace("{" + name + "}", value)
    return Wrong("choose_shape", text, says=says, open=(part,))


def _memory(says, memory):
    return _but("memory", says, memory=memory)


def _time(says, **changed):
    return _but("time", says, **changed)


def _best(says, best=_RIGHT["best"], legal=_RIGHT["legal"]):
    return _but("best shape", says, best=best, legal=legal)


def _by(cost, of="fitting"):
    return f"min({of}, key=lambda s: {cost}, default=None)"


_SECONDS = "right_time(model, cluster, batch, s)"

WRONG = [
    _memory("The activations are missing", "weights"),
    _memory("the optimizer's state are missing", "min(pp, m) * each"),
    _memory("Only 2 bytes were counted", "weights / 8 + min(pp, m) * each"),
    _memory("holds all m micro-batches", "weights + m * each"),
    _memory("but there are fewer", "weights + pp * each"),
    _memory("Only one micro-batch was counted", "weights + each"),
    _memory("not shared out among the replicas", "weights + min(pp, m) * each * dp"),
    _memory("split over tp too", "weights + min(pp, m) * each * tp"),
    _memory("You counted whole layers", "tp * (weights + min(pp, m) * each)"),
    _memory("You counted all layers", "pp * (weights + min(pp, m) * each)"),
    _time("The bubble is missing", step="m * slot + last"),
    _time("One slot too many", step="(m + pp) * slot + last"),
    _time("The reduction of the gradients is missing", step="(m + pp - 1) * slot"),
    _time("not once a micro-batch", step="(m + pp - 1) * slot + m * last"),
    _time("once to add up, and once to hand out", step="(m + pp - 1) * slot + last / 2"),
    _time("The 16 bytes stay on the device", step="(m + pp - 1) * slot + 8 * last"),
    _time("The ranks of a dp group are", dp_link="inside"),
    _time("The ranks of a dp group are", dp_link="inside", pp_link="inside", tp_link="inside"),
    _time("All links were taken for those between nodes", dp_link="between", pp_link="between", tp_link="between"),
    _time("Half of the all-reduces", rings="2 * ring"),
    _time("It keeps its own", rings="8"),
    _time("The all-reduces of tensor parallelism are missing", slot="fixed + work + messages"),
    _time("The messages between stages are missing", slot="fixed + work + tensor"),
    _time("a gradient comes back", slot="fixed + work + tensor + messages / 2"),
    _time("neighbours are tp ranks apart", pp_link="link(cluster, pp)"),
    _time("shared by its tp ranks", slot="fixed + tp * work + tensor + messages"),
    _time("The fixed time is missing", slot="work + tensor + messages"),
    _time("The fixed time is not shared", slot="fixed / tp + work + tensor + messages"),
    _best("GB of 24", _by(_SECONDS, of="shapes")),
    _best("by fixed times", _by("right_memory(model, batch, s)")),
    _best("by the reduction of the gradients", _by("(s[1], -s[0])")),
    _best("by the bubble", _by(f"(-s[1], {_SECONDS})")),
    _best(
        "by fixed times", f"min([s for s in fitting if s[3] == batch // s[0]], key=lambda s: {_SECONDS}, default=None)"
    ),
    _best("but some shapes fit", "None"),
    _best("return None", f"{_by(_SECONDS)} or {_by(_SECONDS, of='shapes')}"),
    _best("pp = 12 does not divide 32 layers", legal="dp * pp * tp == devices and batch % (dp * m) == 0"),
    _best("does not divide the batch", legal="dp * pp * tp == devices and model['layers'] % pp == 0"),
    _best(
        "Use all of them",
        legal="devices % (dp * pp * tp) == 0 and model['layers'] % pp == 0 and batch % (dp * m) == 0",
        best="min(fitting, key=lambda s: s[0] * s[1] * s[2], default=None)",
    ),
    _best("by the all-reduces", "max(fitting, key=lambda s: s[2], default=None)"),
]
