"""Models as they are met in the wild, small and with random weights, each with a batch and a loss that fit it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

if importlib.util.find_spec("torchvision") is not None:  # ranks import what a loss stands in: this, and so that first
    importlib.import_module("tests.models.whole_torchvision")

__all__ = ["REAL", "Case", "MixtureOfExperts", "UNet"]

VOCABULARY, LENGTH, SEQUENCES = 50, 8, 8


@dataclass(frozen=True)
class Case:
    """A model in float64, a batch for ``Pipeline.step``, a loss, and what ``split_model`` is shown.

    ``way``: how it is expected to be split. ``tied``: whether a parameter stands in two stages. ``exact``: whether its
    gradients do not depend on how the batch is cut (with batch statistics they do).
    """

    model: nn.Module
    inputs: Any
    targets: Tensor
    loss: Callable[[Any, Tensor], Tensor]
    example_inputs: Any
    way: str = "stack"
    tied: bool = False
    exact: bool = True


def _transformers() -> tuple[Any, Any]:
    """(the library, its models)."""
    library = pytest.importorskip("transformers", reason="needs transformers: pip install 'pipelab[models]'")
    library.logging.set_verbosity_error()
    return library, importlib.import_module("tests.models.hugging_face")


def _torchvision() -> Any:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision: pip install 'pipelab[models]'")
    importlib.import_module("tests.models.whole_torchvision")
    return importlib.import_module("torchvision.models")


def _tokens(seed: int = 0) -> Tensor:
    return torch.randint(VOCABULARY, (SEQUENCES, LENGTH), generator=torch.Generator().manual_seed(seed))


def _images(size: int = 16) -> Tensor:
    return torch.randn(SEQUENCES, 3, size, size, generator=torch.Generator().manual_seed(1)).double()


def _classes(count: int) -> Tensor:
    return torch.arange(SEQUENCES) % count


def word_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy over all words."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


def first_loss(output: tuple[Tensor, ...], targets: Tensor) -> Tensor:
    """The same of a model that returns more than logits."""
    return word_loss(output[0], targets)


def gpt2() -> Case:
    hf, models = _transformers()
    torch.manual_seed(0)
    config = hf.GPT2Config(
        n_layer=8, n_embd=16, n_head=2, vocab_size=VOCABULARY, n_positions=16,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = models.GPT2LMHeadModel(config).double()
    tokens = _tokens()
    example = {"input_ids": tokens[:2], "use_cache": False}
    return Case(model, tokens, _tokens(1), word_loss, example, tied=True)


def llama() -> Case:
    hf, models = _transformers()
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        num_hidden_layers=8, hidden_size=16, intermediate_size=24, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=VOCABULARY, max_position_embeddings=16, use_cache=False,
    )  # fmt: skip
    model = models.LlamaForCausalLM(config).double()
    tokens = _tokens()
    mask = torch.ones_like(tokens)
    mask[::2, -2:] = 0
    return Case(model, (tokens, mask), _tokens(1), word_loss, {"input_ids": tokens[:2], "attention_mask": mask[:2]})


def vit() -> Case:
    hf, models = _transformers()
    torch.manual_seed(0)
    config = hf.ViTConfig(
        num_hidden_layers=8, hidden_size=16, intermediate_size=24, num_attention_heads=2, image_size=16, patch_size=4,
        num_labels=5,
    )  # fmt: skip
    model = models.ViTForImageClassification(config).double()
    return Case(model, _images(), _classes(5), F.cross_entropy, _images()[:2])


def bert() -> Case:
    hf, models = _transformers()
    torch.manual_seed(0)
    config = hf.BertConfig(
        num_hidden_layers=8, hidden_size=16, intermediate_size=24, num_attention_heads=2, vocab_size=VOCABULARY,
        max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = models.BertForMaskedLM(config).double()
    tokens = _tokens()
    mask = torch.ones_like(tokens)
    mask[1::2, -3:] = 0
    example = {"input_ids": tokens[:2], "attention_mask": mask[:2]}
    return Case(model, (tokens, mask), _tokens(1), word_loss, example, tied=True)


def t5() -> Case:
    hf, models = _transformers()
    torch.manual_seed(0)
    config = hf.T5Config(
        num_layers=2, d_model=16, d_kv=8, d_ff=24, num_heads=2, vocab_size=VOCABULARY, dropout_rate=0.0, use_cache=False
    )
    model = models.T5ForConditionalGeneration(config).double()
    example = {"input_ids": _tokens()[:2], "decoder_input_ids": _tokens(2)[:2]}
    return Case(model, (_tokens(), _tokens(2)), _tokens(1), first_loss, example, way="traced", tied=True)


def resnet() -> Case:
    models = _torchvision()
    torch.manual_seed(0)
    model = models.resnet18(num_classes=5).double()
    return Case(model, _images(32), _classes(5), F.cross_entropy, _images(32)[:2], way="traced", exact=False)


class UNet(nn.Module):
    """Down, and up again beside what was on the way down."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()

        def block(inner: int, outer: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1), nn.GroupNorm(2, outer), nn.SiLU())

        self.down = nn.ModuleList([block(3, width), block(width, 2 * width), block(2 * width, 4 * width)])
        self.middle = block(4 * width, 8 * width)
        self.up = nn.ModuleList([block(12 * width, 4 * width), block(6 * width, 2 * width), block(3 * width, width)])
        self.last = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skipped = []
        for block in self.down:
            x = block(x)
            skipped.append(x)
            x = F.max_pool2d(x, 2)
        x = self.middle(x)
        for block in self.up:
            x = F.interpolate(x, scale_factor=2.0)
            x = block(torch.cat([x, skipped.pop()], dim=1))
        return self.last(x)


