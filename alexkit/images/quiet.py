"""Keeps Pillow and the libraries under it from talking while odd files are read.

A damaged TIFF alone makes dozens of Python warnings, log records and lines that libtiff
prints past Python. What matters of them is in the reason or the remark of the image.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import warnings
from pathlib import Path

import PIL


class QuietPillow:
    """Ignores warnings raised in Pillow while at least one thread is inside.

    ``warnings.catch_warnings`` would not do: it exchanges the whole list of filters, and
    threads that leave in another order than they entered would put back one another's. Here
    one entry is added and removed.
    """

    _MODULES = r"PIL\.(?#alexkit)"
    """What our entry is known by, so that nobody else's is removed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._libraries_silenced = False

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if not self._libraries_silenced:
                _silence_libraries()
                self._libraries_silenced = True
            # Also when someone else's catch_warnings has dropped the entry meanwhile.
            if self._inside == 1 or not self._entries():
                warnings.filterwarnings("ignore", module=self._MODULES)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for entry in self._entries():
                    filters: list[object] = warnings.filters  # type: ignore[assignment]
                    filters.remove(entry)

    def _entries(self) -> list[object]:
        return [
            entry
            for entry in warnings.filters
            if getattr(entry[3], "pattern", None) == self._MODULES
        ]


quiet_pillow = QuietPillow()


def _silence_libraries() -> None:
    """Stops what is printed past ``warnings``: for the process, once."""
    # Pillow logs one kind of broken TIFF as an error; with no handler Python prints it.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    # libtiff's own messages go to stderr from C. Pillow's wheels carry a private copy of the
    # library; where it is not found (Pillow built by a distribution) they are still printed.
    package = Path(PIL.__file__).parent
    for path in (
        *package.parent.glob("pillow.libs/libtiff-*.so*"),
        *package.glob(".dylibs/libtiff*.dylib"),
    ):
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(path))
            for name in ("TIFFSetWarningHandler", "TIFFSetErrorHandler"):
                set_handler = getattr(library, name)
                set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                set_handler(None)
