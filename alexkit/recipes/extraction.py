"""The features of some rows: what decides their values, and how the cores share the work."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from queue import SimpleQueue

import numpy as np
import torch

from alexkit.choices import FeatureDtype, Precision
from alexkit.errors import UsageError
from alexkit.events import Reporter
from alexkit.features.extract import FeatureBatch, extract
from alexkit.features.streams import side_by_side
from alexkit.images.batches import read_batches
from alexkit.images.draws import Rows
from alexkit.images.prefetch import on_device
from alexkit.images.source import ImageSource
from alexkit.models.layered import LayeredNet
from alexkit.recipes.devices import decode_threads, use_precision
from alexkit.recipes.inputs import settled
from alexkit.recipes.layers import AnyBackbone, Stored
from alexkit.recipes.meter import Meter
from alexkit.recipes.options import SharedOptions

BATCH_SIZE = {"cpu": 128, "cuda": 256}
"""128 on a CPU: AlexNet's fully connected weights, 220 MB, are read once a batch; its maps are
made of fewer images at a time (:data:`alexkit.models.layered.PIECE`)."""
MAP_BYTES = 2**27
"""The most that a derived batch's maps may take on a CPU, of every core: its largest, or, of a
network that makes maps of fewer images at a time, those that are asked for."""
LAST_BATCH = 8
"""Images of the smallest batch made to end at about the same time on every core."""
GPU_STREAMS = 2
"""Batches at work on each of several GPUs: one is decoded while the other is computed."""
BATCH_BYTES = 2**30
"""The most the features of a derived batch may take: all layers of AlexNet are far below."""


@dataclass(frozen=True)
class Job:
    """Images, a network and what is stored of it.

    Attributes:
        source: the images.
        backbone: the network, on ``device``, and its preprocessing.
        stored: layers, poolings, views, number type.
        device: where the network is.
        batch_size: images of a batch.
        threads: cores to use.
        replicas: the same work on further devices.
    """

    source: ImageSource
    backbone: AnyBackbone
    stored: Stored
    device: torch.device
    batch_size: int
    threads: int
    replicas: tuple[Job, ...] = ()

    @classmethod
    def of(
        cls,
        source: ImageSource,
        backbone: AnyBackbone,
        stored: Stored,
        device: torch.device,
        options: SharedOptions,
        report: Reporter,
        processes: int = 1,
    ) -> Job:
        """Puts the network on ``device``, and settles what ``options`` leave open.

        Args:
            processes: that share the cores.

        Raises:
            UsageError: the device does not have the precision of ``stored``.
        """
        backbone.net.place([device])
        use_precision(stored.precision, device)
        size = settle_batch_size(options.batch_size, backbone, stored, device, report)
        threads = decode_threads(options.workers, processes)
        return cls(source, backbone, stored, device, size, threads)

    def on_also(self, devices: Sequence[torch.device]) -> Job:
        """The same work with a replica of the network on each of further ``devices``."""
        replicas = []
        for device in devices:
            backbone = copy.copy(self.backbone)
            backbone.net = copy.deepcopy(self.backbone.net)
            backbone.net.place([device])
            replicas.append(replace(self, backbone=backbone, device=device))
        return replace(self, replicas=tuple(replicas))

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """All that are used."""
        return (self.device, *(job.device for job in self.replicas))

    def features(
        self,
        rows: Rows,
        dtype: FeatureDtype | None = None,
        meter: Meter | None = None,
    ) -> Iterator[FeatureBatch]:
        """What is stored of ``rows``, batch by batch; in their order on one device.

        On a CPU every core takes a batch of its own from bytes to features, so that none waits
        for another. A row's values depend neither on ``threads`` nor on the batch it is in. Of
        several devices the one that is free takes the next batch.

        Args:
            rows: (n) int64, in the order wanted.
            dtype: number type; None is the one that is stored.
            meter: hears how long a GPU waits for images; on a CPU nothing does.

        Raises:
            OutOfMemory: a batch does not fit into the device's memory.
        """
        dtype = dtype or self.stored.dtype
        if self.device.type != "cpu" and not self.replicas:
            return self._extract(rows, self.threads, dtype, meter)
        jobs = (self, *self.replicas)
        on_cpu = self.device.type == "cpu"
        streams = max(self.threads, len(jobs)) if on_cpu else GPU_STREAMS * len(jobs)
        free: SimpleQueue[Job] = SimpleQueue()
        for stream in range(streams):
            free.put(jobs[stream % len(jobs)])

        def work(part: Rows) -> FeatureBatch:
            job = free.get()
            try:
                threads = 0 if on_cpu else max(1, self.threads // streams)
                (found,) = job._extract(part, threads, dtype)
                return found
            finally:
                free.put(job)

        parts = shared(rows, self.batch_size, streams)
        return side_by_side(parts, work, streams, in_order=not self.replicas)

    def _extract(
        self, rows: Rows, threads: int, dtype: FeatureDtype, meter: Meter | None = None
    ) -> Iterator[FeatureBatch]:
        preprocess, views = self.backbone.preprocess, self.stored.views
        batches = read_batches(
            self.source,
            rows,
            views.to_square(preprocess),
            batch_size=self.batch_size,
            threads=threads,
            exif=preprocess.exif,
            at_least=preprocess.at_least,
            pin=self.device.type == "cuda",
        )
        there = on_device(batches, self.device)
        return extract(
            self.backbone.net,
            there if meter is None else meter.watch(there),
            list(self.stored.shapes),
            normalise=preprocess.normalise,
            device=self.device,
            dtype=dtype,
            pooling=self.stored.pooling,
            cut=None if len(views) == 1 else partial(views.cut, preprocess=preprocess),
            average=self.stored.average,
            autocast=torch.bfloat16 if self.stored.precision is Precision.BF16 else None,
        )


def shared(rows: Rows, batch_size: int, streams: int) -> Iterator[Rows]:
    """``rows`` in batches, smaller ones towards the end: no stream waits long for the last."""
    least = min(LAST_BATCH, batch_size, max(1, len(rows) // streams))
    first = 0
    while first < len(rows):
        share = -(-(len(rows) - first) // streams)
        size = min(batch_size, max(least, share))
        yield rows[first : first + size]
        first += size


def settle_batch_size(
    asked: int | None,
    backbone: AnyBackbone,
    stored: Stored,
    device: torch.device,
    report: Reporter,
) -> int:
    """As asked, or by device; smaller where maps or features would fill the memory."""
    usual = BATCH_SIZE[device.type]
    views = len(stored.views) if stored.average else 1
    fitting = max(1, BATCH_BYTES // (stored.row_bytes * views))
    if device.type == "cpu":
        shapes = backbone.net.layer_shapes()
        if isinstance(backbone.net, LayeredNet):
            held = sum(prod(shapes[layer]) for layer in stored.shapes)
        else:
            held = max(map(prod, shapes.values()))
        fitting = min(fitting, max(1, MAP_BYTES // (4 * held)))
    rule = f"for {device.type}" + (" and maps of this size" if fitting < usual else "")
    return settled("batch size", asked, min(usual, fitting), rule, report)


def check_float16(job: Job) -> None:
    """Computes the first batch before anything is written.

    A later row that float16 cannot hold gets status 3; that the first ones do is no accident.

    Raises:
        UsageError: a value of it is more than float16 can hold.
    """
    rows = np.arange(min(job.batch_size, len(job.source)))
    for found in job.features(rows, FeatureDtype.FLOAT32):
        for layer, values in found.values.items():
            most = float(np.abs(values).max(initial=0))
            if most > float(np.finfo(np.float16).max):
                raise UsageError(
                    f"{layer} reaches {most:.6g} in the first {len(rows)} images, more than "
                    "float16 can hold; nothing was written",
                    hint="use --dtype float32",
                )
