from tests.teaching.exercises.wrong import Wrong

_FIT = """
def fit(batch, timings):
    points = [({x}, {y}) for m, t in timings]
    {pick}
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    beta = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    alpha = mean_y - beta * mean_x
    return {result}
"""


def _fit(says, open=(), x="batch / m", y="t", pick="pass", result="alpha, beta"):
    return Wrong("straight_line", _FIT.format(x=x, y=y, pick=pick, result=result), says=says, open=open)


_BEST = """
def m_star(devices, batch, alpha, beta):
    p = devices
    return {star}

def choose_m(devices, batch, alpha, beta, multiple):
    p = devices
    star = ((p - 1) * beta * batch / alpha) ** 0.5
    T = lambda m: (m + p - 1) * (alpha + beta * batch / m)
    return {choice}
"""
_STAR = "((p - 1) * beta * batch / alpha) ** 0.5"
_CHOICE = "min(range(multiple, batch + 1, multiple), key=T)"


def _best(says, open=(), star=_STAR, choice=_CHOICE):
    return Wrong("best_m", _BEST.format(star=star, choice=choice), says=says, open=open)


_SLICES = """
def sizes(batch, microbatches):
    m = microbatches
    small, rest = divmod(batch, m)
    return {sizes}

def loss_weights(batch, microbatches):
    m = microbatches
    small, rest = divmod(batch, m)
    cut = [small + (i < rest) for i in range(m)]
    return {weights}
"""


def _slices(says, open, sizes="[small + (i < rest) for i in range(m)]", weights="[n / batch for n in cut]"):
    return Wrong("slices", _SLICES.format(sizes=sizes, weights=weights), says=says, open=open)


_READ = """
def read_sweep(rows, limit):
    fitting = [row for row in rows if {fits}]
    best = {pick}(fitting, key=lambda row: {key})
    def split(row):
        return row["step"] / row["batch"] * row["idle"], row["step"] / row["batch"] * (100 - row["idle"])
    reasons = {{}}
    for row in rows:
        idle, busy = (a - b for a, b in zip(split(row), split(best)))
        {reason}
    return best["m"], reasons
"""
_REASON = 'reasons[row["m"]] = "memory" if row["peak"] > limit else "bubble" if idle > busy else "granularity"'


def _read(says, open=(), fits='row["peak"] <= limit', pick="max", key='row["batch"] / row["step"]', reason=_REASON):
    text = _READ.format(fits=fits, pick=pick, key=key, reason=reason)
    return Wrong("reading", text, says=says, open=open)


_REASONS = """{
        (120, 0): ["bubble", "granularity", "recompute"],
        (42, 0): ["memory", "granularity", "memory", "recompute"],
        (120, 10): ["messages", "bubble", "granularity", "recompute"],
        (42, 10): ["memory", "messages", "memory", "granularity"],
    }"""
_RIGHT = {(120, 0): ("1f1b", 8), (42, 0): ("1f1b", 13), (120, 10): ("gpipe", 8), (42, 10): ("gpipe + R", 8)}
_DEFEND = """
def defend(limit, latency, others):
    choice = {choice}
    reasons = {reasons}
    return (*choice[limit, latency], {told})
"""


def _defend(says, open, reasons=_REASONS, told="reasons[limit, latency]", **changes):
    choice = _RIGHT | {tuple(map(int, key.split("_")[1:])): value for key, value in changes.items()}
    return Wrong("defend", _DEFEND.format(choice=choice, reasons=reasons, told=told), says=says, open=open)


def _reasons(says, old, new):
    assert old in _REASONS
    return _defend(says, open=("reasons",), reasons=_REASONS.replace(old, new))


