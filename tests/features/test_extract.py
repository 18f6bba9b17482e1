"""Extraction with a small network written here: one pass, evaluation mode, honest numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alexkit.choices import FeatureDtype
from alexkit.errors import OutOfMemory
from alexkit.features.extract import FeatureBatch, extract
from alexkit.features.layout import Status
from alexkit.images.batches import BadRow, Batch

CPU = torch.device("cpu")
LAYERS = ("conv1", "fc6")


class SmallNet(nn.Module):
    """Two layers with dropout between; ``light`` and ``log`` leave float16 and the numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4 * 6 * 6, 5)
        self.passes = 0

    def taps(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        self.passes += 1
        found = {"light": 1000 * x.flatten(1).mean(1, keepdim=True)}
        found["log"] = found["light"].log()
        found["conv1"] = self.conv(x.contiguous(memory_format=torch.channels_last)).relu()
        found["fc6"] = self.fc(self.drop(found["conv1"]).flatten(1))
        return {layer: found[layer] for layer in layers}


class TooBig(SmallNet):
    def taps(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def normalise(pixels: Tensor) -> Tensor:
    return pixels.float().permute(0, 3, 1, 2)


def pixels_of(row: int) -> Tensor:
    generator = torch.Generator().manual_seed(row)
    return torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8, generator=generator)


def batch_of(*rows: int, bad: Sequence[int] = ()) -> Batch:
    return Batch(
        rows=np.array(rows, np.int64),
        pixels=torch.stack([pixels_of(r) for r in rows]) if rows else torch.empty(0, 8, 8, 3),
        labels=torch.zeros(len(rows), dtype=torch.int64),
        bad=tuple(BadRow(row, f"{row}.jpg", f"{row} is broken") for row in bad),
        remarks=(),
        places=np.arange(len(rows)),
        size=len(rows) + len(bad),
    )


def run(
    net: SmallNet,
    *batches: Batch,
    layers: Sequence[str] = LAYERS,
    dtype: FeatureDtype = FeatureDtype.FLOAT32,
) -> Iterator[FeatureBatch]:
    return extract(net, batches, layers, normalise=normalise, device=CPU, dtype=dtype)


def test_equal_to_the_network_row_for_row() -> None:
    net = SmallNet().eval()
    first, second = run(net, batch_of(7, 3, 4), batch_of(0))
    assert first.rows.tolist() == [7, 3, 4]
    assert second.rows.tolist() == [0]
    assert first.problems == ()
    assert net.passes == 2, "one pass a batch serves all layers"
    with torch.no_grad():
        expected = net.taps(normalise(torch.stack([pixels_of(r) for r in (7, 3, 4)])), LAYERS)
    for layer in LAYERS:
        assert first.values[layer].dtype == np.float32
        assert first.values[layer].flags.c_contiguous
        np.testing.assert_array_equal(first.values[layer], expected[layer].numpy())


def test_a_network_in_training_mode_is_put_into_evaluation_mode() -> None:
    net = SmallNet().train()
    (first,), (second,) = run(net, batch_of(1, 2)), run(net, batch_of(1, 2))
    np.testing.assert_array_equal(first.values["fc6"], second.values["fc6"])


def test_float16_is_the_rounded_float32() -> None:
    (half,) = run(SmallNet(), batch_of(1, 2), dtype=FeatureDtype.FLOAT16)
    (single,) = run(SmallNet(), batch_of(1, 2))
    for layer in LAYERS:
        assert half.values[layer].dtype == np.float16
        np.testing.assert_array_equal(half.values[layer], single.values[layer].astype("f2"))


def test_rows_beyond_the_number_type_are_reported_and_left_out() -> None:
    batch = batch_of(1, 2, 3, bad=[9])
    batch.pixels[1] = 0  # its logarithm is -inf
    layers = ("fc6", "light", "log")
    (single,) = run(SmallNet(), batch, layers=layers)
    assert single.rows.tolist() == [1, 3]
    assert [tuple(problem) for problem in single.problems] == [
        (9, Status.UNREADABLE, "9 is broken"),
        (2, Status.NON_FINITE, "log holds inf"),
    ]
    assert all(np.isfinite(values).all() for values in single.values.values())
    assert single.values["fc6"].shape == (2, 5)
    (half,) = run(SmallNet(), batch, layers=layers, dtype=FeatureDtype.FLOAT16)
    assert half.rows.size == 0
    light = {problem.row: problem.reason for problem in half.problems}
    assert light[1].startswith("light reaches 1")
    assert light[1].endswith("more than float16 can hold")
    assert half.values["fc6"].shape == (0, 5)


def test_a_batch_without_a_readable_image() -> None:
    net = SmallNet()
    (found,) = run(net, batch_of(bad=[4, 5]))
    assert found.rows.size == 0
    assert found.values == {}
    assert [problem.row for problem in found.problems] == [4, 5]
    assert net.passes == 0


def test_who_reads_the_batches_is_not_in_inference_mode() -> None:
    for _ in run(SmallNet(), batch_of(1), batch_of(2)):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


def test_a_device_without_enough_memory() -> None:
    with pytest.raises(OutOfMemory, match="a batch of 3 images does not fit") as full:
        list(run(TooBig(), batch_of(1, 2, 3)))
    assert "--batch-size" in full.value.hint
