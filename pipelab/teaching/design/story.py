"""The story of a schedule: a page to keep or to hand in, with picture, figures and the proof of its gradient."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from pipelab.errors import ConfigurationError
from pipelab.quantities import format_time
from pipelab.teaching.design.goal import Goal, Rating
from pipelab.teaching.design.leaderboard import Leaderboard
from pipelab.teaching.design.paper import html_page, html_table, keep, shown
from pipelab.timeline.spans import Gap

if TYPE_CHECKING:
    from pipelab.teaching.design.trial import Trial
    from pipelab.view.picture import Picture

__all__ = ["Story", "tell_story"]

_GAPS = 3
_STYLE = "pre { overflow-x: auto; font-size: 13px; line-height: 1.35 }"


@dataclass(frozen=True)
class Story:
    """A schedule, its proof, and what it is compared with. A notebook shows it in words and as a picture.

    ``searched`` is what a search of the same goal found; None where nothing fits.
    """

    rating: Rating
    trial: Trial
    searched: Rating | None

    @property
    def name(self) -> str:
        """Of the schedule."""
        return self.rating.schedule.name

    def sentences(self) -> list[str]:
        """What there is to say."""
        return [*self.rating.sentences(), *self._beside_search(), *str(self.trial).splitlines()]

    def _beside_search(self) -> list[str]:
        if self.searched is None:
            return ["A search found nothing that fits."]
        mine, found = self.rating.makespan, self.searched.makespan
        takes = format_time(found, self.rating.timeline.unit)
        gain = 1 - mine / found
        by = "as long" if abs(gain) < 1e-9 else f"{abs(gain):.1%} {'less' if gain > 0 else 'more'}"
        return [f"A search found a schedule that takes {takes}; this takes {by}."]

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def picture(self) -> Picture:
        """It, above the fastest of the catalogue that fits, on one time axis."""
        from pipelab.view.schedules import plot_schedules

        both = [one for one in (self.rating, self.rating.goal.best) if one is not None]
        return plot_schedules([one.timeline for one in both], [one.schedule.name for one in both], memory=True)

    def html(self) -> str:
        """The page: it needs no other file."""
        rating, goal = self.rating, self.rating.goal
        rows = goal.ranked(rating, *([self.searched] if self.searched is not None else []))
        own = [number for number, one in enumerate(rows) if one is rating]
        gaps = sorted(rating.timeline.gaps(), key=lambda gap: gap.start - gap.end)[:_GAPS]
        table = rating.schedule
        parts = [
            f"<h1>{escape(self.name)}</h1>",
            _paragraph("The goal", [str(goal)]),
            _paragraph("What it reaches", rating.sentences()),
            _image(self.picture()),
            _paragraph("The longest gaps", [_gap(rating, gap) for gap in gaps] or ["No device ever idles."]),
            _paragraph("It trains", str(self.trial).splitlines()),
            _image(self.trial.picture()),
            _paragraph("Beside others", self._beside_search()),
            html_table(goal.heads, [one.row() for one in rows], own),
            _paragraph("The table", ["One row for each device, in the order in which it runs."]),
            f"<pre>{escape(table.to_grid())}</pre>",
            "<p>The same as CSV, which <code>pipelab check</code> and <code>pipelab run</code> read:</p>",
            f"<pre>{escape(table.to_csv())}</pre>",
        ]
        return html_page(escape(f"The story of {self.name}"), "".join(parts), _STYLE)

    def save(self, path: Path | str | None = None) -> Path:
        """Write the page; returns its path. By default it stands beside the leaderboard's file of this schedule.

        There nothing is written over. Raises ConfigurationError for a path that does not end in .html.
        """
        if path is None:
            return keep(self.html(), f"{self.name}.html", Leaderboard.here().folder)
        path = Path(path)
        if path.suffix.lower() not in (".html", ".htm"):
            raise ConfigurationError(
                f"a story is an HTML page, got '{path.name}'; try '{path.with_suffix('.html').name}'"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.html(), encoding="utf-8")
        return path

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        return shown(str(self), self.picture(), include, exclude)


def tell_story(
    goal: Goal, schedule: object, name: str = "mine", *, trial: Trial | None = None, seconds: float = 4.0
) -> Story:
    """Rate a schedule, train the 48-layer model by it, and search for ``seconds``.

    ``schedule`` is as for ``goal.rate``. ``trial``: what ``prove`` returned for it, if that has been done already.

    Raises ConfigurationError or ScheduleError for a schedule that is none for this goal.
    """
    rating = goal.rate(schedule, name)
    if trial is not None and trial.order != rating.schedule.programs:
        raise ConfigurationError("trial is of another schedule; leave it out, or pass goal.rate(schedule).prove()")
    try:
        searched = goal.search(seconds)
    except ConfigurationError:  # nothing fits
        searched = None
    return Story(rating, rating.prove() if trial is None else trial, searched)


def _paragraph(head: str, sentences: Collection[str]) -> str:
    return f"<h2>{escape(head)}</h2><p>{'<br>'.join(map(escape, sentences))}</p>"


def _gap(rating: Rating, gap: Gap) -> str:
    """When a device idles, and why."""
    words = rating.timeline.time_words
    return f"From {words(gap.start)} to {words(gap.end)}, {gap.sentence}."


def _image(picture: Picture) -> str:
    return picture._repr_mimebundle_()["text/html"]
