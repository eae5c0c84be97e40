"""Static pictures of timelines. They draw; every figure in them is read off a Timeline."""

from pipelab.view.picture import Picture
from pipelab.view.prediction import plot_prediction
from pipelab.view.schedules import plot_schedules
from pipelab.view.table import plot_table
from pipelab.view.timeline import plot_timeline

__all__ = ["Picture", "plot_prediction", "plot_schedules", "plot_table", "plot_timeline"]
