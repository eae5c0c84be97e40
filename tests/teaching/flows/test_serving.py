"""The stages of an inference give what the whole model gives."""

from __future__ import annotations

import torch

from pipelab.models import TransformerLM
from pipelab.teaching.flows.serving import Served, requests


def test_four_stages_are_the_model_in_one_piece():
    model = TransformerLM(layers=6, width=16)
    served, texts = Served(model, cut=2), requests(5)
    tokens = served.tokenise(texts)
    assert [bytes(row).decode() for row in tokens.tolist()] == texts
    scores = served.infer(served.encode(tokens))
    with torch.no_grad():
        assert torch.allclose(scores, model(tokens)[:, -1], atol=1e-6)
    best = served.decode(scores, best=2)
    assert [row[0] for row in best] == [chr(byte) for byte in scores.argmax(1).tolist()]
    assert all(len(row) == 2 for row in best)


def test_requests_are_lines_of_the_text_of_one_length():
    texts = requests(40, length=20)
    assert {len(text.encode()) for text in texts} == {20}
    assert len(set(texts)) > 30
