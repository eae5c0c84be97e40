"""Really runs a schedule: ``Pipeline``, the worker loop, stages, channels, clocks, memory accounting, launchers."""

from pipelab.runtime.measuring.reference import Reference, gradient_error, unsplit_gradients
from pipelab.runtime.pipeline import Pipeline
from pipelab.runtime.report import StepReport

__all__ = ["Pipeline", "Reference", "StepReport", "gradient_error", "unsplit_gradients"]
