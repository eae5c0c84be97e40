"""Where checkpoints are: in a folder each, beside one another, complete from the moment they have their name.

A draft is a hidden folder. It gets its name by one rename when all that is in it is on the disk, so that whatever has a
name is whole. A step that is saved again is ``step-00000012.1``: no rename puts one full folder in another's place.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelab.errors import ConfigurationError, PipelabError, whole_number

__all__ = [
    "DESCRIPTION",
    "FORMAT",
    "Checkpoint",
    "damaged",
    "drafted",
    "find_checkpoint",
    "newest_checkpoint",
    "publish",
    "read_description",
    "require_keep",
    "sync",
    "write_durably",
]

DESCRIPTION = "pipelab.json"
FORMAT = 2
"""Of what is written. In format 1 rows of ``qkv`` of TransformerLM lay in another order: all of q, then all of k."""
_NAME = re.compile(r"step-(\d{8,})(?:\.(\d+))?")


@dataclass(frozen=True)
class Checkpoint:
    """What was loaded: from where, the number of the next step, and what ``save`` was given as ``data``."""

    path: Path
    step_number: int
    data: Any = None


def newest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """The complete checkpoint in ``folder`` with the highest step number; None if there is none."""
    return next(reversed(_complete(Path(folder)).values()), None)


def find_checkpoint(folder: Path) -> Path:
    """``folder`` if it is a checkpoint itself, else the newest one in it. Raises ConfigurationError."""
    if (folder / DESCRIPTION).is_file():
        return folder
    newest = newest_checkpoint(folder)
    if newest is not None:
        return newest
    if not folder.is_dir():
        beside = newest_checkpoint(folder.parent)
        hint = f"; {beside} is the newest beside it" if beside else ""
        raise ConfigurationError(f"there is no folder {folder} to load from{hint}")
    if (folder / ".metadata").exists() or _NAME.fullmatch(folder.name):
        raise ConfigurationError(
            f"{folder} has no {DESCRIPTION}: it was not written by Pipeline.save, or not whole; of another program's "
            "checkpoint Pipeline.load_state_dict takes the weights"
        )
    half = ", only what a save had not finished" if any(folder.glob(".step-*")) else ""
    raise ConfigurationError(f"there is no checkpoint in {folder}{half}; Pipeline.save({str(folder)!r}) writes one")


def read_description(path: Path) -> dict[str, Any]:
    """What is no tensor. Raises ConfigurationError if this version cannot read it."""
    try:
        found = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
        number = found["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path, error) from None
    if number != FORMAT:
        hint = "update pipelab"
        if number == 1:
            hint = (
                "rows of qkv in TransformerLM lie in another order since, so train it anew; the weights of any other "
                "model are read by torch.distributed.checkpoint.load and taken by load_state_dict"
            )
        raise ConfigurationError(
            f"{path} is of format {number!r}, written by pipelab {found.get('pipelab')}; this one reads format "
            f"{FORMAT}: {hint}"
        )
    description: dict[str, Any] = found
    return description


def damaged(path: Path, error: BaseException) -> ConfigurationError:
    """What to raise for a checkpoint that has a name and cannot be read."""
    said = (str(error) or type(error).__name__).splitlines()[0]
    others = [other.name for other in _complete(path.parent).values() if other.name != path.name]
    hint = f"; beside it: {', '.join(reversed(others))}" if others else ""
    return ConfigurationError(f"the checkpoint {path} is damaged: {type(error).__name__}, {said}{hint}")


def require_keep(keep: Any) -> None:
    """Raise ConfigurationError unless it is a number of checkpoints, or None for all."""
    if keep is not None:
        whole_number("keep", "", keep)


@contextmanager
def drafted(folder: Path, number: int) -> Iterator[Path]:
    """A new hidden folder for step ``number``; what is left of it in the end is removed.

    What earlier saves have left half-written is removed first: while this one has the lock, none of them is running.
    Raises PipelabError if one is, ConfigurationError if no folder can be made there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be made a folder for checkpoints: {error.strerror}; try one that is yours, such as 'run'"
        ) from None
    with _locked(folder) as alone:
        for left in folder.glob(".step-*") if alone else ():
            shutil.rmtree(left, ignore_errors=True)
        draft = folder / f".step-{number:08d}.{secrets.token_hex(4)}"
        draft.mkdir()
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def publish(draft: Path, number: int, keep: int | None) -> Path:
    """Give ``draft`` its name; then remove those before it, but the last ``keep`` with it."""
    folder = draft.parent
    again = [revision for step, revision in _names(folder) if step == number]
    path = folder / (f"step-{number:08d}" + (f".{max(again) + 1}" if again else ""))
    sync(draft)
    os.rename(draft, path)
    sync(folder)
    try:
        _remove_older(path, keep)
    except OSError as error:
        warnings.warn(f"{path} is saved, but an older checkpoint could not be removed: {error}", stacklevel=2)
    return path


def write_durably(path: Path, data: bytes) -> None:
    """A file that is on the disk when this returns."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Names in ``folder`` are on the disk when this returns."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _names(folder: Path) -> dict[tuple[int, int], Path]:
    """By (step, how often it had been saved before), in this order."""
    matches = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()] if folder.is_dir() else []
    found = {(int(match[1]), int(match[2] or 0)): path for match, path in matches if match}
    return dict(sorted(found.items()))


def _complete(folder: Path) -> dict[int, Path]:
    """By step, in this order."""
    return {step: path for (step, _), path in _names(folder).items() if (path / DESCRIPTION).is_file()}


def _remove_older(path: Path, keep: int | None) -> None:
    """Of a step that was saved twice the last one counts; checkpoints of later steps than this are left alone."""
    before = [other for other in _names(path.parent).items() if other[0] <= _key(path)]
    last = {step: other for (step, _), other in before}
    kept = [*last.values()][-(keep or len(last)) :]
    for _, other in before:
        if other not in kept:
            hidden = path.parent / f".{other.name}.{secrets.token_hex(4)}"
            os.rename(other, hidden)  # a crash in the middle leaves no half one with a name
            shutil.rmtree(hidden)


def _key(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """The one save in ``folder``: True, or False where the file system has no locks. Ends with the process."""
    import fcntl

    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise PipelabError(
                    f"another Pipeline is saving into {folder} at this moment; give each run a folder of its own"
                ) from None
            yield False
            return
        try:
            yield True
        finally:  # a child that was forked meanwhile would hold it
            fcntl.flock(file, fcntl.LOCK_UN)
