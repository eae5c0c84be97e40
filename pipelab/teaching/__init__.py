"""Everything that teaches, and the module that pages import.

``from pipelab.teaching import *`` gives a lesson all the names that it uses: those of the package, the model and its
text, and functions that only pages use (``predict``, ``reveal``, ``check``). Each is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "pipelab": [
        "Action",
        "Adaptive",
        "Cluster",
        "ConfigurationError",
        "CostProfile",
        "Costs",
        "Flow",
        "FlowError",
        "Link",
        "Links",
        "ModelFacts",
        "Monitor",
        "OutOfMemoryError",
        "Pipeline",
        "Resource",
        "Schedule",
        "ScheduleError",
        "Stage",
        "TimeTable",
        "TimelineView",
        "break_schedule",
        "build_schedule",
        "check_schedule",
        "compare",
        "delayed_training",
        "draw_schedule",
        "explore",
        "plan_cuts",
        "plan_parallelism",
        "plot_monitor",
        "plot_prediction",
        "plot_schedules",
        "plot_table",
        "plot_timeline",
        "plot_tuning",
        "profile_costs",
        "profile_layers",
        "puzzles",
        "search_schedule",
        "shortlist",
        "simulate",
        "try_schedule",
        "tune",
        "why_blocked",
    ],
    "pipelab.teaching.machine": ["examine"],
    "pipelab.models": ["TransformerLM", "cut_layers", "cut_model", "next_byte_loss", "text_batch"],
    "pipelab.runtime": ["gradient_error", "unsplit_gradients"],
    "pipelab.schedules.updates": ["ages", "over", "versions"],
    "pipelab.schedules.warmups": ["with_warmups"],
    "pipelab.simulation": ["SlotCosts"],
    "pipelab.teaching.claims.claim": ["Claim"],
    "pipelab.teaching.claims.verdicts": ["Verdicts"],
    "pipelab.teaching.design.goal": ["Goal"],
    "pipelab.teaching.design.leaderboard": ["Leaderboard"],
    "pipelab.teaching.design.story": ["tell_story"],
    "pipelab.teaching.exercises.lesson_04.depths": ["with_depths"],
    "pipelab.teaching.exercises.lesson_05.forecasts": ["forecasts"],
    "pipelab.teaching.exercises.lesson_08.monitored": ["recorded_run"],
    "pipelab.teaching.running.experiment": ["Setting"],
    "pipelab.teaching.explorer.lifetimes": ["plot_lives"],
    "pipelab.teaching.running.family": ["family_table", "measure_family"],
    "pipelab.teaching.flows.hospitals": [
        "Federated",
        "Split",
        "accuracy",
        "batch_of",
        "hospital_data",
        "network",
        "recover",
    ],
    "pipelab.teaching.flows.pictures": ["digits", "plot_pictures"],
    "pipelab.teaching.flows.risk": ["closed_form", "make_book", "scenarios", "tail", "value", "value_at_risk"],
    "pipelab.teaching.flows.serving": ["Served", "requests"],
    "pipelab.teaching.flows.genome": [
        "READ",
        "Index",
        "make_genome",
        "merge",
        "pack",
        "read_region",
        "unpack",
        "write_block",
        "write_reads",
    ],
    "pipelab.teaching.flows.parareal": ["Diffusion", "Parareal"],
    "pipelab.teaching.flows.shots": ["plot_shots"],
    "pipelab.teaching.flows.video": [
        "coding_order",
        "decode",
        "decode_video",
        "estimate_motion",
        "make_scene",
        "psnr",
        "quantise",
        "transform",
    ],
    "pipelab.teaching.grading.check": ["NotWritten", "check"],
    "pipelab.teaching.guesses": ["ledger", "predict", "reveal"],
    "pipelab.teaching.parallelism.meshes": ["mesh_table", "run_meshes"],
    "pipelab.teaching.parallelism.ways": ["plot_parallelism"],
    "pipelab.teaching.without_flush.lifetimes": ["plot_lives"],
    "pipelab.tuning.lines": ["fit_line"],
    "pipelab.tuning.messages": ["message_times"],
    "pipelab.view": ["plot_curves"],
    "IPython.display": ["display"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pipelab.teaching' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
