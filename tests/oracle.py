"""A second opinion: what a pipeline may do, written again from the words of the design.

Slow and plain, and it shares no code with ``pipelab`` but the names of things: dependencies, execution, bounded
channels and times are all worked out here once more, so that the package can be held against it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import cache

from pipelab.schedules import Action, Schedule, Slot


def parts(slot: Slot) -> tuple[Action, ...]:
    return slot if isinstance(slot, tuple) else (slot,)


def everything(schedule: Schedule) -> dict[Action, tuple[int, int]]:
    """Each action of a table in which none stands twice -> (device, position)."""
    return {a: (r, k) for r, row in enumerate(schedule.programs) for k, slot in enumerate(row) for a in parts(slot)}


def local_needs(action: Action, table: dict) -> list[set[Action]]:
    """What must have run on this same device: one of each set."""
    s, i = action.stage, action.microbatch
    f, b, half_i, half_w, r = (Action(s, op, i) for op in "FBIWR")
    if action.op == "F":
        return []
    if action.op == "R":
        return [{f}]
    if action.op == "U":
        return [{b, half_w}]
    if action.op == "W" and not (s == 0 and half_i not in table):
        return [{half_i}]
    return [{f}] + ([{r}] if r in table else [])


def message_need(action: Action, stages: int, table: dict) -> Action | None:
    """The action on a neighbouring stage whose result this one takes."""
    s, i = action.stage, action.microbatch
    if action.op == "F":
        return Action(s - 1, "F", i) if s > 0 else None
    whole = action.op in ("B", "I") or (action.op == "W" and s == 0 and Action(s, "I", i) not in table)
    if whole and s + 1 < stages:
        return Action(s + 1, "I", i) if Action(s + 1, "I", i) in table else Action(s + 1, "B", i)
    return None


def may_run(action: Action, device: int, done: dict[Action, int], schedule: Schedule, table: dict) -> bool:
    """Whether ``device`` has, and has been sent, all that ``action`` needs; ``done``: action -> device."""
    sender = message_need(action, len(schedule.placement), table)
    if sender is not None and sender not in done:
        return False
    return all(any(done.get(one) == device for one in ones) for ones in local_needs(action, table))


def run_all_that_can(schedule: Schedule) -> bool:
    """Scan the devices again and again, run whatever can run: does every slot get its turn?"""
    table = everything(schedule)
    done: dict[Action, int] = {}
    heads = [0] * len(schedule.programs)
    moved = True
    while moved:
        moved = False
        for device, program in enumerate(schedule.programs):
            while heads[device] < len(program):
                after = dict(done)
                for action in parts(program[heads[device]]):
                    if not may_run(action, device, after, schedule, table):
                        break
                    after[action] = device
                else:
                    done, moved = after, True
                    heads[device] += 1
                    continue
                break
    return heads == [len(program) for program in schedule.programs]


def trains_by_its_rule(schedule: Schedule) -> bool:
    """Play the life of each stage with a bag of gradients: are updates made of the right ones, versions there in time?

    With ``updating`` update k is of micro-batches k * every to (k + 1) * every - 1; without it all stages do alike.
    """
    actions = [a for row in schedule.programs for slot in row for a in parts(slot)]
    rule = schedule.updating
    if not any(a.op in "BIWRU" for a in actions) or (rule is None and all(a.op != "U" for a in actions)):
        return True
    bags_of: dict[int, list[set[int]]] = {}
    made: dict[Action, int] = {}  # forward -> how many versions its stage has had by then
    for s, homes in enumerate(schedule.placement):
        if len(homes) > 1:
            continue
        bag: set[int] = set()
        bags_of[s] = []
        for slot in schedule.programs[homes[0]]:
            for a in parts(slot):
                if a.stage == s and a.op in ("B", "W"):
                    bag.add(a.microbatch)
                elif a.stage == s and a.op == "U":
                    bags_of[s].append(bag)
                    bag = set()
                elif a.stage == s and a.op == "F":
                    made[a] = len(bags_of[s])
        if bag:
            return False  # left over
    m = len(schedule.weights)
    for bags in bags_of.values():
        if rule is None and bags != next(iter(bags_of.values())):
            return False
        if rule is not None and bags != [set(range(i, i + rule.every)) for i in range(0, m, rule.every)]:
            return False
    for a, newest in made.items():
        if rule is not None and rule.rule == "input" and made[Action(0, "F", a.microbatch)] > newest:
            return False
        if rule is not None and rule.rule == "delayed" and a.microbatch // rule.every - 1 > newest:
            return False
    return True


def needs_a_stash(schedule: Schedule) -> bool:
    """Whether some stage is updated between a forward and a backward of the same micro-batch."""
    for row in schedule.programs:
        order = [a for slot in row for a in parts(slot)]
        for k, first in enumerate(order):
            seen = False
            for a in order[k:] if first.op == "F" else ():
                seen = seen or (a.op == "U" and a.stage == first.stage)
                if seen and a.op in "BIW" and (a.stage, a.microbatch) == (first.stage, first.microbatch):
                    return True
    return False


def finishes_with_blocking_sends(schedule: Schedule, outstanding: int) -> bool:
    """Run the devices against channels that hold ``outstanding`` messages; a send beyond that blocks until taken.

    One channel per (activation or gradient, source, destination), in order: a slot that needs a message first takes all
    that were sent before it.
    """
    table, stages = everything(schedule), len(schedule.placement)
    consumers: dict[Action, list[Action]] = {}
    for action in table:
        sender = message_need(action, stages, table)
        if sender in table and table[sender][0] != table[action][0]:
            consumers.setdefault(sender, []).append(action)
    queues: dict[tuple[bool, int, int], deque[Action]] = {}
    events = 0

    def device(r: int) -> Iterator[None]:
        nonlocal events
        mail: set[Action] = set()
        done: dict[Action, int] = {}
        for slot in schedule.programs[r]:
            for action in parts(slot):
                sender = message_need(action, stages, table)
                if sender is None or table[sender][0] == r:
                    continue
                queue = queues.setdefault((sender.op == "F", table[sender][0], r), deque())
                while sender not in mail:
                    while not queue:
                        yield
                    mail.add(queue.popleft())
                    events += 1
            for action in parts(slot):
                while not all(any(one in done for one in ones) for ones in local_needs(action, table)):
                    yield  # for ever: nobody else can run it
                done[action] = r
            events += 1
            for action in parts(slot):
                for consumer in consumers.get(action, ()):
                    queue = queues.setdefault((action.op == "F", r, table[consumer][0]), deque())
                    queue.append(action)
                    events += 1
                    while len(queue) > outstanding:
                        yield

    running = [device(r) for r in range(len(schedule.programs))]
    before = -1
    while running and events != before:
        before = events
        running = [each for each in running if next(each, "over") != "over"]
    return not running


def finishes_with_groups(schedule: Schedule, outstanding: int) -> bool:
    """The same where what a device sends after a slot and receives before the next is one group, posted at once.

    A device is through with a group when all that it receives is there, and of what it sends all but ``outstanding``
    messages a channel are posted by their receiver.
    """
    table, stages = everything(schedule), len(schedule.placement)
    order: dict[tuple[bool, int, int], list[tuple[int, Action]]] = {}
    needed: dict[Action, tuple[tuple[bool, int, int], Action]] = {}
    for action, (r, _) in table.items():
        sender = message_need(action, stages, table)
        if sender in table and table[sender][0] != r:
            channel = (sender.op == "F", table[sender][0], r)
            needed[action] = channel, sender
            order.setdefault(channel, []).append((table[sender][1], sender))
    queue = {channel: [sender for _, sender in sorted(found)] for channel, found in order.items()}
    sent, posted, at = dict.fromkeys(queue, 0), dict.fromkeys(queue, 0), [0] * len(schedule.programs)

    def post(r: int) -> None:
        for action in parts(schedule.programs[r][at[r]]) if at[r] < len(schedule.programs[r]) else ():
            if action in needed:
                channel, sender = needed[action]
                posted[channel] = max(posted[channel], queue[channel].index(sender) + 1)

    def through(r: int) -> bool:
        before = parts(schedule.programs[r][at[r] - 1]) if at[r] else ()
        going = {channel for channel, senders in queue.items() if channel[1] == r and set(senders) & set(before)}
        came = all(sent[channel] >= posted[channel] for channel in queue if channel[2] == r)
        return came and all(sent[channel] - posted[channel] <= outstanding for channel in going)

    for r in range(len(at)):
        post(r)
    moved = True
    while moved:
        moved = False
        for r, program in enumerate(schedule.programs):
            if at[r] < len(program) and through(r):
                for channel, senders in queue.items():
                    sent[channel] += sum(channel[1] == r and action in senders for action in parts(program[at[r]]))
                at[r] += 1
                post(r)
                moved = True
    return at == [len(program) for program in schedule.programs]


def ends_of(
    schedule: Schedule,
    cost: Callable[[Slot], float],
    *,
    latency: float = 0.0,
    sending_time: Callable[[Action], float] = lambda producer: 0.0,
) -> dict[tuple[int, int], float]:
    """The end of each slot of a sound table, by the longest path that leads to it, asked for backwards.

    Messages of one channel leave one after another: each takes ``sending_time``, then ``latency``.
    """
    table, stages = everything(schedule), len(schedule.placement)

    def channel(producer: Action, consumer: Action) -> tuple[bool, int, int]:
        return (producer.op == "F", table[producer][0], table[consumer][0])

    senders = {action: message_need(action, stages, table) for action in table}
    sent: dict[tuple[bool, int, int], list[tuple[Action, Action]]] = {}
    for _device, program in enumerate(schedule.programs):
        for slot in program:
            for producer in parts(slot):
                for consumer in (c for c, s in senders.items() if s == producer and table[c][0] != table[s][0]):
                    sent.setdefault(channel(producer, consumer), []).append((producer, consumer))

    @cache
    def end(device: int, position: int) -> float:
        slot = schedule.programs[device][position]
        start = end(device, position - 1) if position else 0.0
        for action in parts(slot):
            sender = senders[action]
            if sender is not None and table[sender] != (device, position):
                away = table[sender][0] != device
                start = max(start, leaves(sender, action) + latency if away else end(*table[sender]))
        return start + cost(slot)

    @cache
    def leaves(producer: Action, consumer: Action) -> float:
        queue = sent[channel(producer, consumer)]
        number = queue.index((producer, consumer))
        free = leaves(*queue[number - 1]) if number else 0.0
        return max(end(*table[producer]), free) + sending_time(producer)

    return {(r, k): end(r, k) for r, row in enumerate(schedule.programs) for k in range(len(row))}
