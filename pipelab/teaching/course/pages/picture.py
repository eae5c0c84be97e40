"""The map of the course as an SVG picture: what builds on what, minutes, and which texts' topics are where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from pipelab.teaching.course.beside.coverage import Coverage
from pipelab.teaching.course.build import exercise_minutes
from pipelab.teaching.course.source import Lesson

__all__ = ["ALT", "course_map", "direct"]

ALT = (
    "Map of the course: each lesson with the lessons that it builds on, its minutes and those of its exercises, and "
    "how many topics of each source it has. The table has the same in words."
)
_ROW, _TOP, _ARCS, _TITLE, _BAR, _DOTS, _DOT = 26, 64, 150, 200, 560, 850, 72
_LESSON, _EXERCISES, _LINE, _INK, _PALE = (
    "#0072b2",
    "#e69f00",
    "#777",
    "#1a1a1a",
    "#eee",
)  # told apart without colour too


def direct(lessons: Sequence[Lesson]) -> Mapping[str, tuple[str, ...]]:
    """Number -> the numbers that it builds on and that no other of these builds on, at any distance."""
    builds = {lesson.number: lesson.builds_on for lesson in lessons}

    def under(number: str) -> set[str]:
        below = set(builds.get(number, ()))
        return below.union(*map(under, below))

    return {
        number: tuple(one for one in named if not any(one in under(other) for other in named))
        for number, named in builds.items()
    }


def course_map(lessons: Sequence[Lesson], coverage: Coverage | None) -> str:
    """The picture, as text that depends on the sources alone."""
    place = {lesson.number: _TOP + _ROW * row for row, lesson in enumerate(lessons)}
    longest = max(lesson.minutes + exercise_minutes(lesson) for lesson in lessons)
    scale = (_DOTS - _BAR - 90) / longest
    sources = list(coverage.sources) if coverage else []
    topics = Counter((topic.at[0], source) for topic in (coverage.topics if coverage else ()) for source in topic.of)
    width, height = _DOTS + _DOT * len(sources), _TOP + _ROW * len(lessons) + 8
    parts = [_text(_ARCS, 22, "builds on", "end"), _text(_BAR, 22, "minutes: lesson, + exercises")]
    if sources:
        parts.append(_text(_DOTS - 30, 22, "topics of each text"))
    parts += [_text(_DOTS + _DOT * k, 42, source, "middle") for k, source in enumerate(sources)]
    builds = {number: [one for one in named if one in place] for number, named in direct(lessons).items()}
    furthest = max((place[number] - place[one] for number, named in builds.items() for one in named), default=_ROW)
    for number, named in builds.items():
        for other in named:
            y, z = place[other], place[number]
            bend = 20 + (4 / 3 * _ARCS - 40) * ((z - y) / furthest) ** 0.7  # a curve reaches 3/4 of it
            curve = f"M{_ARCS} {y} C{_ARCS - bend:.0f} {y} {_ARCS - bend:.0f} {z} {_ARCS} {z}"
            parts.append(f'<path d="{curve}" fill="none" stroke="{_LINE}" stroke-width="1.4"/>')
    for lesson in lessons:
        y, minutes, more = place[lesson.number], lesson.minutes, exercise_minutes(lesson)
        parts.append(f'<circle cx="{_ARCS}" cy="{y}" r="3.5" fill="{_INK}"/>')
        parts.append(_text(_TITLE - 14, y + 4, lesson.number, "end"))
        parts.append(_text(_TITLE, y + 4, lesson.title))
        parts.append(_bar(_BAR, y, minutes * scale, _LESSON))
        parts.append(_bar(_BAR + minutes * scale, y, more * scale, _EXERCISES))
        parts.append(_text(_BAR + (minutes + more) * scale + 6, y + 4, f"{minutes} + {more}" if more else f"{minutes}"))
        for k, source in enumerate(sources):
            if count := topics[lesson.number, source]:
                parts.append(f'<circle cx="{_DOTS + _DOT * k}" cy="{y}" r="10" fill="{_PALE}"/>')
                parts.append(_text(_DOTS + _DOT * k, y + 4, str(count), "middle"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{_INK}" role="img">\n<title>{escape(ALT)}</title>\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(words)}</text>'


def _bar(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y - 6}" width="{width:.1f}" height="12" fill="{colour}"/>'
