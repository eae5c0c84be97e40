"""``pipelab shapes``: how to share a model among the devices of a cluster, by arithmetic."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelab.errors import ConfigurationError
from pipelab.simulation.links import Link
from pipelab.tuning.shapes.cluster import CLUSTERS, Cluster
from pipelab.tuning.shapes.planner import plan_parallelism
from pipelab.tuning.shapes.published import RUNS, published_run
from pipelab.tuning.shapes.shape import ORDERS, RECOMPUTE, SHARDING

__all__ = ["add_arguments", "run"]

_SIZES = ("layers", "width", "heads", "kv_heads", "ffn_width", "tokens", "vocabulary")
_WHOLE = (("dp", ""), ("pp", ""), ("tp", ""), ("microbatch", "b"), ("chunks", "v"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("model", metavar="RUN", help=f"a published run, with its model and cluster: {', '.join(RUNS)}")
    parser.add_argument("--as-published", action="store_true", help="with the options that this run had")
    parser.add_argument("--batch", type=int, metavar="N", help="sequences in a step")
    model = parser.add_argument_group("another model: what differs from that of the run")
    for name in _SIZES:
        model.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N")
    cluster = parser.add_argument_group("another cluster: what differs from that of the run")
    cluster.add_argument("--cluster", choices=sorted(CLUSTERS), help="devices and links of this kind")
    cluster.add_argument("--nodes", type=int, metavar="N")
    cluster.add_argument("--per-node", type=int, metavar="N", help="devices in a node")
    cluster.add_argument("--memory", metavar="X", help="of a device, such as 80GiB")
    cluster.add_argument("--usable", type=float, metavar="X", help="part of it that may be planned")
    cluster.add_argument("--peak", type=float, metavar="X", help="operations of a device per second")
    cluster.add_argument("--reached", type=float, metavar="X", help="part of it that products of matrices reach")
    cluster.add_argument("--memory-bandwidth", type=float, metavar="X", help="bytes per second")
    for prefix, where in (("", "inside a node"), ("between-", "between nodes")):
        cluster.add_argument(f"--{prefix}latency", type=float, metavar="T", help=f"{where}, in seconds")
        cluster.add_argument(f"--{prefix}bandwidth", type=float, metavar="X", help=f"{where}, in bytes per second")
    shape = parser.add_argument_group("what is fixed of the shape; several values are allowed")
    for name, symbol in _WHOLE:
        flags = [f"-{symbol}"] * bool(symbol) + [f"--{name}"]
        shape.add_argument(*flags, type=int, nargs="+", metavar="N")
    shape.add_argument("--recompute", nargs="+", choices=RECOMPUTE)
    shape.add_argument("--sharding", nargs="+", choices=SHARDING)
    shape.add_argument("--order", choices=ORDERS, help="how devices are numbered, innermost first")
    shape.add_argument("--no-sequence-parallel", action="store_true", help="norms are not split over tp")
    shape.add_argument("--no-overlap", action="store_true", help="messages between replicas do not hide behind work")
    parser.add_argument("--best", type=int, default=5, metavar="N", help="how many to show (default 5)")
    parser.add_argument("--json", metavar="FILE", help="write all figures as JSON; - for standard output")


def run(options: argparse.Namespace) -> int:
    """Plan and show."""
    if options.json not in (None, "-") and not Path(options.json).absolute().parent.is_dir():
        raise ConfigurationError(f"{options.json}: there is no folder {Path(options.json).parent}")
    published = published_run(options.model)
    model = replace(published.model, **_given(options, *_SIZES))
    named = ("recompute", "sharding", "order", *(name for name, _ in _WHOLE))
    fixed = {**(published.fixed if options.as_published else {}), **_given(options, *named)}
    fixed |= {"sequence_parallel": False} if options.no_sequence_parallel else {}
    fixed |= {"overlap": False} if options.no_overlap else {}
    batch = published.batch if options.batch is None else options.batch
    plan = plan_parallelism(model, _cluster(options, published.cluster), batch, best=options.best, **fixed)
    text = json.dumps(plan.to_json(), indent=2, allow_nan=False)
    if options.json == "-":
        print(text)
        return 0
    print(plan)
    if options.json:
        Path(options.json).write_text(text + "\n")
    return 0


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those options that were given."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _cluster(options: argparse.Namespace, cluster: Cluster) -> Cluster:
    """The run's, with what was given instead."""
    if options.cluster is not None:
        cluster = Cluster.of(options.cluster, cluster.nodes)
    links: dict[str, Any] = {}
    for name, latency, bandwidth in (
        ("inside", options.latency, options.bandwidth),
        ("between", options.between_latency, options.between_bandwidth),
    ):
        link: Link = getattr(cluster, name)
        links[name] = Link(
            link.latency if latency is None else latency, link.bandwidth if bandwidth is None else bandwidth
        )
    names = ("nodes", "per_node", "memory", "usable", "peak", "reached", "memory_bandwidth")
    return replace(cluster, **links, **_given(options, *names))
