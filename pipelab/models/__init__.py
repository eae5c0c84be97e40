"""The 48-layer transformer, the text it learns from, and how layers are cut into stages."""

from pipelab.models.cut import Sections, Stage, cut_layers, cut_model
from pipelab.models.dropout import KeyedDropout, dropout_key
from pipelab.models.split import SplitModel, split_model
from pipelab.models.text import text_batch, training_text
from pipelab.models.transformer import TransformerLM, next_byte_loss, transformer_stage

__all__ = [
    "KeyedDropout",
    "Sections",
    "SplitModel",
    "Stage",
    "TransformerLM",
    "cut_layers",
    "cut_model",
    "dropout_key",
    "next_byte_loss",
    "split_model",
    "text_batch",
    "training_text",
    "transformer_stage",
]
