"""Benchmarks start, and what they are made of is right. Nothing is timed here."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from pipelab import Costs, check_schedule, simulate

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


def python(code: str) -> str:
    """What a fresh interpreter prints that finds the benchmarks."""
    head = f"import sys; sys.path[:0] = [{str(BENCHMARKS)!r}, {str(ROOT)!r}]\n"
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def benchmark_modules(monkeypatch):
    """They import each other by bare names, as scripts do; afterwards nobody sees them."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_every_script_starts_and_says_how_it_is_called():
    names = ("all", "fidelity", "flow", "gpu", "overhead", "simulator", "startup", "tuning", "versus_torch")
    code = f"import importlib\nfor name in {names!r}: print(importlib.import_module(name).arguments().format_help())"
    assert python(code).count("usage:") == len(names)


def test_gpu_tests_are_found_without_pytest():
    code = (
        "import pathlib, sys\nsys.modules['pytest'] = None\n"
        "import plain_tests, torch\nmodule = pathlib.Path('tests/runtime/test_gpu.py')\n"
        "torch.cuda.is_available = lambda: False\n"
        f"rows = list(plain_tests.run_tests(pathlib.Path({str(ROOT)!r}) / module))\n"
        "print(len(rows), *{row['result'] for row in rows})"
    )
    count, *results = python(code).split()
    assert int(count) > 30
    assert results == ["skipped"]


def test_the_stand_in_for_pytest_judges_as_pytest_does(benchmark_modules):
    from plain_tests import stand_in

    made = stand_in()
    assert made.approx(2.0, rel=0.1) == 2.1
    assert made.approx(2.0, rel=0.1) != 2.3
    with made.raises(ValueError, match="so"):
        raise ValueError("so it is")
    with pytest.raises(AssertionError), made.raises(ValueError, match="other"):
        raise ValueError("so it is")


@pytest.mark.parametrize(("p", "m"), [(1, 3), (2, 4), (4, 2), (4, 16)])
def test_zb_h1_is_sound_and_holds_no_more_than_1f1b_at_its_worst(p, m, benchmark_modules):
    from torch_ranks import zb_h1

    table = zb_h1(p, m)
    assert check_schedule(table) == []
    costs = Costs(forward=1.0, backward=2.0)
    assert max(simulate(table, costs).peak_microbatches) <= min(p, m)


def test_results_keep_what_was_not_measured_again(tmp_path, benchmark_modules):
    write, sections = (getattr(importlib.import_module("all"), name) for name in ("write", "sections"))
    file = tmp_path / "RESULTS.md"
    write({"simulator": "old\n", "startup": "one\n"}, file)
    write({"simulator": "new\n"}, file)
    assert {name: part.strip() for name, part in sections(file.read_text()).items()} == {
        "simulator": "new",
        "startup": "one",
    }


def test_ratios_are_taken_within_a_round(benchmark_modules):
    from alternate import ratios

    found = ratios({"a": [1.0, 20.0, 3.0], "b": [2.0, 40.0, 6.0]}, to="b")
    assert list(found) == ["a"]
    assert (found["a"].low, found["a"].middle, found["a"].high) == (0.5, 0.5, 0.5)
