"""Texts of tables as they come from people, spreadsheets and broken programs."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.strategies import reordered, slots, sound_tables

CELLS = [
    *(
        "",
        " ",
        ".",
        "-",
        "0F0",
        "1B0",
        "0f0",
        "0FO",
        "F0",
        "0F",
        "0F-1",
        "0F0.0",
        "0 F 0",
        "1e9F0",
        "0X0",
        "0FF0",
        "0U0",
    ),
    *("(0F0;0B0)", "(0F0;0B0)OVERLAP_F_B", "(0F0)OVERLAP_F_B", "()", "(", "((0F0))", "(0F0;(0B0;0I0))", "0F0;0B0"),
    *("999F999", "1000F1000", "1F99999999999", "0F" + "9" * 5000, "0" * 5000 + "F0", "٠F٠", "²F0", "0Ｆ0", "ﬀ"),
    *("\0", "0F0\0", '"', '"0F0', '0F0"', '""', "'0F0'", "=SUM(A1)", "NaN", "None", "a" * 1000, "|", "device 0 |"),
]
"""One of a kind each."""
LINES = ["\n", "\r\n", "\r", "\n\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", ""]

words = st.sampled_from(CELLS) | st.text(max_size=6) | st.text("0123456789FBIWRU();. ", max_size=8)


@st.composite
def grown(draw: st.DrawFn) -> str:
    """Cells, good and bad, between separators, good and bad."""
    separator = draw(st.sampled_from([",", ",", ", ", ";", "\t", " ", "|"]))
    line = draw(st.sampled_from(LINES))
    rows = draw(st.lists(st.lists(words, max_size=5), max_size=5))
    return draw(st.sampled_from(["", "", "\ufeff", "\n", "time | 0 1"])) + line.join(map(separator.join, rows))


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """The text of a table, a few characters of which were cut, changed, doubled, or put elsewhere."""
    table = draw(sound_tables(3, 4, 2) | reordered(sound_tables(3, 4, 2)))
    text = draw(st.sampled_from([table.to_csv(), str(table)]))
    for _ in range(draw(st.integers(0, 4))):
        a, b = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        b = draw(st.sampled_from([a, min(a + 1, len(text)), b]))
        put = draw(st.sampled_from(["", "0", "9", "F", "B", ",", "\n", '"', "(", ")", ";", "|", text[a:b] * 2]) | words)
        text = text[:a] + put + text[b:]
    return text


texts = grown() | mutated() | st.text() | st.text('0123FBIWRU,;().\n|- "\r', max_size=60)

numbers = st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=2) | st.just(10**400)
things = st.recursive(
    words | slots() | numbers | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(words, inner),
    max_leaves=12,
)
