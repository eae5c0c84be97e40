from tests.teaching.exercises.wrong import Wrong

_HALVES = """
import torch

outside = []


def backward_input(x, weight, bias, grad_output):
    {before}
    return {upstream}, {kept}


def backward_weight(kept):
    {unpack}
    x, g = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    return {weight}, {bias}
"""
_RIGHT = {
    "before": "pass",
    "upstream": "grad_output @ weight",
    "kept": "(x, grad_output)",
    "unpack": "x, g = kept",
    "weight": "g.T @ x",
    "bias": "g.sum(0)",
}


def _halves(says, open=(), **changes):
    return Wrong("split_linear", _HALVES.format(**{**_RIGHT, **changes}), says=says, open=open)


_WEIGHTS = ("W", "3-d", "later")


def _by_axes(weight, bias):
    return {"unpack": f"x, g = kept; return {weight}, {bias}"}


WRONG = [
    _halves("multiplied by the transposed weight", upstream="grad_output @ weight.T", open=("I",)),
    _halves("the gradient of the bias is wrong: it is 0", bias="torch.zeros_like(g[0])", open=_WEIGHTS),
    _halves("it is transposed", weight="x.T @ g", open=_WEIGHTS),
    _halves("it is a mean", weight="g.T @ x / len(x)", bias="g.mean(0)", open=_WEIGHTS),
    _halves("the gradient of the bias is wrong: it is a mean", bias="g.mean(0)", open=_WEIGHTS),
    _halves(
        "Sum over all dimensions but the last",
        open=("3-d",),
        **_by_axes("g.transpose(-1, -2) @ x", "g.sum(0)"),
    ),
    _halves(
        "Sum over all dimensions but the last",
        open=("3-d",),
        **_by_axes("torch.einsum('...o,...i->oi', g, x)", "g.sum(0)"),
    ),
    _halves("twice as large", weight="2 * (g.T @ x)", open=_WEIGHTS),
    _halves(
        "does not agree with autograd's. Sum over all dimensions",
        open=("3-d",),
        **_by_axes(
            "g.reshape(-1, g.shape[-1]).T @ x.transpose(0, -2).reshape(-1, x.shape[-1])",
            "g.reshape(-1, g.shape[-1]).sum(0)",
        ),
    ),
    _halves("computes 2 matrix products", open=("I",), before="grad_output.flatten(0, -2).T @ x.flatten(0, -2)"),
    _halves(
        "keeps a tensor of shape [2, 3]",
        open=("later",),
        before="w = grad_output.flatten(0, -2).T @ x.flatten(0, -2)",
        kept="(w, grad_output.flatten(0, -2).sum(0))",
        unpack="return kept",
    ),
    _halves("keeps the weight for W", open=("later",), kept="(x, grad_output, weight)", unpack="x, g, _ = kept"),
    _halves(
        "it is nan",
        open=("later",),
        kept="(x, grad_output, weight)",
        unpack="x, g, w = kept",
        weight="g.T @ x + 0 * w",
    ),
    _halves(
        "it is that of micro-batch 1",
        open=("later",),
        before="outside[:] = [x, grad_output]",
        unpack="x, g = outside",
    ),
    _halves(
        "those of earlier micro-batches",
        open=("later",),
        before="outside[:] = []",
        unpack="x, g = kept; outside.append(g.flatten(0, -2).T @ x.flatten(0, -2))",
        weight="sum(outside)",
    ),
    _halves(
        "does not hand on grad_output",
        open=("later",),
        before="outside.append((x, grad_output))",
        kept="(x,)",
        unpack="x = kept[0]; g = next(g for y, g in outside if y is x)",
    ),
    _halves("should return two tensors", open=_WEIGHTS, unpack="return kept[1]"),
    _halves(
        "it has shape",
        open=("I",),
        upstream="(grad_output @ weight).sum(0)",
    ),
    Wrong(
        "split_linear",
        """
import torch


def backward_input(x, weight, bias, grad_output):
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
    y = torch.nn.functional.linear(*leaves)
    return torch.autograd.grad(y, leaves[0], grad_output, retain_graph=True)[0], lambda: torch.autograd.grad(
        y, leaves[1:], grad_output
    )


def backward_weight(kept):
    return kept()
""",
        says="not of type function",
    ),
]