def unet() -> Case:
    torch.manual_seed(0)
    return Case(UNet().double(), _images(), _images().flip(0), F.mse_loss, _images()[:2], way="traced")


class Seq2Seq(nn.Module):
    """Every layer of the decoder looks at what the encoder made."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.transformer = nn.Transformer(width, 2, 2, 2, 24, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.head(self.transformer(self.embed(source), self.embed(target)))


def encoder_decoder() -> Case:
    torch.manual_seed(0)
    inputs = (_tokens(), _tokens(2))
    example = tuple(tensor[:2] for tensor in inputs)
    return Case(Seq2Seq().double(), inputs, _tokens(1), word_loss, example, way="traced")


class Expert(nn.Module):
    """A residual layer that sends each token to the likeliest of its experts."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList([nn.Linear(width, width) for _ in range(experts)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.router(x)
        weight, chosen = logits.softmax(-1).max(-1)
        found = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            found = found + torch.where((chosen == number)[..., None], expert(x), 0.0)
        return x + weight[..., None] * found.tanh(), logits.logsumexp(-1).square().mean()


class MixtureOfExperts(nn.Module):
    """Its auxiliary loss is the router z-loss (arXiv 2202.08906), a mean over tokens, summed over layers."""

    def __init__(self, layers: int = 8, width: int = 16, experts: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList([Expert(width, experts) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(tokens)
        auxiliary = x.new_zeros(())
        for block in self.blocks:
            x, more = block(x)
            auxiliary = auxiliary + more
        return self.head(self.norm(x)), auxiliary


def expert_loss(output: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    """Cross entropy, and a little of the auxiliary loss."""
    logits, auxiliary = output
    return word_loss(logits, targets) + 0.01 * auxiliary


def mixture_of_experts() -> Case:
    torch.manual_seed(0)
    return Case(MixtureOfExperts().double(), _tokens(), _tokens(1), expert_loss, _tokens()[:2])


REAL: dict[str, Callable[[], Case]] = {
    "gpt2": gpt2,
    "llama": llama,
    "vit": vit,
    "bert": bert,
    "t5": t5,
    "resnet": resnet,
    "unet": unet,
    "encoder-decoder": encoder_decoder,
    "mixture-of-experts": mixture_of_experts,
}
