"""Which torch device each pipeline device computes on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipelab.errors import ConfigurationError

__all__ = ["DeviceChoice", "choose_devices"]

DeviceChoice = str | torch.device | Sequence[str | torch.device] | None


def choose_devices(choice: DeviceChoice, devices: int) -> tuple[torch.device, ...]:
    """One torch device per pipeline device.

    None: a GPU each where there are enough, the GPUs there are in contiguous shares where there are fewer, else the
    CPU. ``"cpu"`` or ``"cuda:0"``: that one for all. ``"cuda"``: a GPU each. A sequence: one entry each.
    Raises ConfigurationError if a GPU is asked for that is not there.
    """
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if choice is None or choice == "auto":
        if not present:
            return (torch.device("cpu"),) * devices
        return tuple(torch.device("cuda", r if present >= devices else r * present // devices) for r in range(devices))
    if isinstance(choice, str | torch.device):
        one = _parse(choice)
        if one.type == "cuda" and one.index is None:
            if present < devices:
                here = "none is present" if not present else f"only {present} present"
                nearest = "device='cuda:0' puts all stages on one GPU" if present else "use device='cpu'"
                raise ConfigurationError(f"device='cuda' asks for {devices} GPUs, one per device; {here}; {nearest}")
            return tuple(torch.device("cuda", r) for r in range(devices))
        chosen = (one,) * devices
    else:
        if not isinstance(choice, Sequence):
            raise ConfigurationError(f"device must be a name or one name per device, got {choice!r}; try 'cuda:0'")
        chosen = tuple(_parse(entry) for entry in choice)
        if len(chosen) != devices:
            raise ConfigurationError(
                f"the schedule has {devices} devices, but {len(chosen)} torch devices were given: "
                f"{', '.join(map(str, chosen))}"
            )
    for device in chosen:
        if device.type == "cuda" and (device.index or 0) >= present:
            here = "no GPU is present" if not present else f"there are GPUs 0..{present - 1}"
            raise ConfigurationError(
                f"{device} was asked for, but {here}; use device='cpu'"
                if not present
                else f"{device} was asked for, but {here}"
            )
    return tuple(torch.device("cuda", d.index or 0) if d.type == "cuda" else d for d in chosen)


def _parse(entry: str | torch.device) -> torch.device:
    try:
        device = torch.device(entry)
    except (RuntimeError, TypeError):
        raise ConfigurationError(f"{entry!r} is not a torch device; write 'cpu', 'cuda' or 'cuda:0'") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigurationError(f"stages run on 'cpu' or 'cuda', not on {str(device)!r}")
    return device
