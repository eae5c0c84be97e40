"""Inference: a text becomes numbers, passes the two parts of a language model, and its scores become text again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipelab.models import TransformerLM, training_text

__all__ = ["Served", "requests"]


def requests(count: int, length: int = 32) -> list[str]:
    """Texts to be continued: pieces of the course's text, each ``length`` bytes long and a line apart."""
    lines = [line.strip() for line in training_text().decode("ascii", "ignore").splitlines()]
    long = [line[:length] for line in lines if len(line) >= length]
    return [long[k % len(long)] for k in range(count)]


class Served:
    """A language model as four stages: tokenise, encode, infer, decode.

    ``encode`` has the embedding and the first ``cut`` layers, ``infer`` has the other layers and the head.
    """

    def __init__(self, model: TransformerLM, cut: int) -> None:
        self.model = model.eval()
        self.first = nn.Sequential(model.embed, *model.layers[:cut])
        self.second = nn.Sequential(*model.layers[cut:], model.head)

    def tokenise(self, texts: Sequence[str]) -> Tensor:
        """Texts of equal length as bytes: (texts, tokens), int64."""
        return torch.tensor([list(text.encode()) for text in texts])

    @torch.no_grad()
    def encode(self, tokens: Tensor) -> Tensor:
        """The first part of the model: (texts, tokens) -> (texts, tokens, width)."""
        return self.first(tokens)

    @torch.no_grad()
    def infer(self, vectors: Tensor) -> Tensor:
        """The second part: scores of the byte after the last one, (texts, 256)."""
        return self.second(vectors)[:, -1]

    def decode(self, scores: Tensor, best: int = 3) -> list[list[str]]:
        """The ``best`` likeliest next characters of each text."""
        return [[chr(byte) for byte in row] for row in scores.topk(best).indices.tolist()]
