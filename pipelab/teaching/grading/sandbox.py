"""Executes one slice of a submission with nbval, in a temporary folder, within limits. Nothing stays behind.

::

    folder/nb/slice.ipynb    the notebook alone; it runs here and cannot be imported
    folder/lib/pipelab       a copy of the package; what a submission does to it is gone with the folder
    folder/home              its home
    folder/out/              what the recorder writes: the kernel's process number, answers
"""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import resource
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_notebook

from pipelab.teaching.course.build import KERNEL

__all__ = ["PACKAGE", "Outcome", "Slice", "copy_package", "run_slice"]

PACKAGE = Path(__file__).resolve().parents[2]
TRIES, STARTUP = 3, 25.0  # seconds in which a kernel has to come up
LARGEST = 20_000_000  # bytes of answers that are read back
_MARK = "PIPELAB_SLICE"
# jsonschema, which nbval loads, would spend a second on the grammar of a format that no notebook has.
_PYTEST = "import sys; sys.modules['rfc3987_syntax'] = None; import pytest; sys.exit(pytest.main())"
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV", "TZ")
_FILE, _MEMORY, _NBVAL = 200_000_000, 8 * 2**30, 2 * 2**30  # bytes; a kernel may use more memory than nbval


@dataclass(frozen=True)
class Slice:
    """What is run: the trusted setup, the submission's cells, and the cases to record."""

    exercise: str
    setup: tuple[str, ...]
    cells: tuple[str, ...]
    cases: tuple[tuple[str, Mapping[str, Any]], ...]


@dataclass(frozen=True)
class Outcome:
    """The answers that came back, one per case; ``ended`` says why some are missing, "" if all came.

    ``ended`` is "time" (limit reached), "kernel" (its process ended), "silent" (it ran on but wrote less) or "start"
    (no kernel started). Two kernels that start at the same time may choose the same port, so "start" is tried again.
    """

    answers: tuple[Mapping[str, Any], ...]
    ended: str = ""
    raised: str = ""
    seconds: float = 0.0


