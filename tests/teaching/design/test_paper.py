from __future__ import annotations

from pipelab.teaching.design.paper import html_page, html_table, keep


def test_a_table_says_nothing_as_html_of_its_cells():
    table = html_table(["a<b"], [["<i>"], ["x"]], bold=[1])
    assert "a&lt;b" in table
    assert "&lt;i&gt;" in table
    assert "<b>x</b>" in table


def test_a_page_has_title_body_and_style():
    page = html_page("T", "<p>b</p>", "p { color: red }")
    assert page.startswith("<!doctype html>")
    assert "<title>T</title>" in page
    assert "color: red }</style></head><body><p>b</p></body></html>" in page


def test_what_is_kept_is_never_changed(tmp_path):
    folder = tmp_path / "new"
    assert keep("one", "a.txt", folder) == keep("one", "a.txt", folder) == folder / "a.txt"
    assert keep("two", "a.txt", folder) == keep("two", "a.txt", folder) == folder / "a-2.txt"
    assert keep("one", "a.txt", folder) == folder / "a.txt"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a.txt": "one", "a-2.txt": "two"}
