"""What is stored of each image: which layers, in which shape, and how many bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from alexkit.choices import WEIGHT_WORDS, Average, Compress, FeatureDtype, Precision
from alexkit.errors import UsageError
from alexkit.events import Note, Reporter
from alexkit.features.layout import DTYPES
from alexkit.features.parts import parts_beside
from alexkit.features.pooling import Pooling, Shape
from alexkit.images.views import Views
from alexkit.models.zoo import Backbone, skeleton
from alexkit.recipes.inputs import choose_backbone, choose_weights
from alexkit.recipes.options import FeaturesOptions
from alexkit.recipes.space import need
from alexkit.reports.tables import size
from alexkit.whole_file import partial_path

if TYPE_CHECKING:
    from alexkit.models.torchvision_nets import TorchvisionBackbone

AnyBackbone: TypeAlias = "Backbone | TorchvisionBackbone"


@dataclass(frozen=True)
class Stored:
    """What is stored of each image.

    Attributes:
        shapes: layer -> shape of one row, in the order asked for.
        pooling, views: as asked for.
        average: whether the views are averaged, and so no axis of the rows.
        dtype: number type of every layer.
        compress: filter of the finished file.
        precision: of the network's products.
    """

    shapes: Mapping[str, Shape]
    pooling: Pooling
    views: Views
    average: bool
    dtype: FeatureDtype
    compress: Compress
    precision: Precision = Precision.FLOAT32

    @classmethod
    def of(cls, options: FeaturesOptions, backbone: AnyBackbone) -> Stored:
        """What ``options`` ask of a network.

        Raises:
            UnknownName, WeightsMismatch: see ``resolve_layers``.
            UsageError: a pooling or views that the layers or the preprocessing do not allow.
        """
        form = _Form.of(options, backbone)
        layers = backbone.resolve_layers(options.layer)
        whole = backbone.net.layer_shapes()
        return cls(
            {layer: form.shape(layer, whole[layer]) for layer in layers},
            form.pooling,
            form.views,
            form.average,
            options.dtype,
            options.compress,
            options.precision,
        )

    @classmethod
    def one_layer(
        cls,
        backbone: AnyBackbone,
        layer: str,
        views: Views,
        pooling: Pooling = Pooling(),  # noqa: B008 - frozen
    ) -> Stored:
        """One layer in float32, its views apart.

        Raises:
            UsageError: the views do not fit the preprocessing.
        """
        views.places(backbone.preprocess)
        whole = pooling.shape(layer, backbone.net.layer_shapes()[layer])
        shape = whole if len(views) == 1 else (len(views), *whole)
        dtype = FeatureDtype.FLOAT32
        return cls({layer: shape}, pooling, views, False, dtype, Compress.NONE)

    @property
    def row_bytes(self) -> int:
        """Bytes of all layers of one image."""
        return sum(map(prod, self.shapes.values())) * DTYPES[self.dtype].itemsize

    @property
    def stored_views(self) -> int:
        """How many views a row holds; 0 where it holds one value."""
        return 0 if self.average or len(self.views) == 1 else len(self.views)

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for an interrupted file to be continued; JSON-safe."""
        return {
            "layers": list(self.shapes),
            "pool": str(self.pooling),
            "average": "features" if self.average else "none",
            "dtype": self.dtype.value,
            "compress": self.compress.value,
            "precision": self.precision.value,
        }


@dataclass(frozen=True)
class _Form:
    """What becomes of the values of any layer."""

    pooling: Pooling
    views: Views
    average: bool
    maps_are_last: bool

    @classmethod
    def of(cls, options: FeaturesOptions, backbone: AnyBackbone) -> _Form:
        pooling, views = Pooling.parse(options.pool), Views.parse(options.views)
        average = options.average is Average.FEATURES
        if average and len(views) == 1:
            raise UsageError(
                "--average features has one view only to average", hint="add --views ten"
            )
        views.places(backbone.preprocess)
        return cls(pooling, views, average, backbone.maps_are_last)

    def shape(self, layer: str, whole: Shape) -> Shape:
        """The shape of a row."""
        unknown = self.pooling.how not in ("none", "flat") and len(whole) == 3
        if self.maps_are_last and unknown:
            raise UsageError(
                f"maps of {layer} are (H, W, C), which --pool {self.pooling} does not know",
                hint="leave --pool out, or use --pool flat",
            )
        shape = self.pooling.shape(layer, whole)
        return shape if self.average or len(self.views) == 1 else (len(self.views), *shape)


def tell_forecast(
    path: Path,
    rows: int,
    stored: Stored,
    report: Reporter,
    ranks: int = 1,
    *,
    virtual: bool = False,
) -> None:
    """Says what the file takes; with several ``ranks``, their parts stand beside it, or are,
    of a ``virtual`` one, all there is.

    Raises:
        OutOfSpace: that does not fit on the disk; nothing was written.
    """
    nbytes = rows * stored.row_bytes
    # An interrupted file has its space already; a compressed copy stands beside it for a while.
    begun = partial_path(path)
    needed = 0 if begun.is_file() else nbytes
    parts = nbytes * (ranks - 1) // ranks
    needed += parts if stored.compress is Compress.NONE else nbytes
    if virtual:  # an interrupted one has the space of its parts already
        taken = sum(part.stat().st_size for part in parts_beside(path))
        needed = max(0, nbytes - taken)
    there = next(folder for folder in path.absolute().parents if folder.is_dir())
    hint = "free some space, choose another --out, or store less: --pool, --dtype float16, "
    free = need(there, needed, str(path), f"{hint}fewer layers or views")
    shapes = (f"{name} {' × '.join(map(str, s))}" for name, s in stored.shapes.items())
    twice = f", {size(needed)} while it is made" if needed > nbytes else ""
    report(
        Note(
            f"{', '.join(shapes)} {stored.dtype.value}: {rows:,} images × "
            f"{size(stored.row_bytes)} = {size(nbytes)}{twice}; {size(free)} are free"
        )
    )


def list_layers(options: FeaturesOptions, report: Reporter) -> dict[str, Any]:
    """Every layer of a network with what would be stored of it; reads no images, and no
    weights where the network is known without them.

    Raises:
        AlexkitError: see :mod:`alexkit.errors`.
    """
    weights = options.weights
    if options.model is None:
        weights = str(choose_weights(weights, report))
    if weights == "imagenet" or (options.model is not None and weights in WEIGHT_WORDS):
        backbone = skeleton(options.model)
    else:
        backbone = choose_backbone(options.model, weights, options.seed, report)
    form, aliases = _Form.of(options, backbone), backbone.layer_aliases()
    shown, itemsize = [], DTYPES[options.dtype].itemsize
    also = {alias for names in aliases.values() for alias in names}
    for name, whole in backbone.net.layer_shapes().items():
        if name in also:
            continue
        try:
            shape = form.shape(name, whole)
        except UsageError as error:
            report(Note(f"left out: {error.message}"))
            continue
        nbytes = prod(shape) * itemsize
        told = {"name": name, "aliases": aliases.get(name, []), "shape": list(shape)}
        shown.append({**told, "bytes": nbytes})
    return {"model": backbone.name, "layers": shown}
