import os

import torch

from pipelab import __version__
from pipelab.teaching import examine


def test_it_says_versions_cores_and_what_the_course_will_do_here():
    said = examine()
    assert said.startswith(f"pipelab {__version__}, Python ")
    assert f"torch {torch.__version__}" in said.splitlines()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert f"\ncores      {cores}\n" in said
    assert "Read bubbles from the device clock" in said or "the wall clock" in said.lower()


def test_a_machine_without_gpus_is_told_that_all_lessons_work(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "No GPU: stages run on the CPU, one thread each. All lessons work." in examine()
