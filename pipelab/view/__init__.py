"""Static pictures of timelines. They draw; every figure in them is read off a Timeline.

matplotlib is loaded with the first that is asked for: what judges answers, or sends scenes to a browser, draws seldom.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelab.view.curves import plot_curves
    from pipelab.view.picture import Picture
    from pipelab.view.prediction import plot_prediction
    from pipelab.view.schedules import plot_schedules
    from pipelab.view.table import places_of, plot_table
    from pipelab.view.timeline import plot_timeline
    from pipelab.view.widgets.animation import plot_animation

_HOMES = {
    "Picture": "picture",
    "places_of": "table",
    "plot_animation": "widgets.animation",
    "plot_curves": "curves",
    "plot_prediction": "prediction",
    "plot_schedules": "schedules",
    "plot_table": "table",
    "plot_timeline": "timeline",
}

__all__ = [
    "Picture",
    "places_of",
    "plot_animation",
    "plot_curves",
    "plot_prediction",
    "plot_schedules",
    "plot_table",
    "plot_timeline",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
