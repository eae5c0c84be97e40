"""Parameters, operations and bytes of a model, against the papers' formulas and figures."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import ConfigurationError, ModelFacts

LLAMA = ModelFacts.llama(126, 16384, 128, 8, 53248)


@given(
    layers=st.integers(1, 100), heads=st.integers(1, 64), size=st.sampled_from([32, 64, 128]), s=st.integers(1, 4096)
)
def test_a_gpt_has_the_operations_and_parameters_of_2104_04473(layers, heads, size, s):
    h, V = heads * size, 51200
    gpt = ModelFacts.gpt(layers, h, heads, tokens=s)
    assert gpt.parameters == pytest.approx(
        12 * layers * h * h * (1 + 13 / (12 * h) + (V + s) / (12 * layers * h)), rel=1e-4
    )
    again = s * layers * gpt.layer_operations  # their count has each layer's forward twice
    formula = 96 * s * layers * h * h * (1 + s / (6 * h) + V / (16 * layers * h))
    assert gpt.step_operations + again == pytest.approx(formula)


@given(heads=st.sampled_from([8, 16, 96]), tp=st.sampled_from([1, 2, 8]), s=st.sampled_from([512, 2048]))
def test_a_gpt_keeps_the_bytes_of_2205_05198(heads, tp, s):
    h = 64 * heads
    gpt = ModelFacts.gpt(1, h, heads, tokens=s)
    assert gpt.kept_bytes(1, False) == h * (34 + 5 * heads * s / h)
    assert gpt.kept_bytes(tp, False) == pytest.approx(h * (10 + 24 / tp + 5 * heads * s / (h * tp)))
    assert gpt.kept_bytes(tp, True) == pytest.approx(h / tp * (34 + 5 * heads * s / h))
    assert gpt.kept_bytes(tp, True) - gpt.score_bytes / tp == pytest.approx(34 * h / tp)
    assert gpt.input_bytes(tp, False) == 2 * h


def test_known_models_have_their_size():
    assert LLAMA.parameters == pytest.approx(405.9e9, rel=1e-3)
    assert ModelFacts.llama(32, 4096, 32, 8, 14336).parameters == 8030261248  # as published with its weights
    assert ModelFacts.gpt(12, 768, 12, 1024, 50257).parameters == 124439808
    assert ModelFacts.gpt(80, 12288, 96).parameters == pytest.approx(145.6e9, rel=1e-3)


def test_a_measured_size_stands_in_for_the_formula():
    facts = replace(LLAMA, activation_bytes=1000)
    assert facts.kept_bytes(1, True) == 1000
    assert facts.kept_bytes(4, True) == 250


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"layers": 0}, "layers must be a whole number of at least 1, got 0; try 1"),
        ({"kv_heads": 2.5}, "kv_heads must be a whole number of at least 1, got 2.5; try 2"),
        ({"width": 100}, "width must be divisible by heads: 100 and 128; try width = 128"),
        ({"kv_heads": 24}, "heads must be divisible by kv_heads: 128 and 24; try heads = 120"),
        ({"value_bytes": 0}, "value_bytes must be a positive number of bytes, got 0; try 2 or 4"),
        ({"optimizer_bytes": "many"}, "optimizer_bytes must be a number of bytes, got 'many'; try 2 or 4"),
        ({"activation_bytes": -1}, "activation_bytes must be a number of bytes, got -1"),
    ],
)
def test_what_is_no_model_is_refused(changed, says):
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        replace(LLAMA, **changed)
