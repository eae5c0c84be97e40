from tests.teaching.exercises.wrong import Wrong

_STEP = """
import torch


def train_batch(model, state, loss, microbatches, lr, momentum):
    newest = {newest}
    before = {before}
    with torch.no_grad():
        for p, old in zip(model.parameters(), before):
            p.copy_(old)
    {clear}
    for x, y in microbatches:
        {inside}
        ({value}).backward()
    speeds = {speeds}
    state["previous"] = {kept}
    state["speed"] = []
    with torch.no_grad():
        for p, w, v in zip(model.parameters(), {base}, speeds):
            g = p.grad
            v = {speed}
            state["speed"].append(v.clone())
            p.copy_({new})
"""
_RIGHT = {
    "newest": "[p.detach().clone() for p in model.parameters()]",
    "before": 'state.get("previous", newest)',
    "clear": "model.zero_grad()",
    "inside": "pass",
    "value": "loss(model(x), y) / len(microbatches)",
    "speeds": 'state.get("speed", [torch.zeros_like(p) for p in newest])',
    "kept": "newest",
    "base": "newest",
    "speed": "momentum * v + g",
    "new": "w - lr * v",
}


def _step(says, open=(), **changes):
    return Wrong("delayed_update", _STEP.format(**{**_RIGHT, **changes}), says=says, open=open)


_BESIDE = {  # the newest version is kept in the state, and not written into the model
    "newest": 'state.get("newest", [p.detach().clone() for p in model.parameters()])',
    "kept": 'newest; state["newest"] = []',
}
WRONG = [
    _step("a second name of", kept="[p.detach() for p in model.parameters()]"),
    _step("a second name of", before="newest"),
    _step("The step starts from the old version", base="before"),
    _step("always that of W(0)", kept="before"),
    _step("still in .grad", clear="pass"),
    _step("added up", value="loss(model(x), y)"),
    _step("Only the last micro-batch", clear="pass", inside="model.zero_grad()"),
    _step("go up the slope", new="w + lr * v"),
    _step(
        "The gradient is two updates old",
        before='state.get("older", newest)',
        kept='newest; state["older"] = state.get("middle", newest); state["middle"] = newest',
    ),
    _step("no momentum in it", open=("momentum",), new="w - lr * g"),
    _step("by 1 - momentum", open=("momentum",), speed="momentum * v + (1 - momentum) * g"),
    _step("Nesterov", open=("momentum",), new="w - lr * (g + momentum * v)"),
    _step("neither a delay nor momentum", open=("momentum",), before="newest", new="w - lr * g"),
    _step("They never changed", new="w"),
    _step("Go back to the newest", **_BESIDE, new="p); state['newest'].append(w - lr * v"),
    _step("has to hold the newest version", **_BESIDE, new="w); state['newest'].append(w - lr * v"),
    Wrong(
        "delayed_update",
        """
def train_batch(model, state, loss, microbatches, lr, momentum):
    from pipelab.runtime.measuring.delayed import delayed_training
    delayed_training(model, [], None, loss, microbatches, lambda s, i: 0)
""",
        says="does not answer here",
    ),
]
