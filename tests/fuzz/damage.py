"""JSON files that were edited by hand, cut short, or written by something else."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

scalars = st.sampled_from(
    [None, True, 0, -1, 1e400, float("nan"), 10**400, "", "x", "\ud800", "\0", [], {}, [[]], {"": 0}]
)


def _spots(value: Any, path: tuple = ()) -> list[tuple]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * (path != ()) + [spot for key, item in inside for spot in _spots(item, (*path, key))]


@st.composite
def damaged(draw: st.DrawFn, value: Any, most: int = 3) -> str:
    """The text of ``value`` after some of it was dropped, replaced, doubled or swapped; perhaps cut short."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        spots = _spots(value)
        if not spots:
            break
        depth = draw(st.integers(1, max(map(len, spots))))  # a page has a thousand lines of source and few keys above
        *path, key = draw(st.sampled_from([spot for spot in spots if len(spot) <= depth]))
        place: Any = value
        for step in path:
            place = place[step]
        kind = draw(st.sampled_from(["drop", "replace", "replace", "double", "take another", "wrap"]))
        if kind == "drop":
            del place[key]
        elif kind == "replace":
            place[key] = copy.deepcopy(draw(scalars))  # the next damage may be inside it
        elif kind == "double" and isinstance(place, list):
            place.insert(draw(st.integers(0, len(place))), copy.deepcopy(place[key]))
        elif kind == "wrap":
            place[key] = draw(st.sampled_from([[place[key]], {"x": place[key]}]))
        else:
            other: Any = value
            for step in draw(st.sampled_from(spots)):
                other = other[step]
            place[key] = copy.deepcopy(other)
    text = json.dumps(value)
    way = draw(st.sampled_from(["whole"] * 8 + ["cut", "deep", "more"]))
    if way == "cut":
        return text[: draw(st.integers(0, len(text)))]
    return {"deep": '{"a":' * 3000 + text, "more": text + text}.get(way, text)
