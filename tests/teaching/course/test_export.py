"""Executed without a browser and exported: a page shows still pictures, with words for those who do not see them."""

from __future__ import annotations

import re

from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook

CELLS = [
    "from pipelab import TimelineView, break_schedule, build_schedule, explore, puzzles, simulate",
    "TimelineView(simulate(build_schedule('1f1b', devices=4, microbatches=4)))",
    "explore('gpipe', free=['m'], compare='1f1b')",
    "puzzles('1f1b')",
    "break_schedule('1f1b', 2, 2).drop(1, 1)",
    "from pipelab.teaching import predict\npredict('x', 'How many?', unit='slots')",
]


def test_an_exported_page_has_every_picture_with_its_words_and_needs_no_network_for_them(tmp_path):
    notebook = new_notebook(cells=[new_code_cell(text) for text in CELLS])
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    page, _ = HTMLExporter().from_notebook_node(notebook)
    alts = re.findall(r'<img alt="([^"]*)" [^>]*src="data:image/png;base64,', page)
    assert len(alts) == 4
    assert "Makespan 14 units" in alts[0]
    assert "2 timelines on one time axis" in alts[1]
    assert "with at most" in alts[2]
    assert "1B0" in alts[3]
    assert "How many? ____" in page
    assert "widgets" not in notebook.metadata, "nothing that an export would fetch a drawer for"
    assert not list(tmp_path.iterdir()), "nothing was written beside it"
