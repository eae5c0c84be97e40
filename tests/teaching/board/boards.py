"""Boards for tests: rules of all shapes, boards made by random legal moves, and moves that may be anything."""

from hypothesis import strategies as st

from pipelab.schedules import Action, build_schedule
from pipelab.teaching.board import Board, Rules


def act(token):
    return Action.parse(token)


def place_all(rules, *moves):
    """A board from moves such as "0F0@0", each placed legally on the device of its stage."""
    board = Board.empty(rules)
    for move in moves:
        token, time = move.split("@")
        board = board.place(rules.home(act(token)), int(time), act(token))
    return board


def tokens(actions):
    return [str(action) for action in actions]


def laid_out(name, p, m, v=1, **more):
    return Board.from_schedule(build_schedule(name, p, m, v), Rules(p, m, v, **more))


def loaded(rules, *moves):
    """A board with these moves, legal or not."""
    pairs = [move.split("@") for move in moves]
    return Board(rules, {act(token): int(time) for token, time in pairs})


@st.composite
def some_rules(draw, max_p=4, max_m=4, max_v=3):
    p, m = draw(st.integers(1, max_p)), draw(st.integers(1, max_m))
    v = draw(st.integers(1, max_v))
    cap = st.one_of(st.none(), st.integers(1, m), st.integers(v, m * v).map(lambda chunks: chunks / v))
    limit = draw(st.one_of(cap, st.lists(cap, min_size=p, max_size=p).map(tuple)))
    layouts = ["loop", *(["v"] if v == 2 else []), *(["two-way"] if v == 1 and p % 2 == 0 else [])]
    columns = st.integers(1, 3)
    backward = draw(columns | st.tuples(columns, columns))
    return Rules(p, m, v, draw(columns), backward, limit, draw(st.sampled_from(layouts)))


@st.composite
def played(draw, rules=None, most=60):
    """A board made by up to ``most`` random legal moves, often far from the earliest column."""
    board = Board.empty(draw(some_rules()) if rules is None else rules)
    for _ in range(draw(st.integers(0, most))):
        openings = board.ready_anywhere()
        if not openings:
            break
        opening = draw(st.sampled_from(openings))
        time = opening.time + draw(st.sampled_from([0, 0, 0, 1, 2, 5]))
        ready = board.ready(opening.device, time)
        if ready:
            board = board.place(opening.device, time, draw(st.sampled_from(ready)))
    return board


@st.composite
def completed(draw, rules=None):
    """A complete board: random moves, each as early as it may be or a little later; None in a dead end."""
    board = Board.empty(draw(some_rules()) if rules is None else rules)
    while not board.complete:
        openings = board.ready_anywhere()
        if not openings:
            return None
        opening = draw(st.sampled_from(openings))
        time = opening.time + draw(st.sampled_from([0, 0, 1]))
        if board.why_not(opening.device, time, opening.action) is not None:
            time = opening.time
        board = board.place(opening.device, time, opening.action)
    return board


@st.composite
def scattered(draw):
    """A board with some actions anywhere: readable, and mostly unsound."""
    rules = draw(some_rules(max_p=3, max_m=3, max_v=2))
    starts, busy = {}, set()
    for action in draw(st.lists(st.sampled_from(rules.actions()), unique=True, max_size=10)):
        start = draw(st.integers(0, min(14, rules.columns - rules.duration(action))))
        cells = {(rules.home(action), t) for t in range(start, start + rules.duration(action))}
        if not cells & busy:
            busy |= cells
            starts[action] = start
    return Board(rules, starts)


# ---- what is legal, said once more and otherwise: cell by cell, from the words of the rules -----------------------


def columns_of(rules):
    """op -> the columns that it takes, the op that lets a micro-batch go last."""
    if isinstance(rules.backward, tuple):
        return {"F": rules.forward, "I": rules.backward[0], "W": rules.backward[1]}
    return {"F": rules.forward, "B": rules.backward}


def device_of(rules, action):
    p, s = rules.devices, action.stage
    if rules.layout == "v":
        return s if s < p else 2 * p - 1 - s
    if rules.layout == "two-way" and action.microbatch % p >= p / 2:
        return p - 1 - s
    return s % p


def cells(rules, starts):
    """(device, column) -> actions that stand there."""
    found = {}
    for action, start in starts.items():
        for t in range(start, start + columns_of(rules)[action.op]):
            found.setdefault((device_of(rules, action), t), []).append(action)
    return found


def in_flight(rules, starts, device, t):
    """Full shares that ``device`` holds in column ``t``."""
    count = 0
    *_, (last, takes) = columns_of(rules).items()
    for action, start in starts.items():
        if action.op == "F" and device_of(rules, action) == device and start <= t:
            back = starts.get(Action(action.stage, last, action.microbatch))
            if back is None or back + takes <= start or t < back + takes:
                count += 1
    return count / rules.chunks


def waits(rules, starts):
    """Pairs (action, what it needs) of placed actions where what is needed is missing or ends too late."""
    last, takes = rules.devices * rules.chunks - 1, columns_of(rules)
    down = "I" if "I" in takes else "B"
    for action, start in starts.items():
        s, i = action.stage, action.microbatch
        if action.op == "F":
            needed = [Action(s - 1, "F", i)] if s > 0 else []
        elif action.op == "W":
            needed = [Action(s, "I", i)]
        else:
            needed = [Action(s, "F", i)] + ([Action(s + 1, down, i)] if s < last else [])
        for source in needed:
            end = starts.get(source, 10**9) + takes[source.op]
            if end > start:
                yield action, source


def crowded(rules, starts, horizon):
    """(device, column) where more is held than may be."""
    limit = rules.limit if isinstance(rules.limit, tuple) else (rules.limit,) * rules.devices
    return {
        (device, t)
        for device in range(rules.devices)
        for t in range(horizon)
        if limit[device] is not None and in_flight(rules, starts, device, t) > limit[device] + 1e-6
    }


def may_stand(board, device, time, action):
    """The oracle of ``why_not``: whether the board with this action is no worse than it was without."""
    rules, starts = board.rules, dict(board.starts)
    known = 0 <= action.stage < rules.devices * rules.chunks and 0 <= action.microbatch < rules.microbatches
    takes = columns_of(rules)
    if not known or action.op not in takes or device != device_of(rules, action) or action in starts or time < 0:
        return False
    after = {**starts, action: time}
    horizon = rules.columns
    if time + takes[action.op] > horizon:
        return False
    if any(len(there) > 1 for there in cells(rules, after).values()):
        return False
    if any(action in pair for pair in waits(rules, after)):
        return False
    touched = {
        (device, t) for t in range(horizon) if in_flight(rules, after, device, t) > in_flight(rules, starts, device, t)
    }
    return not crowded(rules, after, horizon) & touched
