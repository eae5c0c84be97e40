"""The stages of a flow as numbers: which resource each runs on, and whose results it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter

from pipelab.errors import ConfigurationError
from pipelab.flow.declare import Resource, Stage

__all__ = ["Layout", "nearest"]


def nearest(name: str, known: Sequence[str]) -> str:
    """What to say of a name that nobody knows: the one that was meant, or all that there are."""
    close = get_close_matches(str(name), known, 1, 0.5)
    return f"did you mean '{close[0]}'?" if close else f"there are {', '.join(map(repr, known))}"


@dataclass(frozen=True)
class Layout:
    """``on[s]`` is the resource of stage s, ``upstream[s]`` the stages whose results it takes, all by number.

    ``rows`` are the workers, resource by resource: (resource, name). ``order`` is one in which no stage comes before
    those whose results it takes.
    """

    stages: tuple[Stage, ...]
    resources: tuple[Resource, ...]
    on: tuple[int, ...]
    upstream: tuple[tuple[int, ...], ...]
    rows: tuple[tuple[int, str], ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, stages: Sequence[Stage]) -> Layout:
        """Raises ConfigurationError for names that nobody knows, or two have, and for stages in a circle."""
        for stage in stages:
            if not isinstance(stage, Stage):
                raise ConfigurationError(f"a flow is made of stages, got {stage!r}; try Stage('map', work, 'core')")
        if not stages:
            raise ConfigurationError("a flow needs at least one stage; try Flow(Stage('map', work, Resource('core')))")
        names = [stage.name for stage in stages]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigurationError(f"two stages are called '{twice}'; give each a name of its own")
        resources = _resources(stages)
        rows = tuple((r, row) for r, resource in enumerate(resources.values()) for row in resource.rows)
        called = [row for _, row in rows]
        twice = next((row for row in called if called.count(row) > 1), None)
        if twice is not None:
            raise ConfigurationError(f"two workers would be called '{twice}'; rename one of the resources")
        upstream = tuple(_upstream(stages, s, names) for s in range(len(stages)))
        return cls(
            tuple(stages),
            tuple(resources.values()),
            tuple(list(resources).index(s.on.name if isinstance(s.on, Resource) else s.on) for s in stages),
            upstream,
            rows,
            _order(upstream, names),
        )

    def number(self, name: str) -> int | None:
        """Of a stage, None if there is none of this name."""
        return next((s for s, stage in enumerate(self.stages) if stage.name == name), None)

    def workers(self, resource: int) -> tuple[int, ...]:
        """The rows of a resource."""
        return tuple(row for row, (own, _) in enumerate(self.rows) if own == resource)


def _resources(stages: Sequence[Stage]) -> dict[str, Resource]:
    found: dict[str, Resource] = {}
    for stage in stages:
        if isinstance(stage.on, Resource) and found.setdefault(stage.on.name, stage.on) != stage.on:
            raise ConfigurationError(
                f"'{stage.on.name}' is declared as {found[stage.on.name]} and as {stage.on}; "
                "declare it once and give its name to the other stages"
            )
    for stage in stages:
        if isinstance(stage.on, str) and stage.on not in found:
            hint = nearest(stage.on, list(found)) if found else f"try Resource('{stage.on}')"
            raise ConfigurationError(f"stage '{stage.name}' runs on '{stage.on}', which no stage declares; {hint}")
        resource = found[stage.on] if isinstance(stage.on, str) else stage.on
        if resource.bandwidth is not None and stage.size is None:
            raise ConfigurationError(
                f"stage '{stage.name}' runs on a {resource.kind} with a bandwidth, and does not say how many bytes a "
                "job moves; give size=len, or another function of its input"
            )
    return found


def _upstream(stages: Sequence[Stage], s: int, names: Sequence[str]) -> tuple[int, ...]:
    wanted = stages[s].upstream(names[s - 1] if s else None)
    for name in wanted:
        if name not in names:
            raise ConfigurationError(
                f"stage '{names[s]}' comes after '{name}', which no stage is; {nearest(name, names)}"
            )
    if len(set(wanted)) < len(wanted):
        raise ConfigurationError(f"stage '{names[s]}' names a stage twice in after={wanted}; name each once")
    return tuple(map(list(names).index, wanted))


def _order(upstream: Sequence[Sequence[int]], names: Sequence[str]) -> tuple[int, ...]:
    try:
        return tuple(TopologicalSorter(dict(enumerate(upstream))).static_order())
    except CycleError as error:
        ring = " after ".join(f"'{names[s]}'" for s in reversed(error.args[1]))
        raise ConfigurationError(f"stages come after each other in a circle: {ring}; let one take the items") from None
