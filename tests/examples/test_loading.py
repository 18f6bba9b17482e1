"""The loading benchmark runs, at a size that says nothing about speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import photos_in


def test_every_stage_and_tier_is_measured(tmp_path: Path, benchmark: Any) -> None:
    photos_in(tmp_path / "photos", {"ant": 5, "bee": 4})
    (tmp_path / "photos" / "ant" / "bad.jpg").write_bytes(b"no image")
    words = "photos --images 8 --rounds 2 --batch-size 3"
    result, told = benchmark("loading.py", words)
    assert result["settings"]["images"] == 8
    assert list(result["stages_core_ms"])[:4] == ["read", "decode", "resize", "batch"]
    assert result["pipeline_over_own_decode_and_resize"] > 0
    assert result["pipeline_over_decode_and_resize_alone"] > 0
    assert set(result["tiers"]) == {
        *("DataLoader", "originals", "originals, normalised"),
        *("JPEG pack", "raw pack", "in memory"),
    }
    for tier in result["tiers"].values():
        assert tier["images_per_second"] > 0
    assert result["tiers"]["DataLoader"]["times_the_dataloader"] == 1
    size = result["bytes_an_image"]
    assert size["JPEG pack"] < size["raw pack"]
    # The same pixels are made; float32 arithmetic in another order.
    assert result["largest_difference_of_normalised_pixels"] < 1e-5
    assert "raw pack" in told
    assert [path.name for path in tmp_path.iterdir()].count("images.pack") == 0
