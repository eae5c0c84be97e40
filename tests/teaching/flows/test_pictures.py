"""Digits are those of their seed, and a picture of rows of them says in words what it shows."""

from __future__ import annotations

import torch

from pipelab.teaching.flows.pictures import SIDE, digits, plot_pictures


def test_digits_are_those_of_their_seed():
    labels = torch.arange(10)
    assert digits(labels, 3).shape == (10, 1, SIDE, SIDE)
    assert torch.equal(digits(labels, 3), digits(labels, 3))
    assert not torch.equal(digits(labels, 3), digits(labels, 4))


def test_pictures_of_one_digit_are_nearer_to_each_other_than_to_those_of_others():
    ones, eights = (digits(torch.full((200,), label), 5).mean(0) for label in (1, 8))
    again = digits(torch.full((200,), 8), 6).mean(0)
    assert (again - eights).abs().sum() < (again - ones).abs().sum() / 3


def test_rows_of_pictures_are_drawn_with_their_names():
    rows = {"sent": digits(torch.arange(4), 1), "made": digits(torch.arange(4), 2)}
    picture = plot_pictures(rows, title="Digits", note="Not measured")
    assert "Digits. Rows of 4 small pictures, from top to bottom: sent, made. Not measured" in picture.alt
    assert len(picture.axes) == 8
    assert {"sent", "made"} <= {text.get_text() for text in picture.texts}
