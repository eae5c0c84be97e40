"""The same examples on every run: a failure that was seen once can be seen again."""

import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

# A shell starts what it puts in the background deaf to interrupts; some tests interrupt themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

sys.modules.setdefault("rfc3987_syntax", None)  # as the command line does: see pipelab/__main__.py

settings.register_profile(
    "pipelab",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pipelab")


def _encodable(told):
    """What xdist can carry: a lone surrogate in a failure's text ended the whole run, and the test's name was lost."""
    if isinstance(told, dict):
        return {_encodable(key): _encodable(value) for key, value in told.items()}
    if isinstance(told, (list, tuple)):
        return type(told)(map(_encodable, told))
    return told.encode("utf-8", "backslashreplace").decode() if isinstance(told, str) else told


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable():
    return _encodable((yield))


def pytest_terminal_summary(terminalreporter):
    """Say once, also where -q hides it, why no browser test ran."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "browser" in report.keywords]
    for reason in {report.longrepr[2].removeprefix("Skipped: ") for report in skipped}:
        terminalreporter.write_line(reason)
