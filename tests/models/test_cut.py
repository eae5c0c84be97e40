from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError
from pipelab.models import TransformerLM, cut_layers, cut_model
from pipelab.models.cut import Sections, call_layer, even_cuts, sections_of


def test_48_layers_in_4_stages():
    assert [(r.start, r.stop - 1) for r in cut_layers(48, 4)] == [(0, 11), (12, 23), (24, 35), (36, 47)]


@pytest.mark.parametrize("layers", range(1, 20))
def test_even_cuts_hold_every_layer_once_and_differ_by_at_most_one(layers):
    for stages in range(1, layers + 1):
        chunks = cut_layers(layers, stages)
        assert [k for chunk in chunks for k in chunk] == list(range(layers))
        assert max(map(len, chunks)) - min(map(len, chunks)) <= 1


def test_cuts_may_be_given():
    assert [list(r) for r in cut_layers(5, 3, [1, 4])] == [[0], [1, 2, 3], [4]]


def test_layers_of_unequal_weight_are_cut_so_that_stages_weigh_alike():
    assert even_cuts([8, 1, 1, 1, 1, 4], 3) == [1, 5]
    assert even_cuts([1, 1, 1, 9], 2) == [3]
    for layers in range(1, 9):
        for stages in range(1, layers + 1):
            assert even_cuts([2.0] * layers, stages) == [r.start for r in cut_layers(layers, stages)][1:]


@pytest.mark.parametrize(
    ("layers", "stages", "cuts", "message"),
    [
        (3, 4, None, "4 stages need at least 4 layers, the model has 3"),
        (8, 4, [2, 4], r"4 stages need 3 cuts, got 2: \[2, 4\]; try \[2, 4, 6\]"),
        (8, 3, [4, 4], r"cuts must rise .* got \[4, 4\]; try \[3, 6\]"),
        (8, 3, [0, 4], "cuts must rise"),
        (8, 3, [4, 8], "cuts must rise"),
    ],
)
def test_cuts_that_leave_a_stage_empty_are_refused(layers, stages, cuts, message):
    with pytest.raises(ConfigurationError, match=message):
        cut_layers(layers, stages, cuts)


def test_the_embedding_goes_with_the_first_stage_and_the_head_with_the_last():
    stages = cut_model(TransformerLM(layers=6, width=8, heads=2), 3)
    assert [stage.names for stage in stages] == [
        ("embed", "layers.0", "layers.1"),
        ("layers.2", "layers.3"),
        ("layers.4", "layers.5", "head"),
    ]


def test_stages_in_a_row_are_the_model_and_share_its_parameters():
    model = TransformerLM(layers=6, width=8, heads=2).double()
    tokens = torch.randint(256, (2, 32))
    stages = cut_model(model, 4)
    x = tokens
    for stage in stages:
        x = stage(x)
    torch.testing.assert_close(x, model(tokens), rtol=0, atol=0)
    named = {name: p for stage in stages for name, p in stage.named_unsplit_parameters()}
    assert named.keys() == dict(model.named_parameters()).keys()
    assert all(named[name] is p for name, p in model.named_parameters())
    state = {name: t for stage in stages for name, t in stage.unsplit_state()}
    assert state.keys() == model.state_dict().keys()


def test_a_sequential_is_cut_at_its_children():
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))
    assert sections_of(model) == Sections((), ("0", "1", "2"), ())


def test_a_model_whose_layers_cannot_be_seen_says_what_to_do():
    with pytest.raises(ConfigurationError, match=r"nn.Sequential.*pipeline_sections\(\).*build_stage"):
        cut_model(nn.Bilinear(1, 1, 1), 1)


def test_a_name_that_is_no_submodule_is_refused():
    class Odd(nn.Module):
        def pipeline_sections(self):
            return (), ("nothing",), ()

    with pytest.raises(ConfigurationError, match="names 'nothing'"):
        cut_model(Odd(), 1)


def test_a_layer_of_several_arguments_gets_a_tuple_unpacked_and_others_get_the_tuple():
    class Two(nn.Module):
        def forward(self, a, b, scale=1.0):
            return a + b

    class One(nn.Module):
        def forward(self, pair, scale=1.0):
            return pair[0] - pair[1]

    pair = (torch.tensor(3.0), torch.tensor(1.0))
    assert call_layer(Two(), pair) == 4
    assert call_layer(One(), pair) == 2


def test_a_module_that_is_neither_sequential_nor_sectioned_is_told_of_split_model():
    with pytest.raises(ConfigurationError, match=r"pass split_model\(model, example_inputs, schedule.stages\), "):
        sections_of(nn.Bilinear(2, 2, 2))
