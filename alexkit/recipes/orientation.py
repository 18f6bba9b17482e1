"""Whether a command obeys the camera's orientation tag: ``--exif``, or by weights and data."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from alexkit.choices import Exif
from alexkit.errors import UsageError
from alexkit.events import Chosen, Reporter
from alexkit.images.packed import PackSource
from alexkit.images.preprocess import Preprocess
from alexkit.images.source import ImageSource

_WNID = re.compile(r"n\d{8}")
"""A WordNet id, as ImageNet's class folders are named."""


def like_imagenet(classes: Sequence[str]) -> bool:
    """Whether classes are named by WordNet ids, as in ImageNet and what is cut from it."""
    return bool(classes) and all(_WNID.fullmatch(name) for name in classes)


def settle_exif(
    preprocess: Preprocess,
    asked: Exif | None,
    source: ImageSource,
    report: Reporter,
    *,
    own_photos: bool = False,
) -> Preprocess:
    """The preprocessing with ``exif`` as asked, else as the rule has it, which is said.

    A pack was turned or not when it was made. Otherwise, what weights were trained with is
    right for them; only a network that is about to learn one's ``own_photos`` sees them
    upright, unless they are ImageNet's, whose recipes never looked at the tag. The record
    travels with weights and features, so whatever is made from them later does the same.

    Raises:
        UsageError: a pack was made otherwise than ``asked``.
    """
    if isinstance(source, PackSource):
        made = bool(source.provenance["preprocessing"]["exif"])
        if asked is not None and asked is not _word(made):
            raise UsageError(
                f"{source.root} was packed with --exif {_word(made).value}",
                hint=f"leave --exif out, or pack again with --exif {asked.value}",
            )
        if asked is None:
            report(Chosen("exif", _word(made).value, "as the pack was made"))
        return dataclasses.replace(preprocess, exif=made)
    if asked is not None:
        return dataclasses.replace(preprocess, exif=asked is Exif.APPLY)
    if own_photos and not like_imagenet(source.classes):
        report(Chosen("exif", Exif.APPLY.value, "one's own photos are seen upright"))
        return dataclasses.replace(preprocess, exif=True)
    kept = _word(preprocess.exif).value
    report(Chosen("exif", kept, "as the network's own preprocessing has it"))
    return preprocess


def _word(applied: bool) -> Exif:
    return Exif.APPLY if applied else Exif.IGNORE
