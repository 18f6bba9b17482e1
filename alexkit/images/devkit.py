"""The development kit of ILSVRC: which class each validation image of ImageNet is.

The kit numbers classes in its own order, 1 to 1000. Peers that took such a number, or the
position in the list of class folders, for the other's have trained on wrong labels; here a
number becomes a WordNet id (``n01440764``) at once, and classes are matched by that name.
"""

from __future__ import annotations

import csv
import io
import os
import re
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import scipy.io
from scipy.io.matlab import MatReadError

from alexkit.errors import DataError
from alexkit.images.files import cannot_read, names_in, shown

_TRUTH = re.compile(r"ILSVRC201[2-7]_(clsloc_)?validation_ground_truth\.txt")
_TABLES = ("meta.mat", "meta_clsloc.mat", "meta_clsloc.csv")
_SOLUTION = "LOC_val_solution.csv"
_ARCHIVE = re.compile(r"ILSVRC.*devkit.*\.(tar\.gz|tgz|tar)")
WNID = re.compile(r"n\d{8}")
"""A WordNet id, which is what ImageNet calls a class."""
_LARGEST = 1 << 26
"""Bytes; the files of the real kits have less than 4 MB."""

_HINT = "give ILSVRC2012_devkit_t12.tar.gz as it was downloaded"


@dataclass(frozen=True)
class Devkit:
    """Which class each validation image is.

    Attributes:
        place: the archive, folder or file it was read from, as shown to people.
        classes: WordNet id by image name without ending (``ILSVRC2012_val_00000001``).
    """

    place: str
    classes: Mapping[str, str]


def find_devkit(folder: Path) -> Devkit | None:
    """The kit in a folder: its archive, its unpacked folder, or its files themselves.

    Known are ``ILSVRC2012_devkit_t12.tar.gz`` and its folder; a ground truth file together
    with ``meta.mat``, ``meta_clsloc.mat`` or ``meta_clsloc.csv``; and ``LOC_val_solution.csv``
    of the Kaggle edition, which names WordNet ids itself.

    Raises:
        DataError: a kit is there, but damaged or incomplete.
    """
    names = names_in(folder)
    inside = [name for name in names if "devkit" in name.lower() and (folder / name).is_dir()]
    for place in (folder, *(folder / name for name in inside)):
        for part in (place, place / "data"):
            files = {
                name: part / name
                for name in names_in(part)
                if _is_kit_file(name) and (part / name).is_file()
            }
            if _SOLUTION in files or any(map(_TRUTH.fullmatch, files)):
                found = {name: _bytes_of(path) for name, path in files.items()}
                return _devkit(shown(str(place)), found)
    for name in names:
        if _ARCHIVE.fullmatch(name):
            return _devkit(shown(str(folder / name)), _unpacked(folder / name))
    return None


def _devkit(place: str, files: Mapping[str, bytes]) -> Devkit:
    if _SOLUTION in files:
        return Devkit(place, _solution(place, files[_SOLUTION]))
    truth = next((name for name in sorted(files) if _TRUTH.fullmatch(name)), None)
    table = next((name for name in _TABLES if name in files), None)
    if truth is None or table is None:
        lacks = "a validation ground truth" if truth is None else " or ".join(_TABLES)
        raise DataError(f"the devkit {place} lacks {lacks}", hint=_HINT)
    read = _wnids_of_csv if table.endswith(".csv") else _wnids_of_mat
    wnids = read(f"{place}: {table}", files[table])
    classes: dict[str, str] = {}
    for number, line in enumerate(files[truth].decode("ascii", "replace").split(), start=1):
        if not line.isdigit() or int(line) not in wnids:
            raise DataError(
                f"line {number} of {truth} in {place} is {line!r}, no class of {table}",
                hint=_HINT,
            )
        classes[f"ILSVRC2012_val_{number:08d}"] = wnids[int(line)]
    return Devkit(place, classes)


def _wnids_of_mat(where: str, data: bytes) -> dict[int, str]:
    """WordNet id by the kit's number, leaves of the hierarchy only (the 1,000 classes)."""
    # Whatever scipy meets in a damaged file, it is damaged.
    try:
        synsets = scipy.io.loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        fields = synsets.dtype.names
        number = next(name for name in fields if name.endswith("_ID") and name != "WNID")
        leaf = synsets["num_children"] == 0 if "num_children" in fields else slice(None)
        chosen = synsets[leaf]
        wnids = {
            int(n): str(wnid) for n, wnid in zip(chosen[number], chosen["WNID"], strict=True)
        }
    except (
        *(ValueError, TypeError, KeyError, IndexError, AttributeError, StopIteration),
        *(NotImplementedError, OSError, EOFError, zlib.error, MatReadError),
    ) as error:
        raise DataError(f"{where} cannot be read as MATLAB data", hint=_HINT) from error
    return _checked(where, wnids)


def _wnids_of_csv(where: str, data: bytes) -> dict[int, str]:
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
        number = next(name for name in rows[0] if name.endswith("_ID"))
        wnids = {int(row[number]): row["WNID"] for row in rows}
    except (ValueError, KeyError, TypeError, IndexError, StopIteration, csv.Error) as error:
        raise DataError(f"{where} has no columns …_ID and WNID", hint=_HINT) from error
    return _checked(where, wnids)


def _checked(where: str, wnids: dict[int, str]) -> dict[int, str]:
    odd = [wnid for wnid in wnids.values() if not WNID.fullmatch(wnid)]
    if odd or not wnids or len(set(wnids.values())) != len(wnids):
        what = f"{odd[0]!r} for a WordNet id" if odd else "a class twice or none"
        raise DataError(f"{where} has {what}", hint=_HINT)
    return wnids


def _solution(place: str, data: bytes) -> dict[str, str]:
    """``ImageId,PredictionString`` with boxes ``n01751748 111 108 370 297 …``."""
    classes: dict[str, str] = {}
    for row in csv.reader(io.StringIO(data.decode("utf-8", "replace"), newline="")):
        words = row[1].split() if len(row) == 2 else []
        if words and WNID.fullmatch(words[0]):
            classes[row[0]] = words[0]
        elif row and row[0] != "ImageId":
            raise DataError(
                f"{place}: {_SOLUTION} has a line without a WordNet id: {row[0]!r}",
                hint="give the file as it was downloaded",
            )
    return classes


def _unpacked(archive: Path) -> dict[str, bytes]:
    """The few files wanted of the kit's archive, in memory."""
    try:
        with tarfile.open(archive) as kit:
            found = {}
            for member in kit:
                name = os.path.basename(member.name)
                if _is_kit_file(name) and member.isfile() and member.size <= _LARGEST:
                    file = kit.extractfile(member)
                    assert file is not None, name
                    found[name] = file.read()
            return found
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"the devkit {shown(str(archive))} cannot be read: {error}", hint=_HINT
        ) from error


def _is_kit_file(name: str) -> bool:
    return name in _TABLES or name == _SOLUTION or _TRUTH.fullmatch(name) is not None


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error
