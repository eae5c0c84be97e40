"""A pre-norm causal transformer language model over bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, whole_number
from pipelab.models.cut import Sections, Stage, cut_layers
from pipelab.models.dropout import KeyedDropout

__all__ = ["TransformerLM", "next_byte_loss", "transformer_stage"]

BYTES = 256


class Embedding(nn.Module):
    """Bytes and their positions -> vectors: (batch, tokens) int64 -> (batch, tokens, width)."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.byte = nn.Embedding(BYTES, width)
        self.position = nn.Parameter(torch.randn(tokens, width) * 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Look up each byte and add its position."""
        return self.byte(tokens) + self.position[: tokens.shape[1]]


class Block(nn.Module):
    """One transformer layer: x + attention(norm(x)), then x + mlp(norm(x)).

    Rows of ``qkv`` are in the order of heads, as in Megatron-LM: q, k and v of head 0, then those of head 1. So whoever
    cuts its rows evenly gives each part whole heads, and ``forward`` runs as many heads as there are.
    """

    def __init__(self, width: int, heads: int, dropout: float, index: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.drop1 = KeyedDropout(dropout, 2 * index)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.drop2 = KeyedDropout(dropout, 2 * index + 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same shape."""
        heads = self.qkv(self.norm1(x)).unflatten(2, (-1, 3, x.shape[2] // self.heads))
        q, k, v = heads.permute(3, 0, 2, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop1(self.out(mixed.transpose(1, 2).flatten(2)))
        return x + self.drop2(self.down(nn.functional.gelu(self.up(self.norm2(x)))))


class Head(nn.Module):
    """Vectors -> scores of the next byte: (batch, tokens, width) -> (batch, tokens, 256)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, BYTES)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and score."""
        return self.score(self.norm(x))


class TransformerLM(nn.Module):
    """``layers`` transformer layers between an embedding and a head; by default the course's 48 narrow ones."""

    def __init__(
        self, layers: int = 48, width: int = 64, heads: int = 4, tokens: int = 32, dropout: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__()
        make = _Maker(layers, width, heads, tokens, dropout, seed)
        self.embed = make.embed()
        self.layers = nn.ModuleList(map(make.layer, range(layers)))
        self.head = make.head()

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64 -> scores (batch, tokens, 256)."""
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)

    def pipeline_sections(self) -> Sections:
        """The embedding goes with the first stage, the head with the last; the layers are cut evenly."""
        return Sections(("embed",), tuple(f"layers.{i}" for i in range(len(self.layers))), ("head",))


def transformer_stage(
    s: int,
    stages: int,
    layers: int = 48,
    width: int = 64,
    heads: int = 4,
    tokens: int = 32,
    dropout: float = 0.0,
    seed: int = 0,
) -> Stage:
    """Stage ``s`` of ``TransformerLM(layers, ...)`` cut evenly into ``stages``, without the others being built.

    Names and weights are those of the unsplit model: each part draws its weights by itself. For a Pipeline:
    ``build_stage=lambda s: transformer_stage(s, 4)`` in place of the model.
    """
    make = _Maker(layers, width, heads, tokens, dropout, seed)
    chunk = cut_layers(layers, stages)[s]
    parts: list[tuple[str, nn.Module]] = [("embed", make.embed())] if s == 0 else []
    parts += [(f"layers.{index}", make.layer(index)) for index in chunk]
    return Stage([*parts, ("head", make.head())] if s == stages - 1 else parts)


class _Maker:
    """Makes the parts of a model of one size. Each part's weights depend on the seed and on which part it is."""

    def __init__(self, layers: int, width: int, heads: int, tokens: int, dropout: float, seed: int) -> None:
        for name, value in (("layers", layers), ("width", width), ("heads", heads), ("tokens", tokens)):
            whole_number(name, "", value)
        if width % heads:
            raise ConfigurationError(f"width must be divisible by heads: {width} and {heads}; try width {heads * 16}")
        self.width, self.heads, self.tokens, self.dropout, self.seed = width, heads, tokens, dropout, seed

    def embed(self) -> Embedding:
        """What the first stage begins with."""
        with self._drawing(0):
            return Embedding(self.width, self.tokens)

    def head(self) -> Head:
        """What the last stage ends with."""
        with self._drawing(1):
            return Head(self.width)

    def layer(self, index: int) -> Block:
        """Layer ``index``."""
        with self._drawing(index + 2):
            return Block(self.width, self.heads, self.dropout, index)

    @contextmanager
    def _drawing(self, part: int) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.seed * 1_000_003 + part) % 2**63)
            yield


def next_byte_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the next byte: scores (batch, tokens, 256), targets (batch, tokens)."""
    return nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())
