"""The models of Hugging Face that are tried. A rank that is sent one imports this module before theirs."""

from __future__ import annotations

import tests.models.whole_torchvision  # noqa: F401

# isort: split
import transformers


class GPT2LMHeadModel(transformers.GPT2LMHeadModel):
    pass


class LlamaForCausalLM(transformers.LlamaForCausalLM):
    pass


class ViTForImageClassification(transformers.ViTForImageClassification):
    pass


class BertForMaskedLM(transformers.BertForMaskedLM):
    pass


class T5ForConditionalGeneration(transformers.T5ForConditionalGeneration):
    pass
