"""Choosing m, v, schedule and recomputation under a memory limit, or the shape of a cluster; and a monitor."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_HOMES = {
    "pipelab.tuning.lines": ["Line", "fit_line"],
    "pipelab.tuning.profile": ["CostProfile", "ProfileCosts", "StageProfile"],
    "pipelab.tuning.measure": ["profile_costs", "profile_layers"],
    "pipelab.tuning.adaptive": ["Adaptive", "Decision"],
    "pipelab.tuning.advice": ["check_configuration"],
    "pipelab.tuning.candidates": ["Candidate", "Forecast"],
    "pipelab.tuning.monitor.monitor": ["Monitor"],
    "pipelab.tuning.monitor.picture": ["plot_monitor"],
    "pipelab.tuning.monitor.summary": ["MonitorSummary"],
    "pipelab.tuning.picture": ["plot_tuning"],
    "pipelab.tuning.planning.plan": ["CutPlan", "plan_cuts"],
    "pipelab.tuning.result": ["Measurement", "Tuning"],
    "pipelab.tuning.shapes.cluster": ["Cluster"],
    "pipelab.tuning.shapes.facts": ["ModelFacts"],
    "pipelab.tuning.shapes.planner": ["plan_parallelism"],
    "pipelab.tuning.shapes.result": ["ParallelismPlan"],
    "pipelab.tuning.tuner": ["shortlist", "tune"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_HOME]  # noqa: PLE0604

if TYPE_CHECKING:
    from pipelab.tuning.adaptive import Adaptive, Decision
    from pipelab.tuning.advice import check_configuration
    from pipelab.tuning.candidates import Candidate, Forecast
    from pipelab.tuning.lines import Line, fit_line
    from pipelab.tuning.measure import profile_costs, profile_layers
    from pipelab.tuning.monitor.monitor import Monitor
    from pipelab.tuning.monitor.picture import plot_monitor
    from pipelab.tuning.monitor.summary import MonitorSummary
    from pipelab.tuning.picture import plot_tuning
    from pipelab.tuning.planning.plan import CutPlan, plan_cuts
    from pipelab.tuning.profile import CostProfile, ProfileCosts, StageProfile
    from pipelab.tuning.result import Measurement, Tuning
    from pipelab.tuning.shapes.cluster import Cluster
    from pipelab.tuning.shapes.facts import ModelFacts
    from pipelab.tuning.shapes.planner import plan_parallelism
    from pipelab.tuning.shapes.result import ParallelismPlan
    from pipelab.tuning.tuner import shortlist, tune


def __getattr__(name: str) -> object:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pipelab.tuning' has no attribute '{name}'")
