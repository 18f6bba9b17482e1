"""``bad_images.csv``: every image that could not be used as it is, and what was done."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from alexkit.errors import UnreadableImage
from alexkit.events import BadImage, Reporter

LEDGER = "bad_images.csv"
HEADER = ("path", "reason", "action")


class Ledger:
    """The bad images of one run, each once; reports each the first time it is met.

    Args:
        path: the CSV file, or None to keep the ledger in memory only. A file that is there
            (a continued run) is read first.
        strict: raise at the first bad image instead of noting it.
        report: hears of each bad image.
    """

    def __init__(self, path: Path | None, *, strict: bool, report: Reporter) -> None:
        self._path = path
        self._strict = strict
        self._report = report
        self._rows: dict[str, tuple[str, str]] = {}
        if path is not None and path.exists():
            with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                self._rows = {
                    r[0]: (r[1], r[2]) for r in list(csv.reader(file))[1:] if len(r) == 3
                }

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, path: str, reason: str, action: str) -> None:
        """Notes one image.

        Raises:
            UnreadableImage: in strict mode.
        """
        if self._strict:
            raise UnreadableImage(
                f"{path}: {reason}", hint="mend or remove the file, or leave out --strict"
            )
        if path not in self._rows:
            self._rows[path] = (reason, action)
            self._report(BadImage(path, reason, action))

    def save(self) -> None:
        """Writes the file as a whole; its rows are in the order the images were met."""
        if self._path is None:
            return
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows((path, *told) for path, told in self._rows.items())
        partial = self._path.with_name(self._path.name + ".partial")
        partial.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))
        partial.replace(self._path)
