"""The way that is tried and chosen changes nothing but the time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from alexkit.choices import FeatureDtype
from alexkit.events import Event, Note
from alexkit.features.extract import FeatureBatch
from alexkit.images.draws import Rows
from alexkit.images.opening import open_source
from alexkit.models.zoo import load_backbone
from alexkit.recipes import trial
from alexkit.recipes.extraction import Job
from alexkit.recipes.layers import Stored
from alexkit.recipes.meter import Meter
from alexkit.recipes.options import FeaturesOptions
from alexkit.recipes.trial import LEAST_BATCHES, features_tried
from tests.conftest import Clock, photos_in

BATCH, THREADS = 4, 1
COUNT = LEAST_BATCHES * BATCH


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    source = open_source(photos_in(tmp_path_factory.mktemp("photos"), {"ant": COUNT}))
    backbone = load_backbone("alexnet-owt", weights="random", seed=0)
    stored = Stored.of(FeaturesOptions(layer=("pool5", "fc7")), backbone)
    return Job(source, backbone, stored, torch.device("cpu"), BATCH, THREADS)


def test_every_row_comes_once_and_is_the_same_to_the_bit(job: Job) -> None:
    told: list[Event] = []
    rows = np.arange(COUNT)
    found = list(features_tried(job, rows, None, told.append))
    expected = list(job.features(rows))
    for layer in ("pool5", "fc7"):
        np.testing.assert_array_equal(
            np.concatenate([batch.values[layer] for batch in found]),
            np.concatenate([batch.values[layer] for batch in expected]),
        )
    np.testing.assert_array_equal(np.concatenate([batch.rows for batch in found]), rows)
    (note,) = told
    assert isinstance(note, Note)
    assert "batches of 4 on 1 threads" in note.text
    assert "batches of 1 on 1 threads" in note.text


class SlowInLargeBatches(Job):
    """Of a processor that is."""

    def features(
        self, rows: Rows, dtype: FeatureDtype | None = None, meter: Meter | None = None
    ) -> Iterator[FeatureBatch]:
        sizes.append(self.batch_size)
        for first in range(0, len(rows), self.batch_size):
            part = rows[first : first + self.batch_size]
            CLOCK.now += len(part) ** 2
            yield FeatureBatch(part, {}, ())


CLOCK, sizes = Clock(), list[int]()


def test_the_quickest_goes_on(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "time", CLOCK)
    slow = SlowInLargeBatches(**vars(job))
    sizes.clear()
    told: list[Event] = []
    found = list(features_tried(slow, np.arange(COUNT), None, told.append))
    assert sizes[0] == sizes[1] == BATCH
    assert sizes[-1] == BATCH // 4
    assert "going on with batches of 1" in str(told)
    assert np.concatenate([batch.rows for batch in found]).tolist() == list(range(COUNT))
    sizes.clear()
    list(features_tried(slow, np.arange(COUNT - 1), None, told.append))
    assert sizes == [BATCH], "few images are not worth it"
    sizes.clear()
    one = replace(slow, batch_size=2)
    list(features_tried(one, np.arange(COUNT), None, told.append))
    assert sizes == [2]
