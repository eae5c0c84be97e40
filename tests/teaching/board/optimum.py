"""The fewest columns of any complete table, by trying all of them column by column: the oracle of the bound."""

from itertools import product

from pipelab.schedules import Action


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
    held = 0
    for stage in rules.stages_on(device):
        for i in range(rules.microbatches):
            held += done >> numbers[Action(stage, "F", i)] & 1
            held -= done >> numbers[Action(stage, "B", i)] & 1
    found = [(0, -1)]
    for action, k in numbers.items():
        s, i = action.stage, action.microbatch
        if s % rules.devices != device or done >> k & 1:
            continue
        if action.op == "F" and (held + 1) / rules.chunks > rules.limits[device] + 1e-6:
            continue
        if s == 0 and action.op == "F" and i and not done >> numbers[Action(0, "F", i - 1)] & 1:
            continue  # micro-batches are alike: stage 0 takes them in order
        needed = [Action(s - 1, "F", i)] if action.op == "F" and s else []
        if action.op == "B":
            needed = [Action(s, "F", i)] + ([Action(s + 1, "B", i)] if s + 1 < rules.stages else [])
        if all(done >> numbers[source] & 1 for source in needed):
            found.append((rules.forward if action.op == "F" else rules.backward, k))
    return found


def _after_one_column(done, running):
    following = []
    for left, k in running:
        if left == 1:
            done |= 1 << k
        following.append((left - 1, k) if left > 1 else (0, -1))
    return done, tuple(following)
