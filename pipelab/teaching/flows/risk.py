"""Value at risk: scenarios of share prices, a book of options valued in each, and the losses that are rarely exceeded.

Scenarios are drawn in blocks, each with a seed of its own. So the same scenarios come in batches of any size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["BLOCK", "Book", "closed_form", "make_book", "scenarios", "tail", "value", "value_at_risk"]

Array = np.ndarray[Any, np.dtype[np.float64]]
BLOCK = 250
"""Scenarios that are drawn at once."""


@dataclass(frozen=True)
class Book:
    """Shares, and options on them: arrays of shape (shares,) and (shares, options). Times are in years."""

    spot: Array
    volatility: Array
    root: Array
    """Lower triangle L with L L^T = the shares' correlations."""
    strike: Array
    expiry: Array
    number: Array
    """How many of each option are held; below 0 where they were sold."""
    sign: Array
    """1 for a call, -1 for a put."""
    rate: float = 0.02
    horizon: float = 10 / 252
    """When the loss is asked for: ten trading days from now."""


def make_book(shares: int = 100, options: int = 2, seed: int = 0) -> Book:
    """A book drawn from ``seed``. The shares' correlations come from three factors that move many of them."""
    random = np.random.default_rng(seed)
    factors = random.normal(0.3, 0.3, (shares, 3))
    covariance = factors @ factors.T + np.diag(random.uniform(0.3, 1.0, shares))
    scale = np.sqrt(np.diag(covariance))
    spot, shape = random.uniform(20, 200, shares), (shares, options)
    return Book(
        spot=spot,
        volatility=random.uniform(0.15, 0.5, shares),
        root=np.linalg.cholesky(covariance / np.outer(scale, scale)),
        strike=spot[:, None] * random.uniform(0.8, 1.2, shape),
        expiry=random.uniform(0.1, 2.0, shape),
        number=random.integers(-50, 100, shape).astype(float),
        sign=random.choice([-1.0, 1.0], shape),
    )


def scenarios(book: Book, first: int, count: int, seed: int = 0) -> Array:
    """Prices at the horizon in scenarios ``first`` to ``first + count - 1``: shape (shares, count).

    Both numbers are multiples of ``BLOCK``.
    """
    blocks = range(first // BLOCK, (first + count) // BLOCK)
    shape = (len(book.spot), BLOCK)
    normal = np.hstack([np.random.default_rng([seed, block]).standard_normal(shape) for block in blocks])
    spread = book.volatility * math.sqrt(book.horizon)
    growth = (book.rate - book.volatility**2 / 2) * book.horizon
    moved = book.root @ normal
    moved *= spread[:, None]
    moved += (growth + np.log(book.spot))[:, None]
    return np.exp(moved, out=moved)


def value(book: Book, prices: Array | Tensor, left: float | None = None, device: str = "cpu") -> Tensor:
    """What the book is worth in each scenario, on ``device``: prices (shares, count) -> (count,), by Black and Scholes.

    ``left`` years have passed; by default the horizon. The options of each share are valued at once, and share after
    share. So each batch launches the same operations, no matter how many scenarios it has.
    """
    prices = torch.as_tensor(prices, device=device)
    terms = (book.strike, book.expiry - (book.horizon if left is None else left), book.number, book.sign)
    columns = torch.as_tensor(np.stack(terms, 1), device=device)[..., None]  # (shares, 4, options, 1)
    total = torch.zeros_like(prices[0])
    for price, volatility, (strike, years, number, sign) in zip(prices, book.volatility, columns, strict=True):
        spread = volatility * years.sqrt()
        ahead = ((price / strike).log_() + (book.rate * years + spread**2 / 2)).div_(spread)
        behind = strike * (-book.rate * years).exp()
        worth = price * _below(sign * ahead) - behind * _below(sign * (ahead - spread))
        total += (number * sign * worth).sum(0)
    return total


def _below(x: Tensor) -> Tensor:
    """The part of a normal distribution that lies below x."""
    return x.mul_(math.sqrt(0.5)).erf_().add_(1).mul_(0.5)


def tail(losses: Array, keep: int) -> Array:
    """The ``keep`` largest losses of a batch, in any order: no others can be among the largest of all."""
    return losses if len(losses) <= keep else np.partition(losses, -keep)[-keep:]


def value_at_risk(tails: Sequence[Array], keep: int) -> tuple[float, float]:
    """The least of the ``keep`` largest losses, and their mean: the value at risk, and the expected shortfall."""
    worst = np.sort(np.concatenate(tails))[-keep:]
    return float(worst[0]), float(worst.mean())


def closed_form(book: Book, level: float) -> float:
    """The value at risk of a book with one share and one call that is held: exact, for any number of scenarios.

    The call gains with its share. So its loss is rarest where the share's price is, and that is lognormal.
    """
    low = NormalDist().inv_cdf(1 - level) * book.volatility[0] * math.sqrt(book.horizon)
    price = book.spot[0] * math.exp((book.rate - book.volatility[0] ** 2 / 2) * book.horizon + low)
    return float(value(book, book.spot[:1, None], left=0.0) - value(book, np.array([[price]])))
