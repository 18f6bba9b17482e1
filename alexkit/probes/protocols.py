"""The protocols as data: one literal record each, with the source of every number.

Sources: DeCAF is arXiv:1310.1531; Zeiler & Fergus arXiv:1311.2901, Table 7; Razavian et al.
arXiv:1403.6382; Goyal et al. 2019 (arXiv:1905.01235) as the code of VISSL and FAIR's benchmark
has it; Kornblith et al. arXiv:1805.08974 as the code of ssl-transfer has it; CLIP
arXiv:2103.00020 as openai/CLIP's issue 39 and CLIP_benchmark have it. Only numbers read in a
paper or in such code stand under ``published``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from alexkit.errors import UnknownName

Parts = Literal["holdout", "kfold", "few-shot"]
Metric = Literal["accuracy", "mean_class_accuracy", "map"]
Inside = Literal["folds", "own", "sixth", "val"]

FOLDS = 5
"""Splits of ``kfold``, and the repeats of ``few-shot``."""
VISSL_C = (0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0)
KORNBLITH_C = tuple(10 ** (6 - 11 * i / 44) for i in range(45))
"""1 / λ, λ from 1e-6 to 1e5 in 45 equal steps of the logarithm, where λ / 2 is the price of
‖W‖² against the sum of the losses, as scikit-learn has it."""
CLIP_C = (1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6)
"""The coarse grid; the steps around the best are halved until there are 8 a decade."""
CLIP_STEPS = 8


@dataclass(frozen=True)
class Published:
    """A column of somebody else's figures: percent and its standard deviation, by layer.

    ``classes`` says on which data, by its number of classes; it stands beside no other data.
    """

    name: str
    classes: tuple[int, ...]
    percent: dict[str, tuple[float, float | None]]
    probe: str


DECAF = Published(
    "DeCAF, Caltech-101",
    (101, 102),
    {"pool5": (77.12, 1.1), "fc6": (84.77, 1.2), "fc7": (83.24, 1.2)},
    "svm",
)
DECAF_LOGISTIC = Published(
    "DeCAF, Caltech-101",
    (101, 102),
    {"pool5": (63.29, 6.6), "fc6": (84.30, 1.6), "fc7": (84.87, 0.6)},
    "logistic",
)
ZEILER_FERGUS = Published(
    "Zeiler & Fergus, Caltech-101",
    (101, 102),
    {
        "conv1": (44.8, None),
        "conv2": (66.2, None),
        "conv3": (72.3, None),
        "conv4": (76.6, None),
        "pool5": (86.2, None),
        "fc7": (85.5, None),
    },
    "svm",
)


def razavian_on(data: str, classes: int, percent: float) -> Published:
    """OverFeat's first fully connected layer, without augmentation (Tables 1 to 4)."""
    return Published(
        f"Razavian, OverFeat, {data}", (classes,), {"fc6": (percent, None)}, "hinge"
    )


@dataclass(frozen=True)
class ProtocolRecord:
    """How rows are divided, what is fitted, and what is chosen how.

    Attributes:
        parts: the file's own split, folds, or some rows of each class.
        probe, norm: the defaults; ``offset`` is what ``l2`` adds to the length.
        shots: training rows of a class; 0 where ``parts`` is not ``few-shot``.
        test_most: test rows of a class at most; 0 for no limit.
        repeats: splits of ``few-shot``.
        grid: the C; empty for powers of ten around 1 / mean ‖x‖² of the training rows.
        halving: whether steps around the best C are halved (CLIP).
        inside: C is chosen by 3 folds inside the training rows, on the val rows (``own``: where
            there are none, by 3 folds; ``val``: on a tenth of the training rows), or on a sixth
            (25 of 30 train, 5 judge); then all are fitted.
        per_class: whether each class has its own C, by its average precision.
        positive: what C is multiplied by for the rows of the class itself.
        pooled: whether convolutional layers are average-pooled as in Goyal et al.
        metric: by which C is chosen and which is shown first.
        several: whether a row may have several classes.
    """

    name: str
    source: str
    parts: Parts = "holdout"
    probe: str = "svm"
    norm: str = "none"
    offset: float = 0.0
    shots: int = 0
    test_most: int = 0
    repeats: int = FOLDS
    grid: tuple[float, ...] = ()
    halving: bool = False
    inside: Inside = "folds"
    per_class: bool = False
    positive: float = 1.0
    pooled: bool = False
    metric: Metric = "mean_class_accuracy"
    several: bool = False
    published: tuple[Published, ...] = field(default=())


RECORDS = (
    ProtocolRecord(
        name="holdout",
        source="the file's own split, or a fifth of each class held out",
        inside="own",
    ),
    ProtocolRecord(name="kfold", source="5 stratified folds", parts="kfold"),
    ProtocolRecord(
        name="few-shot",
        source="rows of each class drawn at random, the others test",
        parts="few-shot",
        shots=30,
    ),
    ProtocolRecord(
        name="caltech101",
        source="Zeiler & Fergus 2013; at most 50 test rows as in Chatfield et al. 2014",
        parts="few-shot",
        shots=30,
        test_most=50,
        published=(DECAF, ZEILER_FERGUS),
    ),
    ProtocolRecord(
        name="decaf",
        source="Donahue et al. 2013, section 4.1, without dropout",
        parts="few-shot",
        shots=30,
        inside="sixth",
        published=(DECAF, DECAF_LOGISTIC),
    ),
    ProtocolRecord(
        name="razavian",
        source="Razavian et al. 2014, sections 3.1 and 3.6, without augmentation; one class "
        "against the rest where theirs is one against one; C 0.2 with several classes a row",
        probe="hinge",
        norm="l2",
        grid=(2.0,),
        several=True,
        published=(
            razavian_on("VOC07", 20, 73.9),
            razavian_on("MIT-67", 67, 58.4),
            razavian_on("CUB-200", 200, 53.3),
            razavian_on("Flowers-102", 102, 74.7),
        ),
    ),
    ProtocolRecord(
        name="goyal",
        source="Goyal et al. 2019 as in VISSL",
        norm="l2",
        offset=1e-5,
        grid=VISSL_C,
        per_class=True,
        positive=2.0,
        pooled=True,
        metric="map",
        several=True,
    ),
    ProtocolRecord(
        name="kornblith",
        source="Kornblith et al. 2019 as in ssl-transfer",
        probe="logistic",
        grid=KORNBLITH_C,
        inside="val",
        metric="accuracy",
    ),
    ProtocolRecord(
        name="clip",
        source="Radford et al. 2021 as in CLIP_benchmark's search",
        probe="logistic",
        grid=CLIP_C,
        halving=True,
        inside="val",
        metric="accuracy",
    ),
    ProtocolRecord(
        name="voc07",
        source="VOC 2007 classification, trainval against test, difficult rows left out of "
        "both; rows of length 1, and C as in VISSL",
        norm="l2",
        offset=1e-5,
        grid=VISSL_C,
        per_class=True,
        metric="map",
        several=True,
    ),
)
PROTOCOLS = {record.name: record for record in RECORDS}

RAZAVIAN_SEVERAL_C = 0.2
"""Razavian et al.'s C on VOC 2007, H3D and UIUC attributes, where a row has several labels."""


def protocol_of(name: str) -> ProtocolRecord:
    """The record of that name.

    Raises:
        UnknownName: there is none.
    """
    if name not in PROTOCOLS:
        raise UnknownName("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
