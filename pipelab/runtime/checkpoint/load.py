"""Reading a checkpoint: each process what lives there, checked before anything changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pipelab.errors import ConfigurationError
from pipelab.runtime.checkpoint.folder import Checkpoint, damaged, find_checkpoint, read_description
from pipelab.runtime.checkpoint.generators import require_random_state
from pipelab.runtime.checkpoint.plain import from_plain
from pipelab.runtime.checkpoint.tensors import TensorReader
from pipelab.runtime.peers import Peers
from pipelab.runtime.setup.by_name import TensorsByName

__all__ = ["Found", "read"]

_MODEL = "model."


@dataclass(frozen=True)
class Found:
    """What belongs to the stages, optimizers and generators of one process."""

    checkpoint: Checkpoint
    weights: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    random: dict[str, Any]


def read(
    peers: Peers, own: TensorsByName, folder: Path, known: set[str], processes: Sequence[str], *, learns: bool
) -> Found:
    """What of the checkpoint in ``folder`` belongs here; nothing is changed yet.

    ``known``: the names of the whole model's state; ``processes``: whose generators are set here; ``learns``: whether
    there are optimizers. Raises ConfigurationError in all processes if it does not fit in one.
    """
    path = Path(peers.agree(lambda: str(find_checkpoint(folder)) if peers.own[0] == 0 else "")[0])
    everyone = {name for names in peers.exchange(list(processes)) for name in names}
    return peers.agree_own(lambda: _read(path, own, known, processes, everyone, learns))


def _read(
    path: Path, own: TensorsByName, known: set[str], processes: Sequence[str], everyone: set[str], learns: bool
) -> Found:
    told, reader = read_description(path), TensorReader(path)
    names = _names(path, own, known, reader.shapes)
    try:
        return _found(path, told, reader, names, own, processes, everyone, learns)
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 (whoever has changed the description may have done anything to it)
        raise damaged(path, error) from None


def _found(
    path: Path,
    told: Mapping[str, Any],
    reader: TensorReader,
    names: Mapping[str, str],
    own: TensorsByName,
    processes: Sequence[str],
    everyone: set[str],
    learns: bool,
) -> Found:
    alike = {*told["random"], "caller"} == {*everyone, "caller"}
    picked = [name for name in processes if name in told["random"] and (alike or name == "caller")]
    optimizer = _of_optimizer(path, told["optimizer"], own) if learns else None
    plain = [told["data"], optimizer, {name: told["random"][name] for name in picked}]
    wanted = [_MODEL + name for name in names.values()]
    from_plain(plain, wanted.append)
    tensors = reader.read(wanted)
    data, optimizer, random = from_plain(plain, tensors.__getitem__)
    weights = {name: tensors[_MODEL + saved] for name, saved in names.items()}
    for state in random.values():
        require_random_state(state)
    if not isinstance(told["step_number"], int):
        raise TypeError(f"step_number is {told['step_number']!r}")
    return Found(Checkpoint(path, told["step_number"], data), weights, optimizer, random)


def _names(path: Path, own: TensorsByName, known: set[str], shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """What each tensor here is called in the checkpoint. Raises ConfigurationError if the two do not fit."""
    saved = {name.removeprefix(_MODEL): list(shape) for name, shape in shapes.items() if name.startswith(_MODEL)}
    aliases = own.aliases()
    names = {aliases.get(name, name): name for name in saved} | {name: name for name in saved if name not in aliases}
    held = dict(own.named_state())
    missing, strange = [name for name in held if name not in names], sorted({*names} - known)
    for odd, what in ((missing, "has no"), (strange, "also has")):
        if odd:
            more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
            raise ConfigurationError(
                f"the checkpoint {path} does not fit this model: it {what} '{odd[0]}'{more}; make the model as it was "
                f"saved{_stages_hint(odd)}"
            )
    for name, tensor in held.items():
        if list(tensor.shape) != saved[names[name]]:
            raise ConfigurationError(
                f"{name} is {list(tensor.shape)}, the checkpoint {path} has {saved[names[name]]}; make the model as it "
                "was saved"
            )
    return {name: names[name] for name in held}


def _stages_hint(odd: Iterable[str]) -> str:
    built = any(name.startswith("stages.") for name in odd)
    return ": parameters of build_stage(s) are called by s, so by as many stages" if built else ""


def _of_optimizer(path: Path, state: Any, own: TensorsByName) -> Any:
    """The state of those parameters that are here, with all that is small."""
    if state is None:
        raise ConfigurationError(
            f"the checkpoint {path} was saved without an optimizer, and this Pipeline has one; "
            "load(folder, optimizer=False) takes the weights and leaves the optimizer as it is"
        )
    here, aliases = {name for name, _ in own.named_parameters()}, own.aliases()
    kept = {name: held for name, held in state["state"].items() if aliases.get(name, name) in here}
    return {**state, "state": kept}
