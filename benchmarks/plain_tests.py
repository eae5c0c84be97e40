"""Runs a file of plain tests, functions with marks, where pytest may be missing; nothing of fixtures or plugins.

python benchmarks/plain_tests.py tests/runtime/test_gpu.py
"""

from __future__ import annotations

import importlib
import itertools
import re
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]


class _Skipped(Exception):
    pass


class _Marks:
    """``mark.anything(...)``, kept on the function as pytest keeps it."""

    def __getattr__(self, name: str) -> Any:
        return _Mark(name, (), {})


class _Mark:
    def __init__(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.name, self.args, self.kwargs = name, args, kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and callable(args[0]) and not kwargs:
            args[0].pytestmark = [*getattr(args[0], "pytestmark", []), self]
            return args[0]
        return _Mark(self.name, args, kwargs)


class _Approx:
    def __init__(self, expected: float, rel: float = 1e-6, abs: float = 0.0) -> None:
        self.expected, self.within = expected, max(rel * _size(expected), abs)

    def __eq__(self, other: object) -> bool:
        return _size(other - self.expected) <= self.within

    def __repr__(self) -> str:
        return f"{self.expected} +- {self.within:.2g}"


def _size(value: Any) -> float:
    return abs(float(value))


@contextmanager
def _raises(expected: Any, match: str = "") -> Iterator[SimpleNamespace]:
    caught = SimpleNamespace(value=None)
    try:
        yield caught
    except expected as error:
        assert re.search(match, str(error)), f"{error!r} does not say {match!r}"
        caught.value = error
    else:
        raise AssertionError(f"{expected} was not raised")


def _skip(reason: str = "") -> None:
    raise _Skipped(reason)


def _parameters(*values: Any, **_: Any) -> tuple[Any, ...]:
    return values


def stand_in() -> ModuleType:
    """As much of pytest as these tests need."""
    made: Any = ModuleType("pytest")
    _skip.Exception = _Skipped  # type: ignore[attr-defined]
    made.mark, made.approx, made.raises, made.skip, made.param = _Marks(), _Approx, _raises, _skip, _parameters
    made.fixture = lambda *args, **_: args[0] if args else lambda function: function
    return made


def tests_of(module: ModuleType) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(name, function, arguments) of each case."""
    for name, function in list(vars(module).items()):  # a test that warns adds to them
        if not name.startswith("test_") or not callable(function):
            continue
        marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
        choices = []
        for mark in marks:
            names = (
                [part.strip() for part in mark.args[0].split(",")] if isinstance(mark.args[0], str) else mark.args[0]
            )
            choices.append([dict(zip(names, v if len(names) > 1 else [v], strict=True)) for v in mark.args[1]])
        for choice in itertools.product(*choices):
            told = {key: value for part in choice for key, value in part.items()}
            yield f"{name}[{', '.join(map(str, told.values()))}]" if told else name, function, told


def run_tests(file: Path) -> Iterator[dict[str, Any]]:
    """One row a test: what came of it, in how many seconds, and why."""
    sys.path.insert(0, str(ROOT))
    try:
        import pytest
    except ImportError:
        pytest = sys.modules["pytest"] = stand_in()

    module = importlib.import_module(".".join(file.resolve().relative_to(ROOT).with_suffix("").parts))
    marks = getattr(module, "pytestmark", [])
    reasons = [m.kwargs["reason"] for m in marks if m.name == "skipif" and m.args[0]]
    for name, function, told in tests_of(module):
        begun, result, why = time.perf_counter(), "passed", ""
        try:
            if reasons:
                pytest.skip(reasons[0])
            function(**told)
        except pytest.skip.Exception as error:
            result, why = "skipped", str(error)
        except Exception as error:  # noqa: BLE001
            result, why = "failed", f"{type(error).__name__}: {error}"[:300]
            traceback.print_exc()
        yield {"test": name, "result": result, "seconds": round(time.perf_counter() - begun, 2), "why": why}


def main() -> None:
    rows = [row for file in sys.argv[1:] for row in run_tests(Path(file))]
    for row in rows:
        print("{result:8} {seconds:7.2f} s  {test}  {why}".format(**row))
    sys.exit(any(row["result"] == "failed" for row in rows))


if __name__ == "__main__":
    if set(sys.argv[1:]) & {"-h", "--help"}:
        print(__doc__)
        sys.exit()
    main()
