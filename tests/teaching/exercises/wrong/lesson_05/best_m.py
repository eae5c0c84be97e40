from tests.teaching.exercises.wrong import Wrong

_BEST = """
def m_star(devices, batch, alpha, beta):
    p = devices
    return {star}

def choose_m(devices, batch, alpha, beta, multiple):
    p = devices
    star = ((p - 1) * beta * batch / alpha) ** 0.5
    T = lambda m: (m + p - 1) * (alpha + beta * batch / m)
    return {choice}

def m_star_recomputed(devices, batch, alpha, beta, alpha_r, beta_r):
    p = devices
    return {again}
"""
_STAR = "((p - 1) * beta * batch / alpha) ** 0.5"
_AGAIN = "((p - 1) * beta * batch / (alpha + alpha_r)) ** 0.5"
_CHOICE = "min(range(multiple, batch + 1, multiple), key=T)"


def _best(says, open=(), star=_STAR, choice=_CHOICE, again=_AGAIN):
    return Wrong("best_m", _BEST.format(star=star, choice=choice, again=again), says=says, open=open)


def _again(says, again):
    return _best(says, open=("with recomputation",), again=again)


WRONG = [
    _best("p where p - 1 belongs", open=("the optimum",), star="(p * beta * batch / alpha) ** 0.5"),
    _best("The batch B is missing", open=("the optimum",), star="((p - 1) * beta / alpha) ** 0.5"),
    _best("The root is missing", open=("the optimum",), star="(p - 1) * beta * batch / alpha"),
    _best("changed places", open=("the optimum",), star="((p - 1) * alpha * batch / beta) ** 0.5"),
    _best("rule of thumb", open=("the optimum",), star="batch ** 0.5"),
    _best("a place to start", open=("the optimum",), star="4.0 * p"),
    _best(
        "Rounding is for choose_m",
        open=("the optimum",),
        star="min(round(((p - 1) * beta * batch / alpha) ** 0.5), batch)",
    ),
    _best("pays the fixed cost most often", open=("a feasible m",), choice="batch // multiple * multiple"),
    _best("4p is only a place to start", open=("a feasible m",), choice="4 * p"),
    _best(
        "4p is only a place to start",
        open=("a feasible m",),
        choice="min(4 * p, batch) // multiple * multiple or multiple",
    ),
    _best(
        "The root of B ignores",
        open=("a feasible m",),
        choice="max(round(batch ** 0.5) // multiple, 1) * multiple",
    ),
    _best("cannot be cut into", open=("a feasible m",), choice="max(round(star / multiple), 1) * multiple"),
    _best("m* may be below 1", open=("a feasible m",), choice="min(int(star), batch) // multiple * multiple"),
    _best(
        "as long as the whole bubble",
        open=("the optimum",),
        star="(p - 1 + ((p - 1) ** 2 + 4 * (p - 1) * beta * batch / alpha) ** 0.5) / 2",
    ),
    _best(
        "the sequences in a micro-batch",
        open=("the optimum",),
        star="batch / ((p - 1) * beta * batch / alpha) ** 0.5 if p > 1 else 0.0",
    ),
    _best("Beta is missing", open=("the optimum",), star="((p - 1) * batch / alpha) ** 0.5"),
    _best("there is no bubble to share out", open=("the optimum",), star="max(1.0, " + _STAR + ")"),
    _best("With one device there is no bubble", open=("a feasible m",), choice=_CHOICE + " if p > 1 else 4"),
    _best(
        "instead of always rounding one way",
        open=("a feasible m",),
        choice="min(max(-int(-star // multiple), 1), batch // multiple) * multiple",
    ),
    _best(
        "instead of always rounding one way",
        open=("a feasible m",),
        choice="min(max(int(star // multiple), 1), batch // multiple) * multiple",
    ),
    _best(
        "need not divide the batch",
        open=("a feasible m",),
        choice="min((m for m in range(multiple, batch + 1, multiple) if batch % m == 0), key=T, default=multiple)",
    ),
    _best("is not a multiple of", open=("a feasible m",), choice="min(range(1, batch + 1), key=T)"),
    _again("That is m* without recomputation", "((p - 1) * beta * batch / alpha) ** 0.5"),
    _again("in the bubble too", "((p - 1) * (beta + beta_r) * batch / (alpha + alpha_r)) ** 0.5"),
    _again("It adds to the work", "((p - 1) * (beta + beta_r) * batch / alpha) ** 0.5"),
    _again("leaves out alpha", "((p - 1) * beta * batch / alpha_r) ** 0.5"),
    _again("is that of t(b)", "((p - 1) * beta_r * batch / (alpha + alpha_r)) ** 0.5"),
    _again("the two terms of T that move", "((p - 1) * beta * batch) ** 0.5 / (alpha + alpha_r)"),
]
