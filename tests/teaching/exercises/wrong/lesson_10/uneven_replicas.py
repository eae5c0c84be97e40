from tests.teaching.exercises.wrong import Wrong

_REDUCE = """
import torch


def norm(tensors):
    return float(sum((one ** 2).sum() for one in tensors)) ** 0.5


def cut(tensors, limit, length=None):
    length = norm(tensors) if length is None else length
    return [one * min(1.0, limit / length) for one in tensors]


def reduce_gradients(gradients, targets, limit):
    count = [int((t != -100).sum()) for t in targets]
    sizes = [len(t) for t in targets]
    here = [d for d in range(len(count)) if {some}]
    weights = {{d: {weight} for d in here}}
    shape = [len(stage) for stage in gradients[0]]
    flat = {{d: [one for stage in gradients[d] for one in stage] for d in here}}
    {before}
    total = [sum(weights[d] * flat[d][k] for d in here) for k in range(sum(shape))]
    halves = total[: shape[0]], total[shape[0] :]
    length = norm(total)
    total = {clip}
    return {answer}
"""
_RIGHT = {
    "some": "count[d]",
    "weight": "count[d] / sum(count)",
    "before": "pass",
    "clip": "cut(total, limit)",
    "answer": "[total[: shape[0]], total[shape[0] :]]",
}
_LATER, _ALL = ("padding",), ("uneven replicas", "padding", "clipping")


def _reduce(says, open=_ALL, **changed):
    return Wrong("uneven_replicas", _REDUCE.format(**{**_RIGHT, **changed}), says=says, open=open)


def _clip(says, clip, **changed):
    return _reduce(says, open=("clipping",), clip=clip, **changed)


WRONG = [
    _reduce("the mean of the replicas' means", weight="1 / len(here)"),
    _reduce("the sum of the replicas' mean gradients", weight="1"),
    _reduce("weighed by their sequences", weight="sizes[d] / sum(sizes)", open=_LATER),
    _reduce("weighed by their sequences", weight="targets[d].numel() / sum(t.numel() for t in targets)", open=_LATER),
    _reduce("weighed by their padding", weight="targets[d].numel() - count[d]", open=_LATER),
    _reduce("the gradient of the summed loss", weight="count[d]"),
    _reduce("divided by the number of replicas", weight="count[d] / len(here)"),
    _reduce("the gradient of one replica alone", weight="float(d == 0)"),
    _reduce("It is off by", weight="count[d] / max(count)"),
    _reduce("changed its arguments", before="gradients[0][0][0].mul_(2)"),
    _reduce("one for each stage", answer="total"),
    _reduce("one for each parameter", answer="[total, total]"),
    _clip("It was not clipped", "total"),
    _clip("First reduce, then clip", "total", before="flat = {d: cut(flat[d], limit) for d in here}"),
    _clip("Each stage was clipped by its own norm", "[*cut(halves[0], limit), *cut(halves[1], limit)]"),
    _clip("Each tensor was clipped by its own norm", "[one for tensor in total for one in cut([tensor], limit)]"),
    _clip("Single numbers were cut off", "[one.clamp(-limit, limit) for one in total]"),
    _clip(
        "Below the limit a gradient stays as it is", "[one * limit / length if limit < 99 else one for one in total]"
    ),
    _clip(
        "of all replicas' gradients side by side",
        "cut(total, limit, norm([one for d in here for one in flat[d]]))",
    ),
    _clip("The tensors' norms were added up", "cut(total, limit, sum(norm([one]) for one in total))"),
    _clip("The stages' norms were added up", "cut(total, limit, sum(map(norm, halves)))"),
    _clip("Its root is missing", "cut(total, limit, length ** 2)"),
    _clip("The largest number was taken", "cut(total, limit, max(float(one.abs().max()) for one in total))"),
]
