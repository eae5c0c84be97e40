from __future__ import annotations

import inspect
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelab.schedules import build_schedule, recipes, reserved
from pipelab.schedules.reserved import EVERYWHERE, ReservedError, close, reserve


def test_inside_reserve_neither_catalogue_nor_generators_answer():
    with reserve("write it yourself"):
        with pytest.raises(ReservedError, match="build_schedule does not answer here: write it yourself"):
            build_schedule("gpipe", devices=2, microbatches=2)
        for recipe in recipes().values():
            with pytest.raises(ReservedError):
                recipe.programs(2, 2, recipe.default_chunks)
    assert build_schedule("gpipe", devices=2, microbatches=2).devices == 2


@pytest.mark.parametrize("popped", [False, True])
def test_after_close_threads_are_refused_too_whatever_happens_to_the_environment(monkeypatch, popped):
    monkeypatch.setattr(reserved, "_closed", [])
    monkeypatch.setenv(EVERYWHERE, "")  # put back as it was
    close("closed")
    assert os.environ[EVERYWHERE] == "closed"
    if popped:
        del os.environ[EVERYWHERE]
    with ThreadPoolExecutor(1) as pool, pytest.raises(ReservedError, match="does not answer here: closed"):
        pool.submit(build_schedule, "gpipe", 2, 2).result()


def test_a_process_started_after_close_is_refused_by_its_environment(monkeypatch):
    monkeypatch.setenv(EVERYWHERE, "closed before")
    with pytest.raises(ReservedError, match="closed before"):
        build_schedule("gpipe", devices=2, microbatches=2)


def test_help_shows_what_a_reserved_function_takes():
    assert list(inspect.signature(build_schedule).parameters)[:3] == ["name", "devices", "microbatches"]
