"""Whether someone may sit before this kernel."""

from __future__ import annotations

__all__ = ["attended"]


def attended() -> bool:
    """False where a notebook is executed alone: nbconvert and nbval allow its cells no input, a browser does."""
    try:
        from IPython import get_ipython
    except ImportError:
        return True
    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is None or bool(getattr(kernel, "_allow_stdin", True))
