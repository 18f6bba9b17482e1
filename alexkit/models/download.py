"""Published weights, fetched once into torch's own cache and checked by their hash."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlparse

import torch

from alexkit import __version__
from alexkit.errors import DownloadFailed, OutOfSpace
from alexkit.events import Reporter, Stage, silent
from alexkit.models.weights import file_sha256
from alexkit.whole_file import whole_file

TIMEOUT = 30
"""Seconds without a byte after which a server is given up."""

MEGABYTE = 10**6

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def fetch(
    url: str, sha256_prefix: str, folder: Path | None = None, report: Reporter = silent
) -> tuple[Path, str]:
    """The file at ``url``: the one in ``folder`` if its hash is right, else downloaded.

    Not ``torch.hub.download_url_to_file``: that waits for ever for a server that falls
    silent, leaves its connection open, and cannot tell a cut file from a wrong one.

    Args:
        url: where it is published; its last part is the file's name.
        sha256_prefix: how the file's SHA-256 begins, in hex.
        folder: default ``checkpoints`` in ``torch.hub.get_dir()``, which torchvision uses too.
        report: told how much of a download is there.

    Returns:
        The file and its whole SHA-256.

    Raises:
        DownloadFailed: no connection, refused, cut half way, or not the published file.
        OutOfSpace: it cannot be written. In either case nothing half-written is left.
    """
    folder = folder or Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / PurePosixPath(urlparse(url).path).name
    if path.is_file():
        sha256 = file_sha256(path)
        if sha256.startswith(sha256_prefix):
            return path, sha256
    partial = folder / f"{path.name}.{os.getpid()}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path, partial) as file:
            sha256, received, promised = _stream(url, file, report)
            if received < promised:
                raise _failed(url, path, f"it ended after {received:,} of {promised:,} bytes")
            if not sha256.startswith(sha256_prefix):
                reason = f"it is not the published file, its SHA-256 is {sha256}"
                raise _failed(url, path, reason)
    except urllib.error.HTTPError as error:
        error.close()
        raise _failed(url, path, f"the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _failed(url, path, f"no connection ({error.reason})") from error
    except http.client.HTTPException as error:
        raise _failed(url, path, f"the connection broke ({error})") from error
    except OSError as error:
        # Only an error about a file has a name; writing to an open one tells by number.
        if error.filename or error.errno in _DISK_FULL:
            raise OutOfSpace(
                f"{path} cannot be written: {error.strerror}",
                hint="free some space, or set TORCH_HOME to a folder that can be written",
            ) from error
        raise _failed(url, path, f"the connection broke ({error})") from error
    return path, sha256


def _stream(url: str, file: BinaryIO, report: Reporter) -> tuple[str, int, int]:
    """Writes what comes from ``url``; its SHA-256, its bytes and how many were promised."""
    request = urllib.request.Request(url, headers={"User-Agent": f"alexkit/{__version__}"})
    digest, received = hashlib.sha256(), 0
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        promised = int(response.headers.get("Content-Length") or 0)
        with Stage(report, "download", promised // MEGABYTE, "MB") as stage:
            while block := response.read(1 << 16):
                file.write(block)
                digest.update(block)
                received += len(block)
                if received // MEGABYTE > stage.done:
                    stage.reach(received // MEGABYTE)
    return digest.hexdigest(), received, promised


def _failed(url: str, path: Path, reason: str) -> DownloadFailed:
    return DownloadFailed(
        f"{url} could not be fetched: {reason}",
        hint=f"try again; without a network, fetch it elsewhere and put it at {path}, "
        "or name a weight file: --weights FILE",
    )
