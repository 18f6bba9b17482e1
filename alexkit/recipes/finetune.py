"""A pretrained network fitted to one's own images."""

from __future__ import annotations

from typing import Any

from alexkit.choices import Freeze
from alexkit.errors import UsageError
from alexkit.events import Chosen, Reporter
from alexkit.models.heads import freeze, parameter_groups, replace_head
from alexkit.models.layered import CLASSIFIER
from alexkit.recipes.devices import (
    autocast_of,
    decode_threads,
    place,
    resolve_devices,
    use_deterministic,
)
from alexkit.recipes.fitting import fit_in_run_dir
from alexkit.recipes.inputs import choose_backbone, holdout, open_data, settled
from alexkit.recipes.options import FinetuneOptions
from alexkit.recipes.orientation import settle_exif
from alexkit.recipes.plan import Plan
from alexkit.recipes.run_dir import Remembering
from alexkit.training.optim import make_optimizer
from alexkit.training.schedule import Decay

HOLD_OUT = 0.2
EPOCHS = 20
BATCH_SIZE = 64
LR = 0.001
"""A tenth of the rate the network was trained with (Girshick et al., R-CNN, §2.3, fine-tune
AlexNet at that rate)."""
HEAD_MULTIPLIER = 10.0
"""The new layer learns ten times as fast (Caffe, ``models/finetune_flickr_style``)."""
LR_ON_POOL5 = 0.00001
"""Where the new layer reads pool5: its vectors are longer than fc7's (mean squared length
40,000 for torchvision's weights on photos of flowers), and the steepest direction of the
loss grows with that square. On those photos 0.0001 for fc8 held out 81.5 %, 0.001 80.8 % and
0.01 76.9 % (20 epochs, 4 seeds, no augmentation)."""
WEIGHT_DECAY = 0.0005
"""NIPS 2012 §5."""
WARMUP_SHARE = 0.05
"""Of the epochs: the new layer's first gradients are large."""


def run(options: FinetuneOptions, report: Reporter) -> dict[str, Any]:
    """Fits a pretrained network to ``options.data``.

    fc8 is replaced by one for the classes found. Where the weights have no classifier, the
    new layer reads pool5.

    Returns the held-out accuracy and where the run is.

    Raises:
        AlexkitError: see :mod:`alexkit.errors`; no run folder is made before the data, the
            weights and the devices are known to be usable.
    """
    if options.data is None:
        raise UsageError("no data was named", hint="type: alexkit finetune mydata/")
    report = Remembering(report)
    devices = resolve_devices(options.device, report)
    source = open_data(options.data, report)
    rows = holdout(source, fraction=HOLD_OUT, seed=options.seed, report=report)
    backbone = choose_backbone(options.model, options.weights, options.seed, report)
    net = backbone.net
    replace_head(net, len(source.classes), seed=options.seed)
    backbone.classes = source.classes
    backbone.preprocess = settle_exif(
        backbone.preprocess,
        options.exif,
        source,
        report,
        own_photos=True,
    )
    place(net, backbone.spec.name, devices)
    upto = options.freeze
    if upto is Freeze.AUTO:
        upto = Freeze.CONV5
        report(Chosen("frozen up to", upto.value, "the classifier learns, the maps stay"))
    if upto.value in CLASSIFIER and upto.value not in net.layer_shapes():
        raise UsageError(
            f"--freeze {upto.value}: these weights have no {upto.value}",
            hint="use --freeze conv5 or none",
        )
    freeze(net, upto)
    rule = "the default of finetune"
    epochs = settled("epochs", options.epochs, EPOCHS, rule, report)
    batch_size = settled("batch size", options.batch_size, BATCH_SIZE, rule, report)
    lr = LR if "fc7" in net.layer_shapes() else LR_ON_POOL5
    rule = f"and {HEAD_MULTIPLIER:g} times that for fc8"
    lr = settled("learning rate", options.lr, lr, rule, report)
    use_deterministic(options.deterministic)
    plan = Plan(
        backbone=backbone,
        source=source,
        holdout=rows,
        optimizer=make_optimizer(
            parameter_groups(net, HEAD_MULTIPLIER), weight_decay=WEIGHT_DECAY
        ),
        schedule=Decay(lr, epochs, warmup=WARMUP_SHARE * epochs, cosine=True),
        epochs=epochs,
        batch_size=batch_size,
        threads=decode_threads(options.workers),
        seed=options.seed,
        color=0.0,
        strict=options.strict,
        max_seconds=None if options.max_time is None else 60 * options.max_time,
        autocast=autocast_of(options.precision, devices[0], report),
    )
    return fit_in_run_dir("finetune", options, plan, report)
