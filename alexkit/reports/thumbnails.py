"""Small images for a page: read through the source, few, and within a time."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image

from alexkit.choices import Split
from alexkit.errors import AlexkitError
from alexkit.images.batches import Reader
from alexkit.images.files import shown
from alexkit.images.source import ImageSource, in_splits
from alexkit.reports.page import data_uri

Square = npt.NDArray[np.uint8]

SIDE = 96
"""Pixels of a thumbnail; about 3 kB as JPEG."""
SPRITE_SIDE = 48
"""Pixels of the images that a map shows; about 1 kB each."""
QUALITY = 75
THREADS = 2


def rows_of(source: ImageSource, paths: Iterable[str]) -> dict[str, int]:
    """The rows of some paths, as records or feature files have them; those gone are left out.

    Held-out rows are looked through first: of a large set they are few.
    """
    wanted = set(paths)
    held_out = in_splits(source.splits, Split.VAL, Split.TEST)
    found: dict[str, int] = {}
    for some in (np.flatnonzero(held_out), np.flatnonzero(~held_out)):
        for row in some.tolist():
            if len(found) == len(wanted):
                return found
            path = source.record(row).path
            # A feature file, which holds text, has names of other bytes as ``shown`` has them.
            for name in {path, shown(path)} & wanted:
                found[name] = row
    return found


def squares(
    source: ImageSource, rows: Sequence[int], side: int, *, seconds: float
) -> dict[int, Square]:
    """Row -> the centre square of its image, upright, (side, side, 3) uint8.

    Rows that cannot be read, and those whose turn does not come within ``seconds``, are left
    out.
    """
    read = Reader(source, exif=True, at_least=2 * side)
    end = time.monotonic() + seconds

    def one(row: int) -> tuple[int, Square | None]:
        if time.monotonic() > end:
            return row, None
        try:
            rgb, _ = read(row)
            return row, None if rgb is None else _square(rgb, side)
        except (AlexkitError, OSError):  # told in the ledger; here it is a missing thumbnail
            return row, None

    with ThreadPoolExecutor(THREADS, thread_name_prefix="alexkit-thumbnails") as pool:
        found = list(pool.map(one, dict.fromkeys(rows)))
    return {row: square for row, square in found if square is not None}


def thumbnails(
    source: ImageSource | None, paths: Sequence[str], *, seconds: float
) -> dict[str, str]:
    """Path -> its thumbnail as a data URI; see :func:`squares` for what is left out."""
    if source is None:
        return {}
    rows = rows_of(source, paths)
    wanted = [rows[path] for path in paths if path in rows]
    made = squares(source, wanted, SIDE, seconds=seconds)
    return {path: jpeg_uri(made[row]) for path, row in rows.items() if row in made}


def sprite(made: Mapping[int, Square], order: Sequence[int]) -> tuple[str, int, list[int]]:
    """All thumbnails in one sheet: its data URI, how many are in a row, and the place of each
    of ``order`` (-1 for those without one)."""
    places = {row: place for place, row in enumerate(made)}
    if not places:
        return "", 1, [-1] * len(order)
    side = next(iter(made.values())).shape[0]
    across = int(np.ceil(np.sqrt(len(places))))
    down = -(-len(places) // across)
    sheet = np.zeros((down * side, across * side, 3), np.uint8)
    for row, place in places.items():
        y, x = side * (place // across), side * (place % across)
        sheet[y : y + side, x : x + side] = made[row]
    return jpeg_uri(sheet), across, [places.get(row, -1) for row in order]


def jpeg_uri(pixels: Square) -> str:
    """(H, W, 3) uint8 as a data URI."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, optimize=True)
    return data_uri(file.getvalue(), "jpeg")


def _square(rgb: Square, side: int) -> Square:
    height, width = rgb.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    image = Image.fromarray(rgb[top : top + short, left : left + short])
    return np.asarray(image.resize((side, side), Image.Resampling.BOX, reducing_gap=2))
