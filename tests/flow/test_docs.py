"""The page's example runs as it stands."""

import re
from pathlib import Path

from pipelab.flow import FlowReport

PAGE = Path(__file__).parents[2] / "docs" / "flow.md"


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    made: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), made)
    report = made["report"]
    assert isinstance(report, FlowReport)
    assert sum(report.results) == made["file"].seek(0, 2) - sum_of_profile(made)
    assert (tmp_path / "flow.png").stat().st_size > 10_000
    assert "is the bottleneck" in capsys.readouterr().out


def sum_of_profile(made):
    """The profile has written too: its items are the first of the run's."""
    return sum(made["report"].results[:12])