WRONG = [
    _fit("swapped", result="beta, alpha"),
    _fit("over b = B/m", x="m"),
    _fit(
        "through the origin",
        result="0.0, sum(x * y for x, y in points) / sum(x * x for x, _ in points)",
    ),
    _fit("first and the last point alone", open=("measured",), pick="points = [points[0], points[-1]]"),
    _fit("of one sequence more", x="1 / m"),
    _fit("factor of 1000", y="t / 1000"),
    _fit("a line over 1/m, with its two numbers swapped", x="1 / m", result="beta, alpha"),
    _fit("a line over m, which falls, with its two numbers swapped", x="m", result="beta, alpha"),
    _fit("of such differences", open=("measured",), pick="points = [points[3], points[-2]]"),
    _fit("least squares", result="mean_y, beta"),
    _best("p where p - 1 belongs", open=("the optimum",), star="(p * beta * batch / alpha) ** 0.5"),
    _best("The batch B is missing", open=("the optimum",), star="((p - 1) * beta / alpha) ** 0.5"),
    _best("The root is missing", open=("the optimum",), star="(p - 1) * beta * batch / alpha"),
    _best("changed places", open=("the optimum",), star="((p - 1) * alpha * batch / beta) ** 0.5"),
    _best("rule of thumb", open=("the optimum",), star="batch ** 0.5"),
    _best("a place to start", open=("the optimum",), star="4.0 * p"),
    _best(
        "rounding is for choose_m",
        open=("the optimum",),
        star="min(round(((p - 1) * beta * batch / alpha) ** 0.5), batch)",
    ),
    _best("pays the fixed cost most often", open=("a feasible m",), choice="batch // multiple * multiple"),
    _best("4p is a place to start", open=("a feasible m",), choice="4 * p"),
    _best(
        "4p is a place to start", open=("a feasible m",), choice="min(4 * p, batch) // multiple * multiple or multiple"
    ),
    _best(
        "The root of B knows",
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
        "do not round one way",
        open=("a feasible m",),
        choice="min(max(-int(-star // multiple), 1), batch // multiple) * multiple",
    ),
    _best(
        "do not round one way",
        open=("a feasible m",),
        choice="min(max(int(star // multiple), 1), batch // multiple) * multiple",
    ),
    _best(
        "need not divide the batch",
        open=("a feasible m",),
        choice="min((m for m in range(multiple, batch + 1, multiple) if batch % m == 0), key=T, default=multiple)",
    ),
    _best("is no multiple of", open=("a feasible m",), choice="min(range(1, batch + 1), key=T)"),
    _slices("would never be trained on", ("sizes",), sizes="[small] * m"),
    _slices("rounding up takes too many", ("sizes",), sizes="[-(-batch // m)] * m"),
    _slices("The last one gets all that is left", ("sizes",), sizes="[small] * (m - 1) + [small + rest]"),
    _slices("the larger ones first", ("sizes",), sizes="[small] * (m - rest) + [small + 1] * rest"),
    _slices("micro-batches, not", ("sizes",), sizes="[small] * m + ([rest] if rest else [])"),
    _slices("With 1/m for all", ("weights",), weights="[1 / m] * m"),
    _slices("have to add up to 1, not to", ("weights",), weights="cut"),
    _slices("of full weight", ("weights",), weights="[1] * m"),
    _slices("in another order", ("weights",), weights="[n / batch for n in cut[::-1]]"),
    _slices("rounded. Leave it", ("weights",), weights="[round(n / batch, 4) for n in cut]"),
    _slices("A mean needs weights that add up to 1", ("weights",), weights="[n / m for n in cut]"),
    _read("It has the smallest bubble", ("batch fixed",), pick="min", key='row["idle"]'),
    _read("are allowed", fits="True"),
    _read("because its batch is the smallest", ("batch varies",), pick="min", key='row["step"]'),
    _read("trains", pick="min", key='row["step"] * row["peak"]', open=("batch fixed",)),
    _read("whatever its speed", reason='reasons[row["m"]] = "bubble" if idle > busy else "granularity"'),
    _read(
        "are idle",
        reason='reasons[row["m"]] = "memory" if row["peak"] > limit else "granularity" if idle > busy else "bubble"',
    ),
    _read(
        "It runs, and trains",
        ("batch fixed",),
        reason='reasons[row["m"]] = "memory" if row["m"] > best["m"] or row["peak"] > limit else "bubble"',
    ),
    _read("there is no reason for", reason="pass"),
    _read(
        "For each sequence its devices are idle",
        ("batch varies",),
        reason='idle, busy = (row["step"] * a - best["step"] * b for a, b in '
        '((row["idle"], best["idle"]), (100 - row["idle"], 100 - best["idle"])))\n        ' + _REASON,
    ),
    _read(
        "within the limit",
        ("batch fixed", "batch varies"),
        key='row["m"]',
        reason='reasons[row["m"]] = "memory" if row["peak"] > limit else "bubble"',
    ),
    Wrong(
        "defend",
        "def defend(limit, latency, others):\n    return ('1f1b', 8), ['memory'] * 4",
        says="2 entries instead",
    ),
    _defend("holds the whole batch, whatever m", ("free messages",), c_42_0=("gpipe", 16)),
    _defend("a larger m holds less", ("free messages",), c_42_0=("1f1b", 8)),
    _defend("too many micro-batches", ("free messages",), c_120_0=("1f1b", 16), c_42_0=("1f1b", 16)),
    _defend("waits for them again and again", ("slow messages",), c_120_10=("1f1b", 8), c_42_10=("1f1b", 13)),
    _defend("recomputing, and with this limit it need not", ("slow messages",), c_120_10=("gpipe + R", 8)),
    _defend("too few micro-batches", ("free messages",), c_120_0=("gpipe", 4)),
    _reasons("it does not run at all", '["memory", "messages", "memory"', '["recompute", "messages", "memory"'),
    _reasons("it fits", '["messages", "bubble", "granularity", "recompute"]', '["memory"] * 4'),
    _reasons("it loses nothing", '["bubble", "granularity", "recompute"]', '["granularity", "bubble", "recompute"]'),
    _reasons(
        "That is part of it",
        '["memory", "granularity", "memory", "recompute"]',
        '["memory", "granularity", "memory", "bubble"]',
    ),
]
