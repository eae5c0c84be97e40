"""Split learning and federated averaging: two ways for hospitals to train one network, and what leaves them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from pipelab.teaching.flows.pictures import SIDE, digits

__all__ = ["Federated", "Message", "Split", "accuracy", "batch_of", "hospital_data", "network", "recover"]

Turn = tuple[int, int]
"""(round, hospital)."""


def network(seed: int = 0) -> nn.Sequential:
    """Five blocks that recognise a digit. A cut lies between two of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
            nn.Sequential(nn.Flatten(), nn.Linear(32 * (SIDE // 4) ** 2, 64), nn.ReLU()),
            nn.Sequential(nn.Linear(64, 10)),
        )


def hospital_data(hospitals: int, pictures: int, own: float, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Pictures and labels of each hospital. A part ``own`` has digits that are its specialty, the rest any digit."""
    generator, found = torch.Generator().manual_seed(seed), []
    for k in range(hospitals):
        specialty = torch.arange(10).tensor_split(hospitals)[k]
        some = specialty[torch.randint(len(specialty), (round(own * pictures),), generator=generator)]
        rest = torch.randint(10, (pictures - len(some),), generator=generator)
        labels = torch.cat([some, rest])[torch.randperm(pictures, generator=generator)]
        found.append((digits(labels, seed=1000 * seed + k + 1), labels))
    return found


@torch.no_grad()
def accuracy(net: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    """The part of the pictures whose digit is recognised."""
    return float((net(pictures).argmax(1) == labels).float().mean())


@dataclass(frozen=True)
class Message:
    """What leaves a hospital, or the server: whose turn it is, tensors, and bytes that travel with them."""

    turn: Turn
    tensors: tuple[Tensor, ...]
    beside: int = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self.beside + sum(tensor.nbytes for tensor in self.tensors)

    def copied(self) -> Message:
        """The same on the other side of a link."""
        return Message(self.turn, tuple(tensor.clone() for tensor in self.tensors), self.beside)


class Split:
    """The first ``depth`` blocks live in the hospitals, the others on a server that gets the labels too.

    In each round every hospital has one turn, with a batch of its own. All gradients of a round are added up, and one
    step follows: the step of the whole network on all these pictures. The hospitals' first blocks stay equal, because
    they also add up their gradients over the link. So one copy here stands for all of them.
    """

    def __init__(
        self, data: Sequence[tuple[Tensor, Tensor]], depth: int, batch: int = 32, rate: float = 3e-3, seed: int = 0
    ) -> None:
        self.net, self.data, self.batch, self.depth = network(seed), data, batch, depth
        self.front, self.back = self.net[:depth], self.net[depth:]
        self._steps = [torch.optim.Adam(part.parameters(), rate) for part in (self.front, self.back)]
        self._beside = sum(weight.nbytes for weight in self.front.parameters())
        self._graphs: dict[Turn, Tensor] = {}

    def turns(self, epochs: int) -> list[Turn]:
        """Every hospital's pictures, so many times."""
        rounds = epochs * len(self.data[0][0]) // self.batch
        return [(number, hospital) for number in range(rounds) for hospital in range(len(self.data))]

    def encode(self, turn: Turn) -> Message:
        """A hospital: its batch through the first blocks."""
        pictures, labels = batch_of(self.data[turn[1]], turn[0], self.batch)
        self._graphs[turn] = self.front(pictures)
        return Message(turn, (self._graphs[turn].detach(), labels), self._beside)

    def serve(self, message: Message) -> Message:
        """The server: forward and backward through the other blocks, and the gradient of what came in."""
        given, labels = message.tensors
        given.requires_grad_()
        (cross_entropy(self.back(given), labels) / len(self.data)).backward()
        self._end_of_round(message.turn, self._steps[1])
        assert given.grad is not None
        return Message(message.turn, (given.grad,), self._beside)

    def learn(self, message: Message) -> None:
        """The hospital again: backward through the first blocks."""
        self._graphs.pop(message.turn).backward(message.tensors[0])
        self._end_of_round(message.turn, self._steps[0])

    def _end_of_round(self, turn: Turn, optimizer: torch.optim.Optimizer) -> None:
        if turn[1] == len(self.data) - 1:
            optimizer.step()
            optimizer.zero_grad()


def batch_of(data: tuple[Tensor, Tensor], number: int, size: int) -> tuple[Tensor, Tensor]:
    """Batch ``number`` of a hospital, in the order of its pictures and then from the first one again."""
    pictures, labels = data
    begin = number * size % (len(labels) - size + 1)
    return pictures[begin : begin + size], labels[begin : begin + size]


class Federated:
    """Each hospital trains the whole network on its own pictures, and a server averages the weights of all."""

    def __init__(
        self, data: Sequence[tuple[Tensor, Tensor]], batch: int = 32, rate: float = 3e-3, seed: int = 0
    ) -> None:
        self.net, self.data, self.batch, self.rate = network(seed), data, batch, rate

    def train(self, turn: Turn, start: Message | None = None) -> Message:
        """A hospital: one pass over its own pictures, from the weights that the server sent."""
        net = copy.deepcopy(self.net) if start is None else _filled(self.net, start.tensors)
        optimizer = torch.optim.Adam(net.parameters(), self.rate)
        for number in range(len(self.data[turn[1]][1]) // self.batch):
            pictures, labels = batch_of(self.data[turn[1]], number, self.batch)
            optimizer.zero_grad()
            cross_entropy(net(pictures), labels).backward()
            optimizer.step()
        return Message(turn, tuple(weight.detach() for weight in net.parameters()))

    def average(self, messages: Sequence[Message]) -> list[Message]:
        """The server: the mean of the hospitals' weights, for each of them."""
        means = tuple(
            torch.stack(parts).mean(0) for parts in zip(*(message.tensors for message in messages), strict=True)
        )
        return [Message(message.turn, means) for message in messages]

    def result(self, message: Message) -> nn.Module:
        """The network with the weights of a message."""
        return _filled(self.net, message.tensors)


def _filled(net: nn.Module, weights: Sequence[Tensor]) -> nn.Module:
    made = copy.deepcopy(net)
    with torch.no_grad():
        for parameter, weight in zip(made.parameters(), weights, strict=True):
            parameter.copy_(weight)
    return made


def recover(
    front: Callable[[Tensor], Tensor], own: Tensor, others: Tensor, steps: int = 300, seed: int = 0
) -> tuple[float, Tensor]:
    """What somebody with ``own`` pictures and the same first blocks makes of what leaves another hospital.

    A small decoder learns on ``front(own)`` to give back the pictures. Returned are its pictures for ``front(others)``
    and the part of these pictures' variance that it explains: 0 for the mean picture, 1 for a perfect copy.
    """
    with torch.no_grad():
        seen, taken = front(own).flatten(1), front(others).flatten(1)
    middle, scale = seen.mean(0), (seen.std(0) + 0.1 * seen.std()).clamp_min(1e-6)
    seen, taken = (seen - middle) / scale, (taken - middle) / scale
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = nn.Sequential(nn.Linear(seen.shape[1], 128), nn.ReLU(), nn.Linear(128, SIDE * SIDE))
        optimizer = torch.optim.Adam(decoder.parameters(), 2e-3)
        for _ in range(steps):
            some = torch.randint(len(own), (64,))
            optimizer.zero_grad()
            mse_loss(decoder(seen[some]), own[some].flatten(1)).backward()
            optimizer.step()
        with torch.no_grad():
            made = decoder(taken)
    truth = others.flatten(1)
    left = mse_loss(made, truth) / mse_loss(own.flatten(1).mean(0).expand_as(truth), truth)
    return 1 - float(left), made.view_as(others)
