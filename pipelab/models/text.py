"""Real text that every CPython carries offline: the language reference behind ``help()`` (``pydoc_data.topics``)."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from pipelab.errors import ConfigurationError

__all__ = ["text_batch", "training_text"]


@cache
def training_text() -> bytes:
    """All topics of the language reference, in alphabetical order, as UTF-8 bytes (about half a megabyte)."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics)).encode()


@cache
def _corpus() -> Tensor:
    return torch.frombuffer(bytearray(training_text()), dtype=torch.uint8)


def text_batch(step: int = 0, batch: int = 64, tokens: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Batch number ``step``: int64 tensors (inputs, targets), each (batch, tokens), targets one byte further on.

    The same arguments give the same batch, whatever was drawn before.
    """
    corpus = _corpus()
    if not 0 < tokens < len(corpus):
        raise ConfigurationError(f"a sequence has 1 to {len(corpus) - 1} tokens of this text, got {tokens}; try 32")
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    starts = torch.randint(len(corpus) - tokens, (batch,), generator=generator)
    window = starts[:, None] + torch.arange(tokens + 1)
    picked = corpus[window].long()
    return picked[:, :-1].contiguous(), picked[:, 1:].contiguous()
