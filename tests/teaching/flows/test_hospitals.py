"""Split learning takes the steps of the whole network, federated averaging means weights; and what a decoder gets."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from pipelab.teaching.flows.hospitals import Federated, Split, accuracy, batch_of, hospital_data, network, recover
from pipelab.teaching.flows.pictures import SIDE


def halves(data):
    return [(pictures.double(), labels) for pictures, labels in data]


def trained(split, epochs=1):
    for turn in split.turns(epochs):
        split.learn(split.serve(split.encode(turn).copied()).copied())
    return split


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_split_training_takes_the_steps_of_the_whole_network_on_all_pictures(depth):
    data = halves(hospital_data(3, 16, own=0.8))
    split = Split(data, depth, batch=8)
    split.net.double()
    trained(split)
    whole = network().double()
    optimizer = torch.optim.Adam(whole.parameters(), 3e-3)
    for number in range(2):
        batches = [batch_of(one, number, 8) for one in data]
        optimizer.zero_grad()
        cross_entropy(whole(torch.cat([p for p, _ in batches])), torch.cat([y for _, y in batches])).backward()
        optimizer.step()
    for mine, theirs in zip(split.net.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-7, atol=1e-9)


def test_a_message_has_the_bytes_of_what_it_carries():
    split = Split(hospital_data(2, 8, own=0.5), depth=1, batch=4)
    message = split.encode((0, 1))
    first_block = sum(weight.numel() for weight in split.front.parameters())
    assert message.size == 4 * 8 * SIDE * SIDE * 4 + 4 * 8 + 4 * first_block


def test_federated_averaging_of_equal_hospitals_is_training_of_one():
    (data,) = hospital_data(1, 32, own=0.0)
    both, alone = Federated([data, data]), Federated([data])
    means = both.average([both.train((0, k)) for k in range(2)])
    for mine, theirs in zip(means[1].tensors, alone.train((0, 0)).tensors, strict=True):
        assert torch.allclose(mine, theirs)
    again = both.train((1, 0), means[0])
    assert any(not torch.equal(a, b) for a, b in zip(again.tensors, means[0].tensors, strict=True))
    assert torch.equal(next(both.result(again).parameters()), again.tensors[0])


def test_each_hospital_has_more_of_its_specialty():
    for k, (pictures, labels) in enumerate(hospital_data(5, 200, own=0.8)):
        assert pictures.shape == (200, 1, SIDE, SIDE)
        assert ((labels // 2) == k).float().mean() > 0.75


def test_a_trained_network_reads_digits_and_a_fresh_one_does_not():
    data = hospital_data(2, 256, own=0.0)
    others = hospital_data(1, 200, own=0.0, seed=5)[0]
    assert accuracy(network(), *others) < 0.4
    assert accuracy(trained(Split(data, 2), epochs=4).net, *others) > 0.6


def test_a_decoder_undoes_scrambling_and_gets_nothing_from_nothing():
    (own, _), (others, _) = hospital_data(2, 300, own=0.0)
    order = torch.randperm(SIDE * SIDE)
    share, made = recover(lambda x: x.flatten(1)[:, order], own, others, steps=150)
    assert share > 0.5
    assert made.shape == others.shape
    nothing, _ = recover(lambda x: torch.zeros(len(x), 4), own, others, steps=50)
    assert nothing < 0.05
