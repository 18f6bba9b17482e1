"""How large an image and its file may be."""

from __future__ import annotations

from alexkit.errors import UnreadableImage

MAX_PIXELS = 1 << 27
"""134 million: a 108-megapixel phone photo passes, and decoding and resizing one image at the
limit takes 0.9 GB as JPEG and up to 1.2 GB as PNG (measured; 3 bytes a pixel decoded, 4 inside
Pillow). Larger ones are refused from their header, before memory is taken."""

MAX_FILE_BYTES = 1 << 30
"""1 GiB: an uncompressed 16-bit TIFF of :data:`MAX_PIXELS` fits; a film named .jpg does not."""

MAX_SCANS = 100
"""Scans of a progressive JPEG; encoders write up to about a dozen. Each costs a pass over all
pixels and may be 20 bytes long, so that a megabyte of them would take a quarter of an hour."""

REPAIR_HINT = "open it in an image viewer and save it again as JPEG or PNG, or leave it out"


def refuse_bomb(width: int, height: int) -> None:
    """Raises UnreadableImage above :data:`MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise UnreadableImage(
            f"{width} x {height} pixels is over the limit of {MAX_PIXELS / 1e6:.0f} million",
            hint="make it smaller, or leave it out if it is not a photo",
        )
