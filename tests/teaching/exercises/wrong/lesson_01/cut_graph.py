from tests.teaching.exercises.wrong import Wrong


def cut(forward: str, backward: str) -> str:
    return f"""
import torch

def forward_piece(stage, received, memory):
    {forward}

def backward_piece(gradient, memory):
    {backward}
"""


RECEIVE = 'memory["x"] = received.detach().requires_grad_()'
RUN = """
    memory["y"] = stage(memory["x"])
    return memory["y"]"""


WRONG = [
    Wrong(  # gradients right, in one process: each backward asks for its own stage alone, but no graph is cut
        "cut_graph",
        cut(
            """
    memory["x"], memory["w"] = received.requires_grad_(), list(stage.parameters())
    memory["y"] = stage(received)
    return memory["y"]""",
            """
    wanted = [memory["x"], *memory["w"]]
    sent, *grads = torch.autograd.grad(memory["y"], wanted, gradient, retain_graph=True)
    for parameter, grad in zip(memory["w"], grads):
        parameter.grad = grad
    return sent""",
        ),
        says="the graph is not cut",
    ),
    Wrong(  # one backward on the last device does it all
        "cut_graph",
        cut(
            """
    received.requires_grad_()
    memory["x"], memory["y"] = received, stage(received)
    if received.grad_fn is not None:
        received.retain_grad()
    return memory["y"]""",
            """
    memory["y"].backward(gradient)
    return memory["x"].grad""",
        ),
        says="the graph is not cut",
    ),
    Wrong(
        "cut_graph",
        cut(
            'memory["x"] = received.detach()' + RUN,
            """
    memory["y"].backward(gradient)
    return memory["x"].grad""",
        ),
        says="asks for no gradient",
    ),
    Wrong(
        "cut_graph",
        cut(
            RECEIVE + RUN,
            """
    memory["y"].sum().backward()
    return memory["x"].grad""",
        ),
        says="seeded with ones",
    ),
    Wrong(  # a receive buffer, made once, as engines have them; its .grad is never cleared
        "cut_graph",
        cut(
            """
    if "x" not in memory:
        memory["x"] = torch.empty_like(received).requires_grad_()
    memory["x"].data.copy_(received)"""
            + RUN,
            """
    memory["y"].backward(gradient)
    return memory["x"].grad""",
        ),
        says="stale boundary gradient",
        open=("two steps",),
    ),
    Wrong(
        "cut_graph",
        cut(RECEIVE + RUN, 'return torch.autograd.grad(memory["y"], memory["x"], gradient)[0]'),
        says="have no .grad",
    ),
    Wrong(
        "cut_graph",
        cut(
            RECEIVE + RUN,
            """
    memory["y"].backward(gradient)
    return gradient""",
        ),
        says="not of its output",
    ),
    Wrong("cut_graph", cut(RECEIVE + RUN, 'memory["y"].backward(gradient)'), says="return it"),
    Wrong(
        "cut_graph",
        cut(
            'memory["x"] = received.detach_().requires_grad_()' + RUN,
            """
    memory["y"].backward(gradient)
    return memory["x"].grad""",
        ),
        says="detach_() changes the tensor itself",
    ),
    Wrong(  # the output is kept without its history
        "cut_graph",
        cut(
            RECEIVE
            + """
    memory["y"] = stage(memory["x"]).detach()
    return memory["y"]""",
            """
    memory["y"].backward(gradient)
    return memory["x"].grad""",
        ),
        says="Did you keep the detached output?",
    ),
    Wrong(  # right in every number, and the graphs stay
        "cut_graph",
        cut(
            RECEIVE + RUN,
            """
    memory["y"].backward(gradient, retain_graph=True)
    return memory["x"].grad""",
        ),
        says="unless it is called with retain_graph=True",
        open=("two steps",),
    ),
]
