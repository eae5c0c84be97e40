from tests.teaching.exercises.wrong import Wrong

_TEXT = """
def mean_gradient(model, loss, inputs, targets, m):
    def gradient(x, y):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss(model(x), y), list(model.parameters()))])

    true = gradient(inputs, targets)
    pieces = list(zip(inputs.tensor_split(m), targets.tensor_split(m)))
    parts = [gradient(*piece) for piece in pieces]
    right = float((sum(parts) / m - true).abs().max() / true.abs().max())
    found = {found}
    error = float({error})
    return [error], {verdict}
"""
_RIGHT = {
    "found": "sum(parts) / m",
    "error": "(found - true).abs().max() / true.abs().max()",
    "verdict": "right < 1e-9",
}


def _but(says, *parts, **changed):
    return Wrong("mean_gradient", _TEXT.format(**{**_RIGHT, **changed}), says=says, open=parts)


WRONG = [
    _but("and not divided by m", "evidence", found="sum(parts)"),
    _but(
        "weighed by their sequences",
        "evidence",
        found="sum(len(x) * g for (x, _), g in zip(pieces, parts)) / len(inputs)",
    ),
    _but("The gradient of the batch is in the sum too", "evidence", found="sum(parts) / m + true"),
    _but("That is the last micro-batch alone", "evidence", found="parts[-1]"),
    _but("Divide by the largest gradient of the batch", "evidence", error="(found - true).abs().max()"),
    _but("That is the length of the difference", "evidence", error="(found - true).norm()"),
    _but("The claim is true if the error is below 1e-9", "verdict", verdict="len(inputs) % m == 0"),
    _but("your verdict is True", "verdict", verdict="right < 1"),
    _but("your verdict is False", "verdict", verdict="right == 0 and m > 1"),
]
