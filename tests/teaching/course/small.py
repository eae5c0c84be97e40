"""A small course in a folder of its own, with the files that stand beside the sources."""

from __future__ import annotations

from pathlib import Path

HEAD = """\
# ---
# jupyter:
#   pipelab:
#     number: {number}
#     title: {title}
#     minutes: 10
#     builds_on: {builds_on}
#     goals: [one, two, three]
# ---

"""
LESSON = """\
# %% [markdown]
# ## How many apples?
#
# A **basket** holds them.

# %%
predict("00-apples", "How many apples?", unit="apples")

# %%
apples = 3
print(apples)
"""
ABOUT = """\
can = ["count apples"]

[00_small]
can = "count"
moment = "There are three."
teach = "Ask first. Then count together."
"""
GLOSSARY = """\
left_out = []

[[term]]
term = "basket"
text = "It holds apples."
at = ["0", "How many apples?", "apples = 3"]
"""
COVERAGE = """\
[sources]
example = "a text about apples"

[[topic]]
topic = "Counting apples"
of = ["example"]
at = ["0", "How many apples?", "apples = 3"]
test = "tests/test_apples.py::test_three"
"""


def small_course(root: Path, **changed: str) -> Path:
    """Written into ``root``; returns its folder of sources. ``changed``: another text of lesson, about and so on."""
    texts = {"lesson": HEAD.format(number=0, title="Small", builds_on=[]) + LESSON}
    texts |= {"about": ABOUT, "glossary": GLOSSARY, "coverage": COVERAGE} | changed
    names = {
        "lesson": "00_small.py",
        "about": "lessons.toml",
        "glossary": "glossary.toml",
        "coverage": "coverage.toml",
    }
    (root / "course").mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "tests" / "test_apples.py").write_text("def test_three():\n    pass\n")
    for kind, text in texts.items():
        (root / "course" / names[kind]).write_text(text)
    return root / "course"
