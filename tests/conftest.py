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
