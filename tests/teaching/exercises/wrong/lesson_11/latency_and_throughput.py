from tests.teaching.exercises.wrong import Wrong

_RIGHT = {
    "latency": "sum(times)",
    "rate": "1 / max(times)",
    "speed_up": "n * sum(times) / (sum(times) + (n - 1) * max(times))",
    "stream_latency": "sum(times) + i * max(0, max(times) - every)",
}
_TAKES = {"speed_up": ", n", "stream_latency": ", i, every"}
_PARTS = {"latency": "alone", "rate": "alone", "speed_up": "speed-up", "stream_latency": "stream"}


def _but(function, says, value):
    text = "\n\n\n".join(
        f"def {name}(times{_TAKES.get(name, '')}):\n    return {value if name == function else right}"
        for name, right in _RIGHT.items()
    )
    return Wrong("latency_and_throughput", text, says=says, open=(_PARTS[function],))


WRONG = [
    _but("latency", "the time between two results", "max(times)"),
    _but("latency", "do not share one item's work", "sum(times) / len(times)"),
    _but("latency", "waits for nobody", "len(times) * max(times)"),
    _but("rate", "one item after the other", "1 / sum(times)"),
    _but("rate", "if all stages took the same time", "len(times) / sum(times)"),
    _but("rate", "the quickest stage", "1 / min(times)"),
    _but("rate", "one over it", "max(times)"),
    _but("rate", "rates do not add up", "sum(1 / time for time in times)"),
    _but("speed_up", "That is T_p / T_s", "(sum(times) + (n - 1) * max(times)) / (n * sum(times))"),
    _but("speed_up", "stages of equal length", "n * len(times) / (n + len(times) - 1)"),
    _but("speed_up", "counted the longest stage for all", "n * sum(times) / ((n + len(times) - 1) * max(times))"),
    _but("speed_up", "endless work", "len(times)"),
    _but("speed_up", "the limit for many items", "sum(times) / max(times) + 0 * n"),
    _but("speed_up", "One item too many", "n * sum(times) / (sum(times) + n * max(times))"),
    _but("speed_up", "all items run at once", "n"),
    _but("stream_latency", "Items come faster", "sum(times)"),
    _but("stream_latency", "counted from when it arrived, at", "sum(times) + i * max(times)"),
    _but("stream_latency", "That is when item i leaves", "i * every + sum(times) + i * max(0, max(times) - every)"),
    _but("stream_latency", "none of them waits", "sum(times) + i * (max(times) - every)"),
    _but("stream_latency", "Items are counted from 0", "sum(times) + (i + 1) * max(0, max(times) - every)"),
    _but("stream_latency", "one item after the other", "sum(times) + i * max(0, sum(times) - every)"),
    _but("stream_latency", "the first stage only", "sum(times) + i * max(0, times[0] - every)"),
    _but("stream_latency", "wait behind one item", "sum(times) + (i > 0) * max(0, max(times) - every)"),
]
