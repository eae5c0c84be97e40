"""What a Pipeline writes down to go on from later, and where: ``Pipeline.save`` and ``Pipeline.load``.

``step-00000012/`` holds the tensors as ``torch.distributed.checkpoint`` writes them, under ``model.NAME`` and
``optimizer.state.NAME.KEY`` with the unsplit model's names, and ``pipelab.json`` all that is no tensor. ``save`` and
``load`` are loaded when they are needed: torch.distributed.checkpoint takes a second.
"""

from pipelab.runtime.checkpoint.export import export_safetensors
from pipelab.runtime.checkpoint.folder import Checkpoint, newest_checkpoint

__all__ = ["Checkpoint", "export_safetensors", "newest_checkpoint"]
