"""What all widgets of pipelab share: their page of JavaScript, a static picture beside them, and a link that answers.

The browser asks with messages ``{"id": ..., "do": name, ...}``; each is answered by ``{"answers": id}`` once what it
asked for is done and ``view``, from which the browser draws, is up to date. A mistake in what was asked is answered
with a sentence, never with a traceback.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.view.picture import Picture
from pipelab.view.widgets.attendance import attended

try:
    import anywidget
    import traitlets
except ImportError as missing:
    raise ConfigurationError(
        f"widgets need {missing.name}, which is not installed here: pip install 'pipelab[lab]'; pictures "
        "(plot_timeline) work without it"
    ) from None

__all__ = ["PipelabWidget"]

_SCRIPTS = (
    "base",
    "canvas",
    "play",
    "links",
    "timeline",
    "runs",
    "curve",
    "explorer",
    "board",
    "breaker",
    "monitor",
    "entry",
)


@cache
def script() -> str:
    """The widgets' one ES module: small files, one after the other, so that nothing has to be built or fetched."""
    folder = resources.files("pipelab.view.widgets") / "static"
    return "\n".join((folder / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)


@cache
def styles() -> str:
    """Their style sheet."""
    return (resources.files("pipelab.view.widgets") / "static" / "pipelab.css").read_text(encoding="utf-8")


class PipelabWidget(anywidget.AnyWidget):
    """A widget with a static picture in the same output: shown where widgets do not run.

    Where nobody is there to touch it, the output is the picture alone. An exported page that held the widget's state
    too would show that instead, and fetch what draws it from the network.

    ``view`` is all that the browser draws from, as JSON text (one long text travels faster than a deep tree); ``kind``
    says which of the script's widgets it is.
    """

    _esm = script()
    _css = styles()
    kind = traitlets.Unicode().tag(sync=True)
    view = traitlets.Unicode("{}").tag(sync=True)

    def __init__(self, kind: str, view: dict[str, Any]) -> None:
        super().__init__(kind=kind, view=json.dumps(view))
        self._lock = threading.RLock()
        self.on_msg(self._received)

    def open(self) -> None:
        """Tell the browser about this widget, if there may be one."""
        if attended():
            super().open()

    def show(self, view: dict[str, Any]) -> None:
        """Draw ``view`` in every browser that looks."""
        self.view = json.dumps(view)

    def picture(self) -> Picture:
        """What it shows now, as a static picture."""
        raise NotImplementedError

    def save(self, kind: str) -> Path:
        """Write what is shown beside the notebook; returns the file's path."""
        raise NotImplementedError

    def _without_widgets(self) -> Any:
        """What stands for it where widgets do not run."""
        return self.picture()

    def _commands(self) -> dict[str, Callable[[dict[str, Any]], str | None]]:
        """What the browser may ask for, by name: each gets the message, and may answer with a sentence."""
        return {"save": lambda message: f"Saved as {self.save(str(message['kind'])).name}, beside this notebook."}

    def _received(self, _: Any, content: Any, buffers: Any = None) -> None:
        if not isinstance(content, dict):
            return
        answer: dict[str, Any] = {"answers": content.get("id")}
        asked = str(content.get("do"))[:40]
        work = self._commands().get(asked)
        said: str | None = None
        try:
            with self._lock:
                said = f"this widget does not know '{asked}'" if work is None else work(content)
        except PipelabError as error:
            said = str(error)
        except (KeyError, TypeError, ValueError, OverflowError):
            said = f"That was not understood: '{asked}' with something missing or out of place."
        except Exception as error:  # noqa: BLE001 (a page shows a sentence; the traceback is no use there)
            said = f"That did not work: {type(error).__name__}: {error}"
        finally:  # also where the kernel was interrupted: a question without an answer would be waited for
            if said:
                answer["said"] = said
            self.send(answer)

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None, **_: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        shown = super()._repr_mimebundle_() if self.comm is not None else None
        data, metadata = shown if shown is not None else ({}, {})
        fixed = self._without_widgets()._repr_mimebundle_(include, exclude)
        fixed.pop("image/png", None)
        return {**data, **fixed}, metadata
