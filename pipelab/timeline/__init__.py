"""WHEN it ran: ``Timeline``, every figure taken from it, two of them compared, and who waited for what."""

from pipelab.timeline.compare import Comparison, compare
from pipelab.timeline.messages import Overlap
from pipelab.timeline.spans import Gap, Holding, Message, Span
from pipelab.timeline.timeline import CLOCKS, Timeline

__all__ = ["CLOCKS", "Comparison", "Gap", "Holding", "Message", "Overlap", "Span", "Timeline", "compare"]
