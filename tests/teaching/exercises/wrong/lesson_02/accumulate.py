from tests.teaching.exercises.wrong import Wrong


def accumulate(body, says, parts=()):
    return Wrong("accumulate", f"def accumulate(model, loss, inputs, targets, microbatches):\n{body}", says, parts)


PARTS = "zip(inputs.tensor_split(microbatches), targets.tensor_split(microbatches))"


WRONG = [
    accumulate(
        f"""    model.zero_grad()
    for x, t in {PARTS}:
        loss(model(x), t).backward()
""",
        "the sum of the micro-batches' mean gradients",
    ),
    accumulate(
        f"""    model.zero_grad()
    for x, t in {PARTS}:
        (loss(model(x), t) / microbatches).backward()
""",
        "the mean of the micro-batches' means",
        ("uneven micro-batches",),
    ),
    accumulate(
        f"""    for x, t in {PARTS}:
        model.zero_grad()
        (loss(model(x), t) * len(x) / len(inputs)).backward()
""",
        "Only the last micro-batch is left",
    ),
    accumulate(
        f"""    for x, t in {PARTS}:
        model.zero_grad()
        loss(model(x), t).backward()
""",
        "the gradient of the last micro-batch alone",
    ),
    accumulate(
        f"""    for x, t in {PARTS}:
        (loss(model(x), t) * len(x) / len(inputs)).backward()
""",
        "It still holds the gradient of the previous step",
    ),
    accumulate(
        f"""    model.zero_grad()
    for x, t in {PARTS}:
        (loss(model(x), t) * len(x)).backward()
""",
        "the gradient of the summed loss",
    ),
    accumulate(
        """    model.zero_grad()
    loss(model(inputs), targets).backward()
""",
        "in one piece",
    ),
    accumulate(
        """    model.zero_grad()
    size = len(inputs) // microbatches
    for k in range(microbatches):
        x, t = inputs[k * size : (k + 1) * size], targets[k * size : (k + 1) * size]
        (loss(model(x), t) / microbatches).backward()
""",
        "were left out",
        ("uneven micro-batches",),
    ),
    accumulate(
        """    model.zero_grad()
    for x, t in zip(inputs.chunk(microbatches), targets.chunk(microbatches)):
        (loss(model(x), t) * len(x) / len(inputs)).backward()
""",
        "micro-batches, not 12 of the sizes",
        ("uneven micro-batches",),
    ),
    Wrong(
        "accumulate",
        """
def accumulate(model, loss, inputs, targets, microbatches):
    model.zero_grad()
    pairs = zip(inputs.tensor_split(microbatches), targets.tensor_split(microbatches))
    sum(len(x) / len(inputs) * loss(model(x), t) for x, t in pairs).backward()
""",
        says="held at once",
    ),
]
