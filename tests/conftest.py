"""The same examples on every run: a failure that was seen once can be seen again."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "pipelab",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pipelab")


def pytest_terminal_summary(terminalreporter):
    """Say once, also where -q hides it, why no browser test ran."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "browser" in report.keywords]
    for reason in {report.longrepr[2].removeprefix("Skipped: ") for report in skipped}:
        terminalreporter.write_line(reason)
