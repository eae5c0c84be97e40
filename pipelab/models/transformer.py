"""A pre-norm causal transformer language model over bytes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, whole_number
from pipelab.models.cut import Sections
from pipelab.models.dropout import KeyedDropout

__all__ = ["TransformerLM", "next_byte_loss"]

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
    """One transformer layer: x + attention(norm(x)), then x + mlp(norm(x))."""

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
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop1(self.out(mixed.transpose(1, 2).reshape(batch, tokens, width)))
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
        for name, value in (("layers", layers), ("width", width), ("heads", heads), ("tokens", tokens)):
            whole_number(name, "", value)
        if width % heads:
            raise ConfigurationError(f"width must be divisible by heads: {width} and {heads}; try width {heads * 16}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            self.embed = Embedding(width, tokens)
            self.layers = nn.ModuleList(Block(width, heads, dropout, index) for index in range(layers))
            self.head = Head(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) int64 -> scores (batch, tokens, 256)."""
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)

    def pipeline_sections(self) -> Sections:
        """The embedding goes with the first stage, the head with the last; the layers are cut evenly."""
        return Sections(("embed",), tuple(f"layers.{i}" for i in range(len(self.layers))), ("head",))


def next_byte_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the next byte: scores (batch, tokens, 256), targets (batch, tokens)."""
    return nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())
