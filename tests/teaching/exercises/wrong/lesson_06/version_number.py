from tests.teaching.exercises.wrong import Wrong

_VERSION = """
def version(method, devices, stage, microbatch, every=1):
    p, s, i = devices, stage, microbatch
    if method == "2bw":
        return {bw}
    if method == "vertical-sync":
        return {sync}
    return {pipedream}
"""
_RIGHT = {"pipedream": "max(i - (p - 1 - s), 0)", "sync": "max(i - (p - 1), 0)", "bw": "max(i // every - 1, 0)"}


def _version(says, part, **changes):
    return Wrong("version_number", _VERSION.format(**{**_RIGHT, **changes}), says=says, open=(part,))


WRONG = [
    _version("There is none below 0", "pipedream", pipedream="i - (p - 1 - s)"),
    _version("one update too old", "pipedream", pipedream="max(i - (p - s), 0)"),
    _version("counts the stages before this one", "pipedream", pipedream="max(i - s, 0)"),
    _version("Some of their backwards have not run yet", "pipedream", pipedream="i"),
    _version("That is vertical sync", "pipedream", pipedream="max(i - (p - 1), 0)"),
    _version("The weights do change", "pipedream", pipedream="0"),
    _version(
        "before its first pair of a forward and a backward",
        "pipedream",
        pipedream="max(i - (p - 1 - s), 0) if i < p else i",
    ),
    _version("the one that the first stage used", "vertical-sync", sync="max(i - (p - 1 - s), 0)"),
    _version("one too old", "vertical-sync", sync="max(i - p, 0)"),
    _version("as if the batch before were over", "2bw", bw="i // every"),
    _version("because it counts micro-batches from 1", "2bw", bw="max((i - 1) // every - 1, 0)"),
    _version("not called even and odd", "2bw", bw="i // every % 2"),
    _version("only two versions are kept", "2bw", bw="max(i // every - 2, 0)"),
    _version("That is PipeDream's", "2bw", bw="max(i - (p - 1 - s), 0)"),
    Wrong(
        "version_number",
        """
def version(method, devices, stage, microbatch, every=1):
    from pipelab import build_schedule
    from pipelab.schedules.updates import versions
    return next(v for f, v in versions(build_schedule(method, devices, 9)).items() if f.stage == stage)
""",
        says="does not answer here",
    ),
]
