"""All claims by name. Other parts read this list: which claims there are, of which source, settled on which page."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from pipelab.errors import ConfigurationError
from pipelab.teaching.claims import elsewhere, memory, timetables, weights
from pipelab.teaching.claims.claim import Claim

__all__ = ["CLAIMS", "claim"]

CLAIMS: Mapping[str, Claim] = MappingProxyType(
    {one.name: one for module in (timetables, memory, weights, elsewhere) for one in module.CLAIMS}
)
"""In the order of the pages."""


def claim(name: str) -> Claim:
    """The claim ``name``. Raises ConfigurationError, which offers the nearest name."""
    if name not in CLAIMS:
        (close, *_) = difflib.get_close_matches(str(name), CLAIMS, n=1, cutoff=0.0)
        raise ConfigurationError(f"there is no claim '{name}'; did you mean '{close}'?")
    return CLAIMS[name]
