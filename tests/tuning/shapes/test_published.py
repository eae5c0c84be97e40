"""The planner against runs whose shape and utilisation were published, and the table of them in the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelab import ConfigurationError
from pipelab.tuning.shapes.published import RUNS, published_run

PAGE = Path(__file__).parents[3] / "docs" / "shapes.md"


@pytest.fixture(scope="module")
def found():
    return {name: run.found() for name, run in RUNS.items()}


def row(name: str, found) -> str:
    """A line of the table in the docs."""
    run = RUNS[name]
    rank, of, one, plan = found[name]
    best = plan.best[0].shape
    return (
        f"| {name} | {run.cluster.devices:,} | {run.dp}, {run.pp}, {run.tp} | {best.dp}, {best.pp}, {best.tp} | "
        f"{rank} of {of} | {run.predicted(one):.0%} | {run.achieved:.0%} |"
    )


def test_the_published_shape_is_among_the_best_five_of_most_runs(found):
    among = [name for name, (rank, *_) in found.items() if 1 <= rank <= 5]
    assert {"gpt-145.6b", "gpt-529.6b", "gpt-1008.0b", "mt-nlg-530b", "bloom-176b", "llama3-405b"} <= set(among)
    assert len(among) >= 11


def test_the_published_shape_always_fits(found):
    assert all(rank for rank, *_ in found.values())


@pytest.mark.parametrize("name", [name for name in RUNS if "llama" not in name])
def test_the_utilisation_of_a_published_shape_is_near_the_published_one(name, found):
    run, one = RUNS[name], found[name][2]
    assert run.predicted(one) == pytest.approx(run.achieved, rel=0.13)


def test_published_sizes_are_those_of_the_models():
    for name, run in RUNS.items():
        size = next((part for part in name.split("-") if part[0].isdigit() and part.endswith("b")), "")
        assert run.model.parameters / 1e9 == pytest.approx(float(size[:-1]), rel=0.03), name
        assert run.dp * run.pp * run.tp == run.cluster.devices


def test_the_table_in_the_docs_is_what_the_planner_says(found):
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith(tuple(f"| {name} |" for name in RUNS))]
    wanted = [row(name, found) for name in RUNS]
    assert [" ".join(line.split()) for line in lines] == wanted, "\n" + "\n".join(wanted)


def test_an_unknown_run_is_refused():
    with pytest.raises(ConfigurationError, match=r"there is no run 'gpt-4'; there is gpt-1\.7b, "):
        published_run("gpt-4")
