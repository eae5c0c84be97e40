"""The schedule explorer: settings to change, what they mean, and a widget that shows it.

Settings, figures, curves and the nearest possible settings need neither torch nor a browser.
"""

from pipelab.teaching.explorer.figures import Figure, figures
from pipelab.teaching.explorer.nearest import Offer, Problem, problem_of
from pipelab.teaching.explorer.settings import Settings

__all__ = ["Figure", "Offer", "Problem", "Settings", "figures", "problem_of"]
