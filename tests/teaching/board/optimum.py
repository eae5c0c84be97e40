"""The fewest columns of any complete table, by trying all of them column by column: the oracle of the bound."""

from itertools import product

from pipelab.schedules import Action
from tests.teaching.board.boards import columns_of, device_of


def optimum(rules):
    """The makespan of the best table within the cap; None if there is none. For a dozen actions or two."""
    numbers = {action: k for k, action in enumerate(rules.actions())}
    everything = (1 << len(numbers)) - 1
    idle = (0, -1)
    frontier, seen, columns = {(0, (idle,) * rules.devices)}, set(), 0
    while frontier:
        if any(done == everything for done, _ in frontier):
            return columns
        seen |= frontier
        following = set()
        for done, running in frontier:
            for step in product(*(_options(rules, numbers, done, running, d) for d in range(rules.devices))):
                following.add(_after_one_column(done, step))
        frontier = following - seen
        columns += 1
    return None


def _options(rules, numbers, done, running, device):
    left, _ = running[device]
    if left:
        return [running[device]]
    takes = columns_of(rules)
    own = [action for action in numbers if device_of(rules, action) == device]
    held = 0
    for action in own:
        held += (done >> numbers[action] & 1) * {"F": 1, [*takes][-1]: -1}.get(action.op, 0)
    found = [(0, -1)]
    for action in own:
        s, i, k = action.stage, action.microbatch, numbers[action]
        if done >> k & 1:
            continue
        if action.op == "F" and (held + 1) / rules.chunks > rules.limits[device] + 1e-6:
            continue
        if (
            s == 0
            and rules.layout != "two-way"
            and action.op == "F"
            and i
            and not done >> numbers[Action(0, "F", i - 1)] & 1
        ):
            continue  # micro-batches are alike: stage 0 takes them in order
        needed = [Action(s - 1, "F", i)] if action.op == "F" and s else []
        if action.op in "BI":
            needed = [Action(s, "F", i)] + ([Action(s + 1, action.op, i)] if s + 1 < rules.stages else [])
        if action.op == "W":
            needed = [Action(s, "I", i)]
        if all(done >> numbers[source] & 1 for source in needed):
            found.append((takes[action.op], k))
    return found


def _after_one_column(done, running):
    following = []
    for left, k in running:
        if left == 1:
            done |= 1 << k
        following.append((left - 1, k) if left > 1 else (0, -1))
    return done, tuple(following)
