"""Scenarios and values are those of the textbook, and batches of any size give the same value at risk."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pipelab.teaching.flows.risk import BLOCK, Book, closed_form, make_book, scenarios, tail, value, value_at_risk


def one_option(sign=1.0, years=1.0):
    def row(x):
        return np.array([[x]])

    return Book(
        np.array([100.0]), np.array([0.2]), row(1.0), row(100.0), row(years), row(1.0), row(sign), 0.05, 10 / 252
    )


def test_a_call_and_a_put_are_worth_what_the_textbook_says():
    price = np.array([[100.0]])
    call, put = (float(value(one_option(sign), price, left=0.0)) for sign in (1.0, -1.0))
    assert call == pytest.approx(10.450583572185565, rel=1e-12)  # Hull, Options, Futures and Other Derivatives
    assert call - put == pytest.approx(100 - 100 * math.exp(-0.05), rel=1e-12)


def test_the_book_is_worth_the_sum_of_its_options():
    book, prices = make_book(shares=3, options=2), np.array([[30.0, 90.0], [50.0, 60.0], [150.0, 80.0]])
    total = np.zeros(2)
    for share in range(3):
        for option in range(2):
            cut = slice(share, share + 1), slice(option, option + 1)
            alone = {name: getattr(book, name)[cut] for name in ("strike", "expiry", "number", "sign")}
            one = replace(book, volatility=book.volatility[cut[0]], **alone)
            total += value(one, prices[cut[0]]).numpy()
    assert value(book, prices).numpy() == pytest.approx(total)


def test_scenarios_have_the_moments_of_the_model():
    book = make_book(shares=4)
    prices = scenarios(book, 0, 200 * BLOCK)
    moves = np.log(prices / book.spot[:, None])
    spread = book.volatility * math.sqrt(book.horizon)
    assert moves.std(1) == pytest.approx(spread, rel=0.02)
    assert np.corrcoef(moves) == pytest.approx(book.root @ book.root.T, abs=0.02)
    assert prices.mean(1) == pytest.approx(book.spot * math.exp(book.rate * book.horizon), rel=3e-3)


@pytest.mark.parametrize("blocks", [1, 3, 8])
def test_batches_of_any_size_give_what_one_serial_computation_gives(blocks):
    book, count, keep = make_book(shares=5), 24 * BLOCK, 60
    today = float(value(book, book.spot[:, None], left=0.0))
    serial = np.sort(today - value(book, scenarios(book, 0, count)).numpy())
    tails = [
        tail(today - value(book, scenarios(book, first, blocks * BLOCK)).numpy(), keep)
        for first in range(0, count, blocks * BLOCK)
    ]
    risk, shortfall = value_at_risk(tails, keep)
    assert risk == pytest.approx(serial[-keep], rel=1e-12)
    assert shortfall == pytest.approx(serial[-keep:].mean(), rel=1e-12)


def test_one_call_comes_near_to_its_closed_form():
    book, count, level = one_option(), 80 * BLOCK, 0.99
    today = float(value(book, np.array([[100.0]]), left=0.0))
    keep = round(count * (1 - level))
    risk, _ = value_at_risk([tail(today - value(book, scenarios(book, 0, count)).numpy(), keep)], keep)
    assert risk == pytest.approx(closed_form(book, level), rel=0.03)


def test_a_short_batch_is_all_tail():
    assert tail(np.array([3.0, 1.0]), 5).tolist() == [3.0, 1.0]
    assert sorted(tail(np.array([3.0, 1.0, 2.0, 5.0]), 2)) == [3.0, 5.0]
