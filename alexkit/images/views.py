"""Several squares of one image: the paper's ten views, mirrored pairs, grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from alexkit.errors import UsageError
from alexkit.images.batches import ToSquare
from alexkit.images.preprocess import Preprocess

WORDS = ("center", "flip", "ten", "grid:K")


class View(NamedTuple):
    """Upper left corner of a square in what :meth:`Views.to_square` gives, in pixels, and
    whether the square is mirrored left to right."""

    top: int
    left: int
    mirrored: bool


@dataclass(frozen=True)
class Views:
    """Which squares of an image a network sees, each of ``preprocess.crop`` pixels a side.

    ``center`` and ``flip`` see the centre square of the resized image, ``flip`` also its
    mirror image. ``ten`` (paper §4.1: 224 × 224 of 256 × 256) and ``grid:K`` cut from the
    square of ``preprocess.resize`` pixels in the middle of the resized image, so that of a
    image that is not square neither sees the two ends. The ten are, in this order: upper
    left, upper right, lower left, lower right, centre, then the mirror images of these five.
    A grid has K × K squares with even steps, row by row, the corners among them.

    Attributes:
        kind: ``"center"``, ``"flip"``, ``"ten"`` or ``"grid"``.
        side: K of a grid, else 0.
    """

    kind: str = "center"
    side: int = 0

    @classmethod
    def parse(cls, text: str) -> Views:
        """What ``--views`` takes.

        Raises:
            UsageError: it is none of :data:`WORDS`.
        """
        if text in ("center", "flip", "ten"):
            return cls(text)
        head, _, tail = text.partition(":")
        if head == "grid" and tail.isdecimal() and int(tail) > 1:
            return cls("grid", int(tail))
        raise UsageError(
            f"--views {text} is not known",
            hint=f"use {', '.join(WORDS)}, e.g. grid:2 for the four corners",
        )

    def __str__(self) -> str:
        return f"grid:{self.side}" if self.kind == "grid" else self.kind

    def __len__(self) -> int:
        return {"center": 1, "flip": 2, "ten": 10}.get(self.kind, self.side**2)

    def to_square(self, preprocess: Preprocess) -> ToSquare:
        """The square of an image that all its views are cut from."""
        if self.kind in ("center", "flip"):
            return preprocess.square
        return preprocess.train_square

    def places(self, preprocess: Preprocess) -> list[View]:
        """Where the views are cut, in their order.

        Raises:
            UsageError: the network reads so much of the resized image that they would be the
                same square.
        """
        if self.kind in ("center", "flip"):
            return [View(0, 0, mirrored) for mirrored in (False, True)[: len(self)]]
        room = preprocess.resize - preprocess.crop
        if room < max(self.side - 1, 1):
            raise UsageError(
                f"--views {self} needs more than the {preprocess.resize} pixels to which "
                f"images are resized for a network that reads {preprocess.crop}",
                hint="use --views center or flip",
            )
        if self.kind == "ten":
            corners = [(0, 0), (0, room), (room, 0), (room, room), (round(room / 2),) * 2]
            return [View(*corner, mirrored) for mirrored in (False, True) for corner in corners]
        steps = [round(room * i / (self.side - 1)) for i in range(self.side)]
        return [View(top, left, False) for top in steps for left in steps]

    def cut(self, squares: Tensor, preprocess: Preprocess) -> list[Tensor]:
        """The views of (B, S, S, 3) uint8 squares, each (B, crop, crop, 3), on their device.

        Raises:
            UsageError: see :meth:`places`.
        """
        side = preprocess.crop
        cuts = []
        for top, left, mirrored in self.places(preprocess):
            cut = squares[:, top : top + side, left : left + side]
            cuts.append(cut.flip(2) if mirrored else cut)
        return cuts
