"""What a planner has to know of a transformer: parameters, operations, and bytes that its layers keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from pipelab.errors import ConfigurationError, whole_number

__all__ = ["ModelFacts"]


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A decoder of equal transformer layers between an embedding and a head.

    ``tokens`` are those of one sequence. ``kv_heads`` and ``ffn_width`` are by default ``heads`` and 4 * ``width``.
    ``gated``: the feed-forward part has three matrices instead of two (SwiGLU). ``bias``: products and norms have one.
    ``positions``: positions are learned. ``tied``: embedding and head share their weights. ``dropout``: masks are kept.
    ``fused_attention``: the kernel keeps no scores (FlashAttention, arXiv 2205.14135).

    A parameter has ``value_bytes`` as a weight, ``gradient_bytes``, and ``optimizer_bytes``. The defaults are mixed
    precision with Adam: 2 for the weight, 4 for a gradient that is summed in float32, and 12 for Adam's two moments and
    the float32 weight. ``activation_bytes``: what a layer keeps for a token, if that was measured; otherwise a formula
    counts it. Raises ConfigurationError for sizes that make no model.
    """

    layers: int
    width: int
    heads: int
    tokens: int
    vocabulary: int
    kv_heads: int | None = None
    ffn_width: int | None = None
    gated: bool = False
    bias: bool = True
    positions: bool = True
    tied: bool = True
    dropout: bool = True
    fused_attention: bool = False
    value_bytes: float = 2
    gradient_bytes: float = 4
    optimizer_bytes: float = 12
    activation_bytes: float | None = None

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "tokens", "vocabulary"):
            whole_number(name, "", getattr(self, name))
        for name in ("kv_heads", "ffn_width"):
            if getattr(self, name) is not None:
                whole_number(name, "", getattr(self, name))
        for name, above in (("width", self.heads), ("heads", self.groups)):
            given = getattr(self, name)
            if given % above:
                part = "heads" if name == "width" else "kv_heads"
                nearest = max(1, round(given / above)) * above
                raise ConfigurationError(
                    f"{name} must be divisible by {part}: {given} and {above}; try {name} = {nearest}"
                )
        for name in ("value_bytes", "gradient_bytes", "optimizer_bytes", "activation_bytes"):
            given, positive = getattr(self, name), name == "value_bytes"
            if given is None and name == "activation_bytes":
                continue
            number = isinstance(given, int | float) and not isinstance(given, bool)
            if not number or not 0 <= given < math.inf or (positive and not given):
                what = "a positive number" if positive else "a number"
                raise ConfigurationError(f"{name} must be {what} of bytes, got {given!r}; try 2 or 4")

    @classmethod
    def gpt(
        cls, layers: int, width: int, heads: int, tokens: int = 2048, vocabulary: int = 51200, **more: object
    ) -> ModelFacts:
        """A GPT as in arXiv 2104.04473: biases, learned positions, tied embeddings, dropout, unfused attention."""
        return cls(layers=layers, width=width, heads=heads, tokens=tokens, vocabulary=vocabulary, **more)  # type: ignore[arg-type]

    @classmethod
    def llama(
        cls,
        layers: int,
        width: int,
        heads: int,
        kv_heads: int,
        ffn_width: int,
        tokens: int = 8192,
        vocabulary: int = 128256,
        **more: object,
    ) -> ModelFacts:
        """A Llama 3 (arXiv 2407.21783): gated, without biases, rotary positions, untied, fused attention."""
        plain = {"gated": True, "bias": False, "positions": False, "tied": False, "dropout": False}
        given: dict = {**plain, "fused_attention": True, **more}
        return cls(
            layers=layers,
            width=width,
            heads=heads,
            kv_heads=kv_heads,
            ffn_width=ffn_width,
            tokens=tokens,
            vocabulary=vocabulary,
            **given,
        )

    @classmethod
    def course(
        cls, layers: int = 48, width: int = 64, heads: int = 4, tokens: int = 32, *, optimizer_bytes: float = 8
    ) -> ModelFacts:
        """``TransformerLM`` in float32, with Adam unless ``optimizer_bytes`` says otherwise."""
        return cls(
            layers=layers,
            width=width,
            heads=heads,
            tokens=tokens,
            vocabulary=256,
            tied=False,
            dropout=False,
            fused_attention=True,
            value_bytes=4,
            gradient_bytes=4,
            optimizer_bytes=optimizer_bytes,
        )

    # ---- parameters ----------------------------------------------------------------------------------------------

    @cached_property
    def groups(self) -> int:
        """Key and value heads."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @cached_property
    def feed_forward(self) -> int:
        """Width inside the feed-forward part."""
        return 4 * self.width if self.ffn_width is None else self.ffn_width

    @cached_property
    def kv_width(self) -> int:
        """Width of all keys, or all values, of a token."""
        return self.width * self.groups // self.heads

    @cached_property
    def layer_matrices(self) -> int:
        """Parameters of a layer that are multiplied with every token."""
        attention = 2 * self.width * (self.width + self.kv_width)
        return attention + (3 if self.gated else 2) * self.width * self.feed_forward

    @cached_property
    def layer_parameters(self) -> int:
        """All parameters of a layer."""
        biases = 2 * self.width + 2 * self.kv_width + (2 if self.gated else 1) * self.feed_forward + self.width
        return self.layer_matrices + 2 * self.norm_parameters + (biases if self.bias else 0)

    @cached_property
    def norm_parameters(self) -> int:
        """Of one norm."""
        return (2 if self.bias else 1) * self.width

    @cached_property
    def embedding_parameters(self) -> int:
        """Of the first stage, beside its layers."""
        return (self.vocabulary + (self.tokens if self.positions else 0)) * self.width

    @cached_property
    def head_parameters(self) -> int:
        """Of the last stage, beside its layers: a norm, and the scores of all words unless they are tied."""
        bias = self.vocabulary if self.bias else 0
        return self.norm_parameters + (0 if self.tied else self.vocabulary * self.width + bias)

    @cached_property
    def parameters(self) -> int:
        """Of the model."""
        return self.layers * self.layer_parameters + self.embedding_parameters + self.head_parameters

    # ---- operations, of one token in a forward -------------------------------------------------------------------

    @cached_property
    def score_operations(self) -> float:
        """Of a layer's attention scores and their mix: 4 s h, as in arXiv 2104.04473. A causal mask saves nothing."""
        return 4.0 * self.tokens * self.width

    @cached_property
    def layer_operations(self) -> float:
        """Of a layer: a multiplication and an addition for each parameter, and the scores."""
        return 2.0 * self.layer_matrices + self.score_operations

    @cached_property
    def head_operations(self) -> float:
        """Of the head."""
        return 2.0 * self.vocabulary * self.width

    @cached_property
    def step_operations(self) -> float:
        """Of one sequence forward and backward, without recomputation: three times its forward."""
        return 3 * self.tokens * (self.layers * self.layer_operations + self.head_operations)

    # ---- bytes that a layer keeps of one token, on one of tp devices ------------------------------------------------

    @cached_property
    def score_bytes(self) -> float:
        """Of attention scores: softmax, dropout's mask and result; one float32 a head where attention is fused."""
        if self.fused_attention:
            return 4.0 * self.heads
        c = self.value_bytes
        return (c + (1 + c if self.dropout else 0)) * self.heads * self.tokens

    def kept_bytes(self, tp: int, sequence_parallel: bool) -> float:
        """Everything from its forward to its backward: s b h (10 + 24 / t + 5 a s / (h t)) of arXiv 2205.05198, 4.2.

        With sequence parallelism the 10 is divided too. The same count holds here for other widths and bytes.
        """
        if self.activation_bytes is not None:
            return self.activation_bytes / tp
        c, h, f = self.value_bytes, self.width, self.feed_forward
        shared = 4 * c * h + (2 * h if self.dropout else 0)  # inputs of norms and products, masks
        split = 2 * c * (h + self.kv_width) + (3 if self.gated else 2) * c * f + self.score_bytes
        return shared / (tp if sequence_parallel else 1) + split / tp

    def input_bytes(self, tp: int, sequence_parallel: bool) -> float:
        """Only its input, which is kept where the whole layer is recomputed."""
        return self.value_bytes * self.width / (tp if sequence_parallel else 1)
