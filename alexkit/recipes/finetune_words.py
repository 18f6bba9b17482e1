"""What the words of ``finetune`` mean together for one network."""

from __future__ import annotations

from dataclasses import dataclass

from alexkit.choices import Augment, FitHead, Freeze
from alexkit.errors import UsageError
from alexkit.events import Chosen, Reporter
from alexkit.images.views import Views
from alexkit.models.heads import READABLE
from alexkit.models.layered import CLASSIFIER
from alexkit.models.torchvision_heads import read_by_head
from alexkit.models.torchvision_nets import TorchvisionBackbone
from alexkit.models.zoo import Backbone
from alexkit.recipes.options import FinetuneOptions
from alexkit.recipes.solved_head import UNITS

RBF_READS = "pool5"
TEN = len(Views("ten"))


@dataclass(frozen=True)
class How:
    """How a network is fitted.

    Attributes:
        freeze: never ``auto`` unless the head is solved and unfreezing is to be tried.
        head: never ``auto``; ``fc`` learns in epochs, the others are convex fits.
        after: the layer up to which weights stay; None where all learn.
        augment: never ``auto``.
        stored: whether the frozen part runs once.
    """

    freeze: Freeze
    head: FitHead
    after: str | None
    augment: Augment
    stored: bool

    @property
    def solved(self) -> bool:
        """Whether the head is a convex fit."""
        return self.head is not FitHead.FC


def settle_how(
    options: FinetuneOptions,
    backbone: Backbone | TorchvisionBackbone,
    images: int,
    report: Reporter,
) -> How:
    """What the options ask of ``backbone``, which has its new head, and what they leave open.

    Args:
        images: how many there are.

    Raises:
        UsageError: the words do not go together, or not with these weights or so many images.
    """
    top = top_of(backbone)
    freeze, head = options.freeze, options.head
    learnt = options.epochs is not None or options.lr is not None
    if freeze is Freeze.AUTO and (head is FitHead.FC or learnt or top is None):
        freeze = Freeze.CONV5
        if isinstance(backbone, TorchvisionBackbone):
            freeze = Freeze.NONE if top is None else Freeze.FC7
        report(Chosen("frozen up to", freeze.value, "what learns in epochs is the classifier"))
    solving = freeze in (Freeze.AUTO, Freeze.FC8)
    rbf = top == RBF_READS and images <= UNITS
    if head is FitHead.AUTO:
        solved = FitHead.RBF if rbf else FitHead.MEAN
        head = solved if solving else FitHead.FC
    if solving != (head is not FitHead.FC):
        raise UsageError(
            f"--head {head.value} and --freeze {freeze.value} do not go together",
            hint="rbf, mean, logistic and svm are fitted at once: --freeze fc8 or auto; fc "
            "learns in epochs: --freeze fc7, fc6, conv5 or none",
        )
    if solving and learnt:
        raise UsageError(
            f"--head {head.value} is fitted at once and has no epochs or learning rate",
            hint="leave out --epochs and --lr, or use --head fc",
        )
    if head is FitHead.RBF and not rbf:
        why = f"one unit an image, of which there are {images:,}, and at most {UNITS:,} units"
        if top != RBF_READS:
            why = f"maps of {RBF_READS}, and this network's last layer reads {top}"
        raise UsageError(f"--head rbf takes {why}", hint="use --head mean")
    after = top if solving else _after(freeze, backbone, top)
    preprocess = backbone.preprocess
    room = preprocess.resize > preprocess.crop and images * TEN <= UNITS
    views = Augment.CORNERS if head is FitHead.RBF and room else Augment.VIEWS
    return _with_pixels(options, freeze, head, after, views, report)


def _with_pixels(
    options: FinetuneOptions,
    freeze: Freeze,
    head: FitHead,
    after: str | None,
    views: Augment,
    report: Reporter,
) -> How:
    """Where the frozen part runs, and on what; ``views`` are those stored unless others are
    asked for."""
    stored = after is not None and not options.uncached
    augment = options.augment
    if stored and augment is Augment.RANDOM:
        raise UsageError(
            "--augment random makes new pixels at every epoch, so nothing can be stored",
            hint="add --uncached, or use --augment views",
        )
    if not stored and augment.stored:
        raise UsageError(
            f"--augment {augment.value} are views that are stored of a frozen part",
            hint="use --augment random, or leave out --uncached and --freeze none",
        )
    if head is not FitHead.FC and not stored:
        raise UsageError(
            f"--head {head.value} is fitted to stored values", hint="leave out --uncached"
        )
    if augment is Augment.AUTO:
        augment = views if stored else Augment.RANDOM
    if augment.stored:
        told = "mirrored" if augment is Augment.VIEWS else "corners, centre, mirrored"
        report(
            Chosen(
                "augmentation",
                "stored views",
                f"{told}: the frozen part runs once, not every epoch",
            )
        )
    return How(freeze, head, after, augment, stored)


def top_of(backbone: Backbone | TorchvisionBackbone) -> str | None:
    """The layer the head reads; None where it cannot be told apart."""
    if isinstance(backbone, TorchvisionBackbone):
        return read_by_head(backbone.net)
    shapes = backbone.net.layer_shapes()
    return next(layer for layer in READABLE if layer in shapes)


def _after(
    freeze: Freeze, backbone: Backbone | TorchvisionBackbone, top: str | None
) -> str | None:
    if freeze is Freeze.NONE:
        return None
    if isinstance(backbone, TorchvisionBackbone):
        if freeze is not Freeze.FC7 or top is None:
            raise UsageError(
                f"--freeze {freeze.value} is no layer of {backbone.name}",
                hint="use auto, fc8 or fc7 (all but the last layer stays), or none",
            )
        return top
    if freeze.value in CLASSIFIER and freeze.value not in backbone.net.layer_shapes():
        raise UsageError(
            f"--freeze {freeze.value}: these weights have no {freeze.value}",
            hint="use --freeze conv5 or none",
        )
    return "pool5" if freeze is Freeze.CONV5 else freeze.value
