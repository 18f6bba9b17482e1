"""The same bits however the work is shared, and whatever batch a row is in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from alexkit.choices import FeatureDtype, Precision
from alexkit.errors import UsageError
from alexkit.features.layout import RowProblem, Status
from alexkit.images.opening import open_source
from alexkit.models.zoo import load_backbone
from alexkit.recipes.devices import use_precision
from alexkit.recipes.extraction import LAST_BATCH, Job, shared
from alexkit.recipes.layers import Stored
from alexkit.recipes.options import FeaturesOptions
from tests.conftest import photos_in

LAYERS = ("conv1", "pool5", "fc7")
COUNT = 23


@pytest.fixture(scope="module")
def make_job(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Job]:
    folder = photos_in(tmp_path_factory.mktemp("photos"), {"ant": 12, "bee": 11})
    (sorted((folder / "bee").iterdir())[3]).write_bytes(b"<html>")
    source = open_source(folder)
    backbone = load_backbone("alexnet-owt", weights="random", seed=0)
    stored = Stored.of(FeaturesOptions(layer=LAYERS), backbone)

    def make(batch_size: int, threads: int) -> Job:
        return Job(source, backbone, stored, torch.device("cpu"), batch_size, threads)

    return make


def all_of(job: Job) -> tuple[dict[str, npt.NDArray[np.float32]], list[RowProblem]]:
    """Every value by layer, in the order of rows, and what is wrong with the others."""
    found = list(job.features(np.arange(COUNT)))
    rows = np.concatenate([batch.rows for batch in found])
    assert rows.tolist() == sorted(rows.tolist())
    values = {
        name: np.concatenate([batch.values[name] for batch in found if batch.rows.size])
        for name in LAYERS
    }
    return values, [problem for batch in found for problem in batch.problems]


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (1, 3), (5, 2), (22, 1), (64, 2)])
def test_batches_and_cores_change_no_bit(
    make_job: Callable[..., Job], batch_size: int, threads: int
) -> None:
    before = torch.get_num_threads()
    values, problems = all_of(make_job(batch_size, threads))
    expected, expected_problems = all_of(make_job(7, 1))
    for layer, value in values.items():
        assert len(value) == COUNT - 1
        np.testing.assert_array_equal(value, expected[layer])
    assert problems == expected_problems
    assert [problem.status for problem in problems] == [Status.UNREADABLE]
    assert torch.get_num_threads() == before


def test_one_pass_for_all_layers_is_equal_to_the_bit_to_a_pass_each(
    make_job: Callable[..., Job],
) -> None:
    job = make_job(16, 1)
    names = tuple(name for name in job.backbone.net.layer_shapes() if name != "conv1:pre")
    assert {"conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7:pre", "fc8"} <= set(names)

    def values(layers: tuple[str, ...]) -> dict[str, npt.NDArray[np.float32]]:
        stored = Stored.of(FeaturesOptions(layer=layers), job.backbone)
        (found,) = replace(job, stored=stored).features(np.arange(8))
        return {name: found.values[name] for name in layers}

    together = values(names)
    for name in names:
        np.testing.assert_array_equal(values((name,))[name], together[name])


@pytest.mark.parametrize("count", [0, 1, 2, 7, 64, 65, 128, 1000])
@pytest.mark.parametrize(("size", "streams"), [(64, 1), (64, 2), (3, 2), (64, 16)])
def test_cores_end_together(count: int, size: int, streams: int) -> None:
    """Every row once and in order; what one stream still does when the others are out of work
    is no more than the smallest batch."""
    rows = np.arange(count)
    parts = list(shared(rows, size, streams))
    assert np.concatenate([rows[:0], *parts]).tolist() == rows.tolist()
    sizes = [len(part) for part in parts]
    assert all(0 < one <= size for one in sizes)
    done = [0] * streams
    for one in sizes:
        done[done.index(min(done))] += one
    assert max(done) - min(done) <= max(LAST_BATCH, 1)


def test_bf16_is_near_and_only_when_asked(make_job: Callable[..., Job]) -> None:
    job = make_job(64, 2)
    exact, _ = all_of(job)
    rough, problems = all_of(replace(job, stored=replace(job.stored, precision=Precision.BF16)))
    assert len(problems) == 1
    for layer, value in rough.items():
        assert value.dtype == np.float32
        apart = np.linalg.norm(value - exact[layer]) / np.linalg.norm(exact[layer])
        assert 1e-4 < apart < 3e-2


def test_tf32_is_asked_for_or_off() -> None:
    use_precision(Precision.FLOAT32, torch.device("cpu"))
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    with pytest.raises(UsageError, match="NVIDIA"):
        use_precision(Precision.TF32, torch.device("cpu"))


def test_replicas_share_the_rows_and_change_no_bit(make_job: Callable[..., Job]) -> None:
    alone = make_job(4, 2)
    job = alone.on_also([torch.device("cpu")] * 2)
    assert len(job.devices) == 3
    nets = {id(one.backbone.net) for one in (job, *job.replicas)}
    assert len(nets) == 3
    assert alone.replicas == ()
    found = list(job.features(np.arange(COUNT)))
    expected, expected_problems = all_of(alone)
    rows = np.concatenate([batch.rows for batch in found])
    for layer in LAYERS:
        values = np.concatenate([batch.values[layer] for batch in found if batch.rows.size])
        np.testing.assert_array_equal(values[np.argsort(rows)], expected[layer])
    assert [problem for batch in found for problem in batch.problems] == expected_problems


def test_no_rows_give_nothing(make_job: Callable[..., Job]) -> None:
    for threads in (1, 2):
        job = make_job(4, threads)
        assert list(job.features(np.empty(0, np.int64), FeatureDtype.FLOAT16)) == []
