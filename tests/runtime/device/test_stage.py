"""A message is copied once, on its way: in-place layers are found, and what is kept or reused spoils no other stage."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from pipelab import Pipeline, Schedule, StageError, build_schedule


class Layer(nn.Module):
    """Squares its input, on the way in place where it is told to; notes where its inputs lie."""

    def __init__(self, in_place=False):
        super().__init__()
        self.lin, self.in_place, self.seen = nn.Linear(5, 5), in_place, []

    def forward(self, x):
        self.seen.append(x.data_ptr())
        x = x.mul_(2) if self.in_place else x * 2
        return self.lin(x.tanh())


class Notes(nn.Module):
    """Notes where its output lies."""

    def __init__(self):
        super().__init__()
        self.lin, self.given = nn.Linear(5, 5), []

    def forward(self, x):
        out = self.lin(x)
        self.given.append(out.data_ptr())
        return out


def data():
    torch.manual_seed(1)
    return torch.randn(8, 5, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)


def pipeline(*layers, recompute=False, m=4, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(*layers).double()
    schedule = build_schedule("1f1b", len(layers), m, recompute=recompute)
    return Pipeline(model, schedule, loss=nn.MSELoss(), device="cpu", **settings)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_a_stage_that_works_in_place_gets_copies(launch, recompute):
    with pipeline(Notes(), Layer(in_place=True), Layer(in_place=True), launch=launch, recompute=recompute) as made:
        for _ in range(2):
            made.step(*data())
            assert made.verify(*data()) < 1e-13
        made.evaluate(*data())


@pytest.mark.parametrize("recompute", [False, True])
def test_a_stage_that_begins_to_work_in_place_is_found_and_then_gets_copies(recompute):
    """Never a wrong gradient: the step in which it begins is refused, the next is right."""
    later = Layer()
    with pipeline(Notes(), later, recompute=recompute) as made:
        made.step(*data())
        later.in_place = True
        with pytest.raises(StageError, match="stage 1 has changed its input in place, which it did not do before"):
            made.step(*data())
        made.step(*data())
        assert made.verify(*data()) < 1e-13


def test_in_place_dropout_that_is_switched_on_needs_no_second_try():
    """What a module does in one mode says nothing of the other."""
    model = [Notes(), nn.Sequential(nn.Dropout(0.5, inplace=True), nn.Linear(5, 5))]
    with pipeline(*model) as made:
        model[1].eval()
        made.step(*data())
        model[1].train()
        made.step(*data())


def test_a_view_of_an_integer_input_that_is_written_into_is_found():
    class Masks(nn.Module):
        def forward(self, x):
            return x, (x > 0).long()

    class Uses(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin, self.spoils = nn.Linear(5, 5), False

        def forward(self, x, mask):
            if self.spoils:
                mask[:1].zero_()
            return self.lin(x * mask)

    uses = Uses()
    with pipeline(nn.Sequential(nn.Linear(5, 5), Masks()), uses) as made:
        made.step(*data())
        uses.spoils = True
        with pytest.raises(StageError, match="stage 1 has changed its input in place"):
            made.step(*data())
        made.step(*data())


def test_one_that_works_in_place_now_and_then_is_refused_once():
    """The next micro-batch, which it left alone, made it trusted again, and each step was refused."""

    class Clamps(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(5, 5)

        def forward(self, x):
            return self.lin(x.clamp_(max=10) if bool((x > 10).any()) else x)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), Clamps()).double()
    x, y = data()
    x[5] = 1e6
    with Pipeline(model, build_schedule("1f1b", 2, 4), loss=nn.MSELoss(), device="cpu") as made:
        with pytest.raises(StageError, match="stage 1 has changed its input in place"):
            made.step(x, y)
        for _ in range(2):
            made.step(x, y)
            assert made.verify(x, y) < 1e-13


class Reuses(nn.Module):
    """Writes all its outputs into the same memory, as a captured graph does."""

    def __init__(self):
        super().__init__()
        self.room = torch.zeros(2, 5, dtype=torch.float64)

    def forward(self, x):
        return self.room.copy_(x)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("clock", ["device", "wall"])
def test_a_stage_may_overwrite_what_it_has_given(clock, recompute):
    """Messages once lay in their sender's memory: the next micro-batch came out in all of them."""
    model = nn.Sequential(Reuses(), nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5))).double()
    schedule = build_schedule("gpipe", 2, 4, recompute=recompute)
    x, y = data()
    with Pipeline(model, schedule, loss=nn.MSELoss(), device="cpu", clock=clock) as made:
        for _ in range(2):
            made.step(x, y)
            expected = nn.Sequential(*model[1])
            found = [p.grad.clone() for p in expected.parameters()]
            expected.zero_grad()
            nn.functional.mse_loss(expected(x), y).backward()
            for grad, p in zip(found, expected.parameters(), strict=True):
                torch.testing.assert_close(grad, p.grad)


