"""A report as one HTML file: no network, no second file, nothing in it is run but our scripts.

Everything that comes from outside (names of files and classes, reasons, options) goes through
a template that escapes it, and control characters are shown as escapes. A content security
policy names the two scripts of the page by their hashes, so that a browser runs no other.

Charts are drawn by Chart.js (MIT), which lies beside this module and is copied into the page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import jinja2
from markupsafe import Markup

from alexkit import __version__
from alexkit.reports.tables import Table, facts_table
from alexkit.whole_file import whole_file

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("chart.umd.min.js", "page.js")
LONG_TABLE = 60
"""Rows from which a table has its own scroll bar and stays closed in print."""


_HIDDEN = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They turn the direction of what follows, so that a name reads as another."""


def shown(text: str) -> str:
    r"""Text from outside as a page can hold it: what has no form of its own is escaped.

    Line breaks and other control characters become ``\n`` and the like, bytes that are no
    UTF-8 ``\xe9``; emoji and every script stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        repr(c)[1:-1]
        if c in _HIDDEN or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")
        else c
        for c in text
    )


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    kind: ClassVar[str] = "words"
    text: str


@dataclass(frozen=True)
class Grid:
    """A table; columns of nothing but numbers stand right, and any column sorts.

    Attributes:
        table: header and rows of cells.
        caption: what it shows.
    """

    kind: ClassVar[str] = "grid"
    table: Table
    caption: str

    @property
    def long(self) -> bool:
        return len(self.table[1]) > LONG_TABLE


@dataclass(frozen=True)
class Series:
    """One line or cloud of a chart.

    Attributes:
        name: as in the legend.
        x, y: values; a y that is not finite leaves a gap.
        spread: half the height of the band around y, or none.
        dashed: a broken line, so that colour is not all that tells it apart.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over x; the table beside it says the same in numbers.

    Attributes:
        title: what it shows.
        x_label, y_label: with units.
        ticks: names of x = 0, 1, 2 …; none is a scale of numbers.
        percent: y is a fraction, shown in percent.
        log: x is on a logarithmic scale.
        table: the same in numbers.
    """

    kind: ClassVar[str] = "chart"
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    table: Table
    ticks: Sequence[str] = ()
    percent: bool = False
    log: bool = False

    @property
    def data(self) -> dict[str, Any]:
        """What the script of the page draws, JSON-safe."""
        return {
            "kind": "lines",
            "x": self.x_label,
            "y": self.y_label,
            "ticks": [shown(tick) for tick in self.ticks],
            "percent": self.percent,
            "log": self.log,
            "series": [
                {
                    "name": shown(one.name),
                    "points": [
                        [_finite(x), _finite(y)] for x, y in zip(one.x, one.y, strict=True)
                    ],
                    "spread": list(map(_finite, one.spread)),
                    "dashed": one.dashed,
                }
                for one in self.series
            ],
        }

    @property
    def spoken(self) -> str:
        """What it shows, for those who do not see it."""
        names = ", ".join(one.name for one in self.series)
        return f"Chart: {self.title}. {self.y_label} over {self.x_label}: {names}."


@dataclass(frozen=True)
class Dots:
    """Images as points of a plane; a point shows its image under the mouse or the arrow keys.

    Attributes:
        title: what it shows.
        points: (n, 2).
        groups: (n) which class each is of; index into ``names``.
        names: of the classes.
        labels: (n) what each is called.
        places: (n) of each in the sprite, -1 for none.
        sprite: data URI of one sheet of all thumbnails, ``across`` in a row, each ``side`` px.
    """

    kind: ClassVar[str] = "dots"
    title: str
    points: Sequence[Sequence[float]]
    groups: Sequence[int]
    names: Sequence[str]
    labels: Sequence[str]
    places: Sequence[int]
    sprite: str
    across: int
    side: int

    @property
    def data(self) -> dict[str, Any]:
        """As :attr:`Chart.data`."""
        return {
            "kind": "dots",
            "points": [[_finite(x), _finite(y)] for x, y in self.points],
            "groups": list(self.groups),
            "names": [shown(name) for name in self.names],
            "labels": [shown(label) for label in self.labels],
            "places": list(self.places),
            "sprite": self.sprite,
            "across": self.across,
            "side": self.side,
        }

    @property
    def table(self) -> Table:
        """The same in numbers."""
        rows = [
            [label, self.names[group] if group >= 0 else "–", f"{x:.3g}", f"{y:.3g}"]
            for label, group, (x, y) in zip(self.labels, self.groups, self.points, strict=True)
        ]
        return ["image", "class", "across", "up"], rows


@dataclass(frozen=True)
class Thumbnail:
    """A thumbnail with what is to be said of it; ``source`` is a data URI, "" for none."""

    source: str
    name: str
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Thumbnails:
    """Thumbnails in a row or more."""

    kind: ClassVar[str] = "thumbnails"
    images: Sequence[Thumbnail]
    caption: str


@dataclass(frozen=True)
class Picture:
    """An image of its own size, every pixel a square, described in words."""

    kind: ClassVar[str] = "picture"
    source: str
    description: str


@dataclass(frozen=True)
class Shaded:
    """A square table of counts, the larger a share of its row the darker the cell."""

    kind: ClassVar[str] = "shaded"
    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    caption: str

    @property
    def shares(self) -> list[list[float]]:
        return [[count / max(sum(row), 1) for count in row] for row in self.counts]


Block = Words | Grid | Chart | Dots | Thumbnails | Picture | Shaded


@dataclass(frozen=True)
class Section:
    """A heading and what is under it."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """Its place in the page, in letters that need no escape."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: of the page.
        lead: one line under it.
        figures: the few that matter most, name and value.
        sections: empty ones are left out.
    """

    title: str
    lead: str
    figures: Sequence[tuple[str, str]]
    sections: Sequence[Section] = field(default_factory=list)


def render(page: Page) -> str:
    """The whole HTML file."""
    scripts = [script(name) for name in SCRIPTS]
    return environment().get_template("page.html").render(
        page=page,
        sections=[section for section in page.sections if section.blocks],
        style=Markup((ASSETS / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(text) for text in scripts],
        policy=policy(scripts),
        version=__version__,
        numeric=numeric,
    )  # fmt: skip


def write_page(page: Page, path: Path) -> None:
    """Renders into a file as a whole; replaces an older one.

    Raises:
        OSError: it cannot be written; an older one is as it was.
    """
    with whole_file(path) as file:
        file.write(render(page).encode("utf-8", "backslashreplace"))


@functools.cache
def environment() -> jinja2.Environment:
    """Where templates come from: all they are given is escaped unless it is a ``Markup``."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@functools.cache
def script(name: str) -> str:
    """A script of the page, which must not hold what would end its element."""
    text = (ASSETS / name).read_text(encoding="utf-8")
    assert "</script" not in text.lower(), name
    return text


def policy(scripts: Sequence[str]) -> str:
    """What a browser may do for this page: run these scripts, show images that are in it."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts
    ]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed};"
        " base-uri 'none'; form-action 'none'"
    )


def data_uri(data: bytes, kind: str) -> str:
    """An encoded image (``jpeg``, ``png``) as what ``<img src>`` takes."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def numeric(table: Table) -> list[bool]:
    """Whether each column holds nothing but numbers, with or without a unit or a spread; none
    does in a list of facts, which has no header."""
    header, rows = table
    told = bool(rows) and any(header)
    return [told and all(_is_number(row[i]) for row in rows) for i in range(len(header))]


def facts(named: Mapping[str, Any], caption: str) -> Grid:
    """Names and values as a table."""
    return Grid(facts_table(named), caption)


def _is_number(cell: str) -> bool:
    first = cell.split(" ")[0].replace(",", "")
    if first in ("", "–"):
        return True
    try:
        float(first)
    except ValueError:
        return False
    return True


def _visible(value: Any) -> Any:
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
