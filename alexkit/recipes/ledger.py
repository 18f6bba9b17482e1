"""``bad_images.csv``: every image that could not be used as it is, and what was done."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from alexkit.errors import DataError, UnreadableImage
from alexkit.events import BadImage, Note, Reporter
from alexkit.features.extract import FeatureBatch
from alexkit.images.batches import Batch
from alexkit.images.encode import EncodedBatch
from alexkit.images.source import ImageSource
from alexkit.reports.tables import save_csv, write_csv

LEDGER = "bad_images.csv"
HEADER = ("path", "reason", "action")
USED = "used"
"""The action for an image that was repaired or converted; its reason says how."""

Read = TypeVar("Read", bound=Batch | EncodedBatch)


class Ledger:
    """The bad, repaired and converted images of one run, each once.

    A row is in the file as soon as it is met, so that a killed run has told of every image
    it has been through. A bad image is reported when it is first met; of the others, which
    may be every photo of a phone, :meth:`close` tells the number.

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
        self._rows: dict[tuple[str, str], str] = {}
        if path is not None:
            if path.exists():
                self._rows = {
                    (image, action): reason for image, reason, action in read_ledger(path)
                }
            # As a whole, without the line that a kill may have cut.
            rows = ((image, why, action) for (image, action), why in self._rows.items())
            save_csv(path, HEADER, rows)

    @property
    def bad(self) -> int:
        """Images that were not used."""
        return len(self._rows) - self.repaired

    @property
    def repaired(self) -> int:
        """Images that were used after a repair or a conversion."""
        return sum(action == USED for _, action in self._rows)

    def add(self, path: str, reason: str, action: str) -> None:
        """Notes an image that was not used.

        Raises:
            UnreadableImage: in strict mode.
        """
        if self._strict:
            raise UnreadableImage(
                f"{path}: {reason}", hint="mend or remove the file, or leave out --strict"
            )
        if self._note(path, reason, action):
            listed = "" if self._path is None else str(self._path)
            self._report(BadImage(path, reason, action, listed))

    def add_rows(
        self, source: ImageSource, reasons: Iterable[tuple[int, str]], action: str
    ) -> None:
        """As :meth:`add`, of rows of a source, each with its reason."""
        for row, reason in reasons:
            self.add(source.record(row).path, reason, action)

    def add_batch(self, source: ImageSource, batch: FeatureBatch, action: str) -> None:
        """Notes the images of a batch that gave nothing, and those that were repaired or
        converted.

        Raises:
            UnreadableImage: in strict mode.
        """
        for remark in batch.remarks:
            self.add_used(remark.path, remark.text)
        self.add_rows(source, ((bad.row, bad.reason) for bad in batch.problems), action)

    def reasons(self) -> dict[str, str]:
        """Path -> reason of the images that were not used."""
        return {path: why for (path, action), why in self._rows.items() if action != USED}

    def add_used(self, path: str, remark: str) -> None:
        """Notes an image that was used after what ``remark`` says; never an error."""
        self._note(path, remark, USED)

    def take_in(self, path: Path) -> None:
        """Notes all that is in the file of another ledger.

        Raises:
            UnreadableImage: in strict mode.
        """
        for image, reason, action in read_ledger(path):
            if action == USED:
                self.add_used(image, reason)
            else:
                self.add(image, reason, action)

    def share(self, texts: Callable[[str], list[str]]) -> None:
        """Takes in what every process has noted; ``texts`` gives all for one's own.

        Raises:
            UnreadableImage: in strict mode.
        """
        own = json.dumps([[*key, reason] for key, reason in self._rows.items()])
        for text in texts(own):
            for image, action, reason in json.loads(text):
                if action == USED:
                    self.add_used(image, reason)
                elif (image, action) not in self._rows:
                    self.add(image, reason, action)

    def watch(self, batches: Iterable[Read]) -> Iterator[Read]:
        """The same batches, the repaired and converted images of each noted on the way."""
        for batch in batches:
            for remark in batch.remarks:
                self.add_used(remark.path, remark.text)
            yield batch

    def close(self) -> None:
        """Tells how many images were repaired or converted, where there are any."""
        if count := self.repaired:
            where = f"; {self._path} says which" if self._path is not None else ""
            images = "1 image was" if count == 1 else f"{count:,} images were"
            self._report(Note(f"{images} repaired or converted, and used{where}"))

    def _note(self, path: str, reason: str, action: str) -> bool:
        """Whether this is news."""
        if (path, action) in self._rows:
            return False
        self._rows[path, action] = reason
        if self._path is not None:
            with self._path.open("ab") as file:
                write_csv(file, [(path, reason, action)])
        return True


def none_usable(count: int, place: str = "") -> DataError:
    """What a command ends with that could use none of ``count`` images."""
    where = f" in {place}" if place else ""
    return DataError(
        f"none of the {count} images{where} could be used",
        hint="are these images? the lines above say what is wrong with each",
    )


def read_ledger(path: Path) -> list[list[str]]:
    """Path, reason and action of each whole line."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        text = file.read()
    # A full disk may have cut the last line anywhere, its action too.
    whole = io.StringIO(text[: text.rfind("\n") + 1], newline="")
    return [row for row in list(csv.reader(whole))[1:] if len(row) == 3]