def copy_package(package: Path, folder: Path) -> Path:
    """A copy of the package's sources in ``folder``, compiled there: many processes will import it."""
    copied = Path(shutil.copytree(package, folder / "pipelab", ignore=shutil.ignore_patterns("__pycache__")))
    compileall.compile_dir(copied, quiet=2, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    return copied


def run_slice(slice_: Slice, *, package: Path = PACKAGE, seconds: float) -> Outcome:
    """Run a slice in a kernel of its own, with a copy of ``package``, for at most ``seconds``."""
    began = time.monotonic()
    for _ in range(TRIES):
        answers, raised, ended = _try(slice_, package, seconds)
        if ended != "start":
            break
    complete = len(answers) == len(slice_.cases)
    return Outcome(tuple(answers), "" if complete else ended, raised, time.monotonic() - began)


def _try(slice_: Slice, package: Path, seconds: float) -> tuple[list[Mapping[str, Any]], str, str]:
    with tempfile.TemporaryDirectory(prefix="pipelab-grade-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for part in ("nb", "lib", "home", "out"):
            (folder / part).mkdir()
        shutil.copytree(package, folder / "lib" / "pipelab")
        nbformat.write(_notebook(slice_, folder / "out"), folder / "nb" / "slice.ipynb")
        ended = _execute(folder, seconds)
        return *_read(folder / "out" / "answers", len(slice_.cases)), ended


def _notebook(slice_: Slice, out: Path) -> Any:
    begin = f"from pipelab.teaching.grading.recorder import begin as _begin; _begin({str(out)!r})"
    record = (
        "import json as _json\nfrom pipelab.teaching.grading.recorder import ask_all as _ask_all\n"
        f"_ask_all({slice_.exercise!r}, globals(), _json.loads({json.dumps(slice_.cases)!r}), {str(out)!r})"
    )
    cells = [new_code_cell(text) for text in (begin, *slice_.setup, *slice_.cells, record)]
    return new_notebook(cells=cells, metadata={"kernelspec": KERNEL})


def _execute(folder: Path, seconds: float) -> str:
    """Run nbval on the slice. Returns how it ended: see ``Outcome``."""
    mark = secrets.token_hex(16)
    (folder / "lib" / "pytest.ini").write_text("[pytest]\n")
    command = [
        *(sys.executable, "-P", str(PACKAGE / "teaching" / "grading" / "supervise.py")),
        *(sys.executable, "-P", "-c", _PYTEST),
        *("-q", "--noconftest", "-p", "nbval.plugin", "-p", "no:cacheprovider"),
        *("-c", str(folder / "lib" / "pytest.ini"), "--rootdir", str(folder / "nb")),
        *("--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={max(1, round(seconds))}"),
        str(folder / "nb" / "slice.ipynb"),
    ]
    with open(folder / "out" / "log", "wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder / "home",
            env=_environment(folder, mark),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _limit(process.pid)
            return _watch(process, folder / "out", seconds)
        finally:
            _end_all(process, mark)


def _watch(process: subprocess.Popen[bytes], out: Path, seconds: float) -> str:
    """Wait for the end, for the time limit, or until the kernel's process is gone while nbval waits for it."""
    deadline = time.monotonic() + seconds
    gone_since = None
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
            return "silent" if _kernel(out) is not None else "start"
        now = time.monotonic()
        if now > deadline:
            return "time"
        pid = _kernel(out)
        if pid is None and now > deadline - seconds + STARTUP:
            return "start"  # nbval would go on waiting for a kernel that found its port taken
        if pid is not None and not _lives(pid):
            gone_since = gone_since or now
            if now - gone_since > 3:
                return "kernel"


def _kernel(out: Path) -> int | None:
    try:
        return int(_read_plainly(out / "kernel", 20))
    except (OSError, ValueError):
        return None


def _read_plainly(path: Path, most: int) -> str:
    """At most ``most`` bytes of a plain file. Raises OSError for links, pipes and whatever else a submission left."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(f"{path} is not a plain file")
        return file.read(most).decode("utf-8", "replace")


def _lives(pid: int) -> bool:
    try:
        return _is_left(psutil.Process(pid))
    except (psutil.Error, ValueError, OverflowError):
        return False


def _is_left(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _environment(folder: Path, mark: str) -> dict[str, str]:
    """Little of ours: no configuration, no secrets of whoever grades, one core each."""
    home = str(folder / "home")
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return kept | {
        _MARK: mark,
        "HOME": home,
        "TMPDIR": home,
        "IPYTHONDIR": f"{home}/ipython",
        "JUPYTER_CONFIG_DIR": f"{home}/config",
        "JUPYTER_DATA_DIR": f"{home}/data",
        "JUPYTER_RUNTIME_DIR": f"{home}/runtime",
        "MPLCONFIGDIR": f"{home}/matplotlib",
        "PYTHONPATH": str(folder / "lib"),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "JUPYTER_PLATFORM_DIRS": "1",
    }


def _limit(pid: int) -> None:
    """Where the system can (Linux): no file and no memory beyond what an exercise has use for. Kernels inherit it."""
    if hasattr(resource, "prlimit"):
        limits = [(resource.RLIMIT_FSIZE, _FILE, _FILE), (resource.RLIMIT_DATA, _NBVAL, _MEMORY)]
        for kind, soft, hard in (*limits, (resource.RLIMIT_CORE, 0, 0)):
            with contextlib.suppress(OSError, ValueError):
                resource.prlimit(pid, kind, (soft, hard))


def _end_all(process: subprocess.Popen[bytes], mark: str) -> None:
    """End nbval, the kernel, and whatever either has started: by its supervisor, then by the mark that is inherited."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=15)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(3):
        left = list(_marked(mark))
        if not left:
            return
        for other in left:
            with contextlib.suppress(psutil.Error):
                other.kill()
        psutil.wait_procs(left, timeout=2)


def _marked(mark: str) -> Iterator[psutil.Process]:
    for other in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if other.status() != psutil.STATUS_ZOMBIE and other.environ().get(_MARK) == mark:
                yield other


def _read(path: Path, count: int) -> tuple[list[Mapping[str, Any]], str]:
    """The answers as far as they were written; lines of another form end them."""
    answers: list[Mapping[str, Any]] = []
    raised = ""
    try:
        text = _read_plainly(path, LARGEST)
    except OSError:
        return answers, raised
    for line in text.split("\n"):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(found, dict) or len(answers) == count:
            break
        if "raised" in found:
            raised = str(found["raised"])[:300]
        elif "refused" in found or "data" in found:
            answers.append(found)
    return answers, raised
