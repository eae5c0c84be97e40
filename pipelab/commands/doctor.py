"""``pipelab doctor``: what this machine has, and what the course does on it."""

from __future__ import annotations

import argparse

from pipelab.teaching.machine import examine

__all__ = ["add_arguments", "examine", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(options: argparse.Namespace) -> int:
    """Say what is found."""
    print(examine(), end="")
    return 0