class Position(nn.Module):
    """Its parameter's gradient is a view of its input's."""

    def __init__(self, ahead=False):
        super().__init__()
        self.pos, self.lin, self.ahead = nn.Parameter(torch.randn(3, 5)), nn.Linear(5, 5), ahead

    def forward(self, x):
        shift = self.pos.unsqueeze(0)
        return torch.tanh(self.lin(x + shift)) if self.ahead else torch.tanh(self.lin(x)) + shift


@pytest.mark.parametrize("clock", ["device", "wall"])
@pytest.mark.parametrize("ahead", [[False, True], [True, False], [True, True]])
def test_a_gradient_on_its_way_is_no_parameters_gradient(ahead, clock):
    """Autograd took the sent gradient, a view, for the parameter's own, and added the next micro-batch's into it."""
    tables = [
        Schedule.from_csv("0F0,0F1,0I0,0I1,0W0,0W1\n1F0,1I0,1W0,1F1,1I1,1W1\n"),
        Schedule.from_csv("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"),
        Schedule.from_csv("0F0,0F1,0B0,0B1\n1F0,1F1,(1I0;1W0),(1I1;1W1)\n"),
        build_schedule("gpipe", 2, 2),
    ]
    torch.manual_seed(0)
    model = nn.Sequential(*map(Position, ahead)).double()
    x, y = (torch.randn(2, 3, 5, dtype=torch.float64) for _ in range(2))
    for table in tables:
        with Pipeline(model, table, loss=nn.MSELoss(), device="cpu", clock=clock) as made:
            for _ in range(2):
                made.step(x, y)
                assert made.verify(x, y) < 1e-13


def test_a_message_that_is_a_view_is_not_counted_as_what_it_is_a_view_of():
    """The last token of many: the receiver held, and counted, all of them."""

    class LastToken(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(8, 8)

        def forward(self, x):
            return self.lin(x)[:, -1]

    model = nn.Sequential(LastToken(), nn.Linear(8, 3))
    with Pipeline(model, build_schedule("1f1b", 2, 2), loss=nn.MSELoss(), device="cpu") as made:
        for _ in range(2):
            report = made.step(torch.randn(8, 500, 8), torch.randn(8, 3))
    assert report.peak_activation_bytes[1] < 8 * 500 * 8 * 4 / 10


def test_a_frozen_stage_may_run_in_inference_mode():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(5, 5)

        @torch.inference_mode()
        def forward(self, x):
            return self.lin(x)

    with pipeline(Frozen(), nn.Linear(5, 5)) as made:
        for _ in range(2):
            made.step(*data())
            made.evaluate(*data())


def test_a_stage_that_uses_a_parameter_of_another_is_refused_each_time():
    """The first refusal was taken for a look, and the second step trained without it."""

    class Borrows(nn.Module):
        def __init__(self, other):
            super().__init__()
            self.lin, self.others = nn.Linear(5, 5), [other]

        def forward(self, x):
            return self.lin(x) * self.others[0]

    with pipeline(nn.Linear(5, 5), Borrows(nn.Parameter(torch.ones(5, dtype=torch.float64)))) as made:
        for _ in range(2):
            with pytest.raises(StageError, match="not among its own"):
                made.step(*data())


def test_between_steps_nothing_is_held():
    """Stages outlive a step: they kept its batch, its losses, and an evaluation's outputs."""
    x, y = data()
    batch = x.clone(), y.clone()
    with pipeline(nn.Linear(5, 5), nn.Linear(5, 5)) as made:
        made.step(*batch)
        found = made.evaluate(*batch).outputs
        held = [weakref.ref(tensor) for tensor in (*batch, found)]
        del batch, found
        gc.collect()
        assert [ref() for ref in held] == [None] * 3


def test_what_the_graph_does_not_need_of_a_large_input_is_let_go():
    """A stage that begins with a ReLU keeps its output; the message that it came in is gone after the forward."""
    kept = []

    class Relu(nn.Module):
        def forward(self, x):
            found = [t for t in gc.get_objects() if type(t) is Tensor and t.requires_grad and t.is_leaf]
            inputs = [t for t in found if t.shape == x.shape]
            kept.append(sum(t.untyped_storage().nbytes() > 0 for t in inputs))
            return torch.relu(x)

    x = torch.randn(4 * 8192, 5, dtype=torch.float64)
    layers = nn.Linear(5, 5), nn.Sequential(Relu(), nn.Linear(5, 5))
    with Pipeline(nn.Sequential(*layers).double(), build_schedule("gpipe", 2, 4), loss=nn.MSELoss()) as made:
        for _ in range(2):
            kept.clear()
            made.step(x, x)
            assert kept[-4:] == [1, 1, 1, 1], "its own, and none of the micro-batches before"
