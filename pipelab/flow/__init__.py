"""Pipelines of any work: stages are functions on resources, items stream through, and the result is a ``Timeline``."""

from pipelab.errors import FlowError
from pipelab.flow.costs import FlowCosts
from pipelab.flow.declare import Resource, Stage
from pipelab.flow.flow import Flow
from pipelab.flow.report import FlowReport

__all__ = ["Flow", "FlowCosts", "FlowError", "FlowReport", "Resource", "Stage"]
