"""What a step of a shape takes, part by part."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pipelab.simulation.links import Link
from pipelab.tuning.shapes.shape import SHARDING, Job, Shape

__all__ = ["StepTime", "assumptions", "layer_time", "ring", "step_time"]


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step on the busiest device. The parts add up to the step.

    ``compute`` and ``recompute`` are its own work. ``tensor`` are messages inside layers, ``pipeline`` those between
    stages, ``data`` those between replicas as far as they do not hide behind work. ``bubble`` is idle time while the
    pipeline fills and drains. ``update`` is the optimizer's.
    """

    compute: float
    recompute: float
    tensor: float
    pipeline: float
    bubble: float
    data: float
    update: float
    bubble_fraction: float
    """Idle device time over all device time of the pipeline; a bottleneck's neighbours wait, so it counts them too."""

    @property
    def parts(self) -> dict[str, float]:
        """Seconds by name."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.name != "bubble_fraction"}

    @property
    def total(self) -> float:
        """Of the step."""
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Seconds of a layer, or of the head, for a micro-batch: forward work, backward work, again, messages each way."""

    forward: float
    backward: float
    again: float
    tensor: float
    """Messages of a forward; a backward has as many."""
    tensor_again: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.forward + self.backward + self.again + 2 * self.tensor + self.tensor_again


def ring(link: Link, size: float, members: int) -> float:
    """Seconds of an all-gather, or of a reduce-scatter, of ``size`` bytes; an all-reduce is one of each.

    In each of n - 1 rounds every member sends the n-th part to the next (Patarasuk and Yuan, 2009).
    """
    return (members - 1) * link.time(size / members) if members > 1 else 0.0


def layer_time(job: Job, shape: Shape) -> LayerTime:
    """A layer's.

    Products run at the speed that the cluster reaches. All else runs at the speed of memory: a byte that a layer keeps
    is written and read in the forward. In the backward it is read, and its gradient is written and read.
    """
    model, cluster, tp = job.model, job.cluster, shape.tp
    tokens = shape.microbatch * model.tokens
    products = tokens * model.layer_operations / tp / (cluster.peak * cluster.reached)
    scores = tokens * model.score_operations / tp / (cluster.peak * cluster.reached)
    passes = tokens * model.kept_bytes(tp, job.sequence_parallel) / cluster.memory_bandwidth
    forward = products + 2 * passes
    again = {
        "none": 0.0,
        "selective": scores + 2 * tokens * model.score_bytes / tp / cluster.memory_bandwidth,
        "full": forward,
    }[shape.recompute]
    link = cluster.link(*job.group(shape, "tp"))
    tensor = 2 * 2 * ring(link, tokens * model.width * model.value_bytes, tp)  # two all-reduces
    return LayerTime(forward, 2 * products + 3 * passes, again, tensor, tensor if shape.recompute == "full" else 0.0)


def head_time(job: Job, shape: Shape) -> LayerTime:
    """The head's: its product, and the gradient of its input, which is summed over tp."""
    model, cluster, tp = job.model, job.cluster, shape.tp
    tokens = shape.microbatch * model.tokens
    product = tokens * model.head_operations / tp / (cluster.peak * cluster.reached)
    scores = tokens * 4 * model.vocabulary / tp / cluster.memory_bandwidth
    link = cluster.link(*job.group(shape, "tp"))
    summed = ring(link, tokens * model.width * model.value_bytes, tp)
    return LayerTime(product + 2 * scores, 2 * product + 3 * scores, 0.0, summed, 0.0)


