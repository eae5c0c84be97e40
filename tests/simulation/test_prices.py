"""What is asked once for all that is alike is what would be said of each."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import Action, ConfigurationError, Schedule
from pipelab.schedules import build_schedule
from pipelab.simulation import Costs, simulate
from pipelab.simulation.prices import Prices
from pipelab.teaching.explorer.settings import Settings
from pipelab.tuning.profile import CostProfile
from tests.strategies import sound_tables


class OneByOne:
    """The same costs, which say nothing of kinds: every slot, message and action is asked for by itself."""

    def __init__(self, costs):
        self.costs = costs

    def __getattr__(self, name):
        if name == "cost_of":
            raise AttributeError(name)
        return getattr(self.costs, name)


def uneven(schedule, seed):
    draw = random.Random(seed)
    each = {name: [draw.random() for _ in range(schedule.stages)] for name in ("forward", "backward", "message_bytes")}
    kept = {"activation_bytes": draw.random() + 1, "input_bytes": draw.random()}
    return Costs(**each, **kept, recompute=0.3, update=0.2, latency=0.1, bandwidth=5.0, fused={"FB": 0.8})


def both(schedule, costs, batch):
    one, other = simulate(schedule, costs, batch=batch), simulate(schedule, OneByOne(costs), batch=batch)
    assert (one.spans, one.updates, one.messages) == (other.spans, other.updates, other.messages)
    assert (one.holdings, one.peak_bytes, one.figures()) == (other.holdings, other.peak_bytes, other.figures())


@given(sound_tables(), st.integers(0, 9), st.sampled_from([None, 24, 31]))
def test_costs_asked_by_kind_are_those_of_each_slot(schedule, seed, batch):
    both(schedule, uneven(schedule, seed), batch)


@given(st.integers(1, 12), st.booleans())
def test_a_profile_asked_by_kind_says_what_it_says_of_each_slot(m, again):
    both(build_schedule("1f1b", 4, m, recompute=again), CostProfile.shipped().costs(50, latency=0.001), 50)


def test_the_explorers_costs_are_asked_by_kind_too():
    settings = Settings(schedule="gpipe", microbatches=12, fixed="batch", batch=50, recompute=True, overhead=0.2)
    both(settings.build(), settings.costs(), 50)


def test_a_model_that_prices_by_kind_is_asked_once_a_kind():
    asked = []

    class Counted(Costs):
        def cost_of(self, schedule, actions):
            asked.append(actions)
            return super().cost_of(schedule, actions)

    simulate(build_schedule("1f1b", 4, 500), Counted())
    assert len(asked) == 8, "a forward and a backward of each stage"
    simulate(build_schedule("1f1b", 4, 500), Counted(), batch=501)
    assert len(asked) == 8 + 16, "one micro-batch is larger"


def test_sizes_that_are_given_for_another_number_of_stages_are_refused_before_anything_is_looked_at():
    with pytest.raises(ConfigurationError, match="message_bytes is given for 3 stages"):
        simulate(build_schedule("1f1b", 4, 4), Costs(message_bytes=[1.0] * 3))
    with pytest.raises(ConfigurationError, match="activation_bytes is given for 3 stages"):
        simulate(build_schedule("1f1b", 4, 4), Costs(activation_bytes=[1.0] * 3))


def test_costs_that_know_no_bytes_keep_none():
    assert Prices(build_schedule("1f1b", 2, 2), Costs()).bytes_kept() is None


def test_a_model_of_costs_that_says_more_of_a_slot_is_asked_of_each():
    """It inherits what Costs says of kinds, and what it says itself was not heard."""

    class Slow(Costs):
        def slot_cost(self, schedule, device, position):
            return super().slot_cost(schedule, device, position) * (10 if (device, position) == (1, 0) else 1)

    class Grows(Costs):
        def message_size(self, schedule, producer, kind):
            return float(producer.microbatch)

    schedule = build_schedule("1f1b", 2, 4)
    assert simulate(schedule, Slow()).makespan == 19
    assert simulate(schedule, Grows(bandwidth=1.0)).message_bytes == 12


def test_a_table_of_nothing_has_figures_of_zero():
    empty = Schedule("e", ((), ()), (), ())
    assert simulate(empty, check=False).figures()["makespan"] == 0


def test_an_empty_slot_is_refused_where_it_stands():
    action = Action.parse
    schedule = Schedule("z", (((), action("0F0"), action("0B0")),), ((0,),), (1.0,))
    with pytest.raises(ConfigurationError, match="device 0, position 0: the slot is empty"):
        simulate(schedule)
