from tests.teaching.exercises.wrong import Wrong

_ALL = """
def time(n, k, c, f):
    return n * c + k * (c + f)

def gain(n, k, c, f):
    return n * f / time(n, k, c, f)

def speed_up(slices, iterations, coarse, fine):
    n, k, c, f = slices, iterations, coarse, fine
    return {gain}

def most_iterations(slices, coarse, fine, wanted):
    n, c, f = slices, coarse, fine
    enough = [k for k in range(1, n + 1) if gain(n, k, c, f) >= wanted]
    return {most}

def best_slices(work, iterations, coarse, limit):
    k = iterations
    exact = (k * work / coarse) ** 0.5
    return {best}
"""
_MOST = "max(enough, default=0)"
_BEST = "min(range(k, limit + 1), key=lambda n: time(n, k, coarse, work / n))"


def _but(part, says, gain="gain(n, k, c, f)", most=_MOST, best=_BEST):
    text = _ALL.replace("{gain}", gain).replace("{most}", most).replace("{best}", best)
    return Wrong("parareal_bound", text, says=says, open=(part,))


def _gain(says, gain):
    return _but("speed-up", says, gain=gain)


def _most(says, most):
    return _but("most iterations", says, most=most)


def _best(says, best):
    return _but("best number of slices", says, best=best)


WRONG = [
    _gain("one coarse sweep before the first iteration", "n * f / (k * (n * c + f))"),
    _gain("so the sweeps overlap", "n * f / (n * c + k * (n * c + f))"),
    _gain("The corrections are missing", "n * f / (n * c + k * f)"),
    _gain("they come one after another", "n * f / (k * (c + f))"),
    _gain("the bound for coarse solves that take no time", "n / k"),
    _gain("as if nothing were repeated", "n"),
    _gain("That is the time", "time(n, k, c, f)"),
    _gain("That is the inverse", "1 / gain(n, k, c, f)"),
    _gain("was taken for one slice", "f / time(n, k, c, f)"),
    _gain("needs no coarse solves", "n * (c + f) / time(n, k, c, f)"),
    _gain("All slices were solved one after another", "n * f / (n * c + k * n * (c + f))"),
    _most("That is the bound n / k", "int(n / wanted)"),
    _most("below 2.5", "max(enough, default=0) + 1"),
    _most("which is still enough", "min(enough, default=0)"),
    _most("More change nothing", "n + 1"),
    _most("return 0", "max(enough, default=-1)"),
    _best("So the largest number is not best", "limit"),
    _best("More slices make each fine solve shorter", "k"),
    _best("The iterations are missing", "max(k, min(limit, round((work / coarse) ** 0.5)))"),
    _best("Its upper neighbour is better", "max(k, min(limit, int(exact)))"),
    _best("Its lower neighbour is better", "max(k, min(limit, int(exact) + 1))"),
    _best("more than the workers", "max(k, round(exact))"),
    _best("fewer slices than iterations", "1"),
]