def step_time(job: Job, shape: Shape) -> StepTime:
    """A step's, by closed forms that tests hold against ``simulate``.

    The busiest device works on m micro-batches. Beside that, one micro-batch passes all other devices once, and v
    chunks make that v times shorter. Messages between stages delay 1F1B in its steady state too: of p micro-batches in
    flight, each waits for 2 (p - 1) messages. Interleaved starts so early that only those of the first micro-batch
    count, as long as a message takes no longer than a chunk's forward. What is longer is taken to delay each message.
    """
    layer, head = layer_time(job, shape), head_time(job, shape)
    p, m, v = shape.pp, shape.microbatches, shape.chunks
    first, last = job.layers_on(shape, 0), job.layers_on(shape, p - 1)
    has_head = p == 1 or last * layer.total + head.total > first * layer.total
    layers, heads = (last, 1) if has_head else (first, 0)
    busiest = layers * layer.total + heads * head.total
    whole = job.model.layers * layer.total + head.total
    bubble = (whole - busiest) / v
    tokens = shape.microbatch * job.model.tokens
    message = job.cluster.link(*job.group(shape, "pp")).time(
        tokens * job.model.width * job.model.value_bytes / shape.tp
    )
    if v == 1:
        pipeline = message * 2 * (p - 1) * (m + p - 1) / p
    else:
        chunk = first / v * (layer.forward + layer.tensor)
        pipeline = message * 2 * (p * v - 1) + m * v * max(0.0, message - chunk)
    makespan = m * busiest + bubble + pipeline

    def busy(name: str) -> float:
        return m * (layers * getattr(layer, name) + heads * getattr(head, name))

    return StepTime(
        compute=busy("forward") + busy("backward"),
        recompute=busy("again"),
        tensor=2 * busy("tensor") + busy("tensor_again"),
        pipeline=pipeline,
        bubble=bubble,
        data=_data(job, shape, layer, first),
        update=_update(job, shape, first),
        bubble_fraction=1 - m * whole / (p * makespan),
    )


def _data(job: Job, shape: Shape, layer: LayerTime, layers: int) -> float:
    """Messages between replicas that do not hide: on the device with the most layers, and with the embedding."""
    model, dp, m = job.model, shape.dp, shape.microbatches
    link, split = job.cluster.link(*job.group(shape, "dp")), SHARDING.index(shape.sharding)
    unit = model.layer_parameters / shape.tp
    units = layers + model.embedding_parameters / model.layer_parameters
    reduced = units * ring(link, unit * model.gradient_bytes, dp)
    gathered = units * ring(link, unit * model.value_bytes, dp)
    forward, backward = layers * (layer.forward + layer.tensor), layers * (layer.backward + layer.tensor + layer.again)

    def shown(messages: float, work: float) -> float:
        return max(0.0, messages - work) if job.overlap else messages

    if split == 0:  # one all-reduce
        return shown(2 * reduced, backward)
    if split == 1:
        return shown(reduced, backward) + shown(gathered, forward)
    if split == 2:
        return m * shown(reduced, backward) + shown(gathered, forward)
    return m * (shown(gathered, forward) + shown(gathered + reduced, backward))


def _update(job: Job, shape: Shape, layers: int) -> float:
    """Everything that the optimizer reads and writes."""
    model = job.model
    parameters = (layers * model.layer_parameters + model.embedding_parameters) / shape.tp
    parameters /= shape.dp if shape.sharding != "none" else 1
    moved = 2 * (model.optimizer_bytes + model.value_bytes) + model.gradient_bytes
    return parameters * moved / job.cluster.memory_bandwidth


def assumptions(job: Job) -> tuple[str, ...]:
    """What the cost model takes for granted, one sentence each."""
    cluster, model = job.cluster, job.model
    return (
        f"Products of matrices reach {cluster.reached:.0%} of {cluster.peak / 1e12:g} TFLOP/s. A backward takes twice "
        "its forward.",
        f"All else runs at {cluster.memory_bandwidth / 1e12:g} TB/s: what a layer keeps is written once and read once, "
        "and in the backward read again, with its gradient written and read.",
        f"A device reaches others in its node at {cluster.inside}, and other nodes at {cluster.between}.",
        f"Devices are numbered {job.order}, innermost first. Collectives are rings. They leave a node by the adapters "
        "of all members there.",
        "Messages inside layers do not overlap with work. Messages between stages do, as simulate has it, and "
        "each of the tp devices sends its part.",
        "Messages between replicas hide behind the last backward and the next forward; sharded gradients and "
        "parameters move with every micro-batch."
        if job.overlap
        else "Messages between replicas do not overlap with work.",
        f"Attention is {'fused' if model.fused_attention else 'not fused'}, and a causal mask saves nothing. "
        f"{'With' if job.sequence_parallel else 'Without'} sequence parallelism.",
        f"{1 - cluster.usable:.0%} of the memory is left free. Loading of data, failures and unequal devices are "
        "left out.",
    )
