from tests.teaching.exercises.wrong import Wrong

_ALL = """
def place(rank, dp, pp, tp):
    return {place}


def rank_at(d, p, t, dp, pp, tp):
    return {rank}


def groups(kind, dp, pp, tp):
    def boxes(keep):
        found = {}
        for rank in range(dp * pp * tp):
            spot = (rank // (pp * tp), rank // tp % pp, rank % tp)
            found.setdefault(tuple(c for k, c in enumerate(spot) if keep(k)), []).append(rank)
        return list(found.values())

    at, every = ("dp", "pp", "tp").index(kind), range(dp * pp * tp)
    size = (dp, pp, tp)[at]
    return {groups}


def reduces_with(rank, dp, pp, tp):
    replica, world = pp * tp, dp * pp * tp
    return {same}


def sends_to(rank, dp, pp, tp):
    replica, world = pp * tp, dp * pp * tp
    last = rank // tp % pp == pp - 1
    return {to}
"""
_RIGHT = {
    "place": "rank // (pp * tp), rank // tp % pp, rank % tp",
    "rank": "(d * pp + p) * tp + t",
    "groups": "boxes(lambda k: k != at)",
    "same": "list(range(rank % replica, world, replica))",
    "to": "None if last else rank + tp",
}


def _but(part, says, **changed):
    text = _ALL
    for name, value in {**_RIGHT, **changed}.items():
        text = text.replace("{" + name + "}", value)
    return Wrong("ranks_and_groups", text, says=says, open=(part,))


def _place(says, **changed):
    return _but("ranks and places", says, **changed)


def _groups(says, groups):
    return _but("groups", says, groups=groups)


def _with(says, **changed):
    return _but("who with whom", says, **changed)


WRONG = [
    _place("That has dp innermost", place="rank % dp, rank // dp % pp, rank // (dp * pp)"),
    _place("That has pp outermost", place="rank // tp % dp, rank // (dp * tp), rank % tp"),
    _place("in the order (t, p, d)", place="rank % tp, rank // tp % pp, rank // (pp * tp)"),
    _place("it goes from 0 to 2", place="rank // (pp * tp), rank // tp, rank % tp"),
    _place("it goes from 0 to", place="rank // (pp * tp) + 1, rank // tp % pp + 1, rank % tp + 1"),
    _place("That is the place of rank", place="rank // (pp * tp), rank // tp % pp, 0"),
    _place("That has dp innermost", rank="(t * pp + p) * dp + d"),
    _place("That has pp outermost", rank="(p * dp + d) * tp + t"),
    _place("multiplied by the size of its own", rank="d * dp + p * pp + t * tp"),
    _place("from 0 on", rank="d * pp * tp * dp + p * tp + t"),
    _groups("differ in t", "[list(every)[k : k + size] for k in range(0, dp * pp * tp, size)]"),
    _groups("Ranks 0 and 1 differ in t. The ranks of a dp group", "boxes(lambda k: k == at)"),
    _groups("Ranks 0 and 2 differ in p", "[list(every)[k::size] for k in range(size)]"),
    _groups("is in no group", "boxes(lambda k: k != at)[:1]"),
    _groups("also where it is alone", "boxes(lambda k: k != at) if size > 1 else []"),
    _groups("is in two groups", "boxes(lambda k: k != at) + boxes(lambda k: k != at)[:1]"),
    _groups("should have dp = 2 different ranks", "[[rank] for rank in every]"),
    _groups("there is no rank", "[[rank + 1 for rank in box] for box in boxes(lambda k: k != at)]"),
    _with("another part of each", same="[r for r in range(world) if r // tp % pp == rank // tp % pp]"),
    _with("it holds other layers", same="[r for r in range(world) if r % tp == rank % tp]"),
    _with("It adds its own gradient too", same="[r for r in range(rank % replica, world, replica) if r != rank]"),
    _with("it holds the same layers, but another part", same="[r for r in range(world) if r // tp == rank // tp]"),
    _with("It holds the same weights for another part", same="[rank]"),
    _with("which is not the next one", to="None if last else rank + 1"),
    _with("nobody takes its activations", to="(rank + tp) % world"),
    _with("nobody takes its activations", to="rank + tp if rank + tp < world else None"),
    _with("in another replica", to="None if last else (rank + tp + replica) % world"),
    _with("part 0 of each layer", to="None if last else (rank // tp + 1) * tp"),
    _with("So there is a next stage", to="None if rank + replica >= world else rank + tp"),
]
