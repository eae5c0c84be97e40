"""pipelab: learn pipeline parallelism by running it.

A schedule is data, and everything is driven by that one table: it is built, checked, predicted, run, measured, drawn.
Names that need torch are loaded when they are first used, so that ``pipelab.schedules``, ``pipelab.simulation`` and
``pipelab.timeline`` stay light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pipelab.version import __version__

_HOMES = {
    "pipelab.errors": [
        "ConfigurationError",
        "DeadlockError",
        "FlowError",
        "LostProcessError",
        "NonFiniteError",
        "OutOfMemoryError",
        "PipelabError",
        "ScheduleError",
        "ScheduleParseError",
        "StageError",
        "TimeLimitError",
    ],
    "pipelab.schedules": [
        "Action",
        "Schedule",
        "TimeTable",
        "Violation",
        "build_schedule",
        "check_schedule",
        "why_blocked",
    ],
    "pipelab.timeline": ["Timeline", "compare"],
    "pipelab.simulation": ["Costs", "Link", "Links", "simulate"],
    "pipelab.simulation.search": ["Found", "search_schedule"],
    "pipelab.teaching.board.breaker": ["break_schedule"],
    "pipelab.teaching.board.widget": ["draw_schedule", "puzzles"],
    "pipelab.teaching.explorer.widget": ["explore"],
    "pipelab.flow": ["Flow", "FlowCosts", "FlowReport", "Resource", "Stage"],
    "pipelab.models.split": ["SplitModel", "split_model"],
    "pipelab.runtime": ["Pipeline", "StepReport"],
    "pipelab.runtime.measuring.delayed": ["delayed_training"],
    "pipelab.runtime.mesh.tensor": ["sequence_parallel"],
    "pipelab.runtime.mesh.traffic": ["TrafficCounter"],
    "pipelab.runtime.processes.mesh": ["make_mesh"],
    "pipelab.runtime.checkpoint": ["Checkpoint", "export_safetensors", "newest_checkpoint"],
    "pipelab.teaching.design.trial": ["Trial", "try_schedule"],
    "pipelab.tuning": [
        "Adaptive",
        "Cluster",
        "CostProfile",
        "CutPlan",
        "ModelFacts",
        "Monitor",
        "check_configuration",
        "plan_cuts",
        "plan_parallelism",
        "plot_monitor",
        "plot_tuning",
        "profile_costs",
        "profile_layers",
        "shortlist",
        "tune",
    ],
    "pipelab.view.widgets.timeline_view": ["TimelineView"],
    "pipelab.view": ["plot_animation", "plot_prediction", "plot_schedules", "plot_table", "plot_timeline"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_HOME, "__version__"]  # noqa: PLE0604

if TYPE_CHECKING:
    from pipelab.errors import (
        ConfigurationError,
        DeadlockError,
        FlowError,
        LostProcessError,
        NonFiniteError,
        OutOfMemoryError,
        PipelabError,
        ScheduleError,
        ScheduleParseError,
        StageError,
        TimeLimitError,
    )
    from pipelab.flow import Flow, FlowCosts, FlowReport, Resource, Stage
    from pipelab.models.split import SplitModel, split_model
    from pipelab.runtime import Pipeline, StepReport
    from pipelab.runtime.checkpoint import Checkpoint, export_safetensors, newest_checkpoint
    from pipelab.runtime.measuring.delayed import delayed_training
    from pipelab.runtime.mesh.tensor import sequence_parallel
    from pipelab.runtime.mesh.traffic import TrafficCounter
    from pipelab.runtime.processes.mesh import make_mesh
    from pipelab.schedules import (
        Action,
        Schedule,
        TimeTable,
        Violation,
        build_schedule,
        check_schedule,
        why_blocked,
    )
    from pipelab.simulation import Costs, Link, Links, simulate
    from pipelab.simulation.search import Found, search_schedule
    from pipelab.teaching.board.breaker import break_schedule
    from pipelab.teaching.board.widget import draw_schedule, puzzles
    from pipelab.teaching.design.trial import Trial, try_schedule
    from pipelab.teaching.explorer.widget import explore
    from pipelab.timeline import Timeline, compare
    from pipelab.tuning import (
        Adaptive,
        Cluster,
        CostProfile,
        CutPlan,
        ModelFacts,
        Monitor,
        check_configuration,
        plan_cuts,
        plan_parallelism,
        plot_monitor,
        plot_tuning,
        profile_costs,
        profile_layers,
        shortlist,
        tune,
    )
    from pipelab.view import plot_animation, plot_prediction, plot_schedules, plot_table, plot_timeline
    from pipelab.view.widgets.timeline_view import TimelineView


def __getattr__(name: str) -> object:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pipelab' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
