"""The words a user can type where an option takes one of a few. Imports nothing heavy."""

from __future__ import annotations

from enum import Enum


class Split(str, Enum):
    """The part of a data set a row belongs to; its code is what is stored in memory."""

    NONE = ""
    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class Freeze(str, Enum):
    """How far up the network ``finetune`` leaves the weights as they are."""

    AUTO = "auto"
    NONE = "none"
    CONV5 = "conv5"
    FC6 = "fc6"
    FC7 = "fc7"
    FC8 = "fc8"


class FitHead(str, Enum):
    """What ``finetune`` puts on the frozen part: a convex fit, or layers learnt in epochs."""

    AUTO = "auto"
    RBF = "rbf"
    MEAN = "mean"
    LOGISTIC = "logistic"
    SVM = "svm"
    FC = "fc"


class Augment(str, Enum):
    """What ``finetune`` does to training images."""

    AUTO = "auto"
    NONE = "none"
    VIEWS = "views"
    CORNERS = "corners"
    RANDOM = "random"

    @property
    def stored(self) -> bool:
        """Whether it is more than one view of each image, kept in a file."""
        return self in (Augment.VIEWS, Augment.CORNERS)


class Balance(str, Enum):
    """Whether rare classes weigh more in the loss."""

    AUTO = "auto"
    NONE = "none"
    WEIGHTS = "weights"


class Fall(str, Enum):
    """How the learning rate falls."""

    COSINE = "cosine"
    PLATEAU = "plateau"


class RecipeName(str, Enum):
    """The recipes of ``train``."""

    PAPER = "paper"
    CODE_145 = "code-145"
    CAFFE = "caffe"
    OWT = "owt"
    BN60 = "bn60"
    FAST = "fast"
    LARGE = "large"


class Ablate(str, Enum):
    """What ``train`` takes away from the paper's network or its recipe."""

    NO_LRN = "no-lrn"
    NO_OVERLAP = "no-overlap"
    HALF = "half"
    TANH = "tanh"
    NO_DROPOUT = "no-dropout"
    NO_COLOR = "no-color"


class Parallel(str, Enum):
    """Who does which part of a training step."""

    AUTO = "auto"
    SINGLE = "single"
    DATA = "data"
    TOWERS = "towers"
    HYBRID = "hybrid"


class Exchange(str, Enum):
    """The number type in which processes send gradients and activations to one another."""

    FLOAT32 = "float32"
    BF16 = "bf16"


class Head(str, Enum):
    """What stands between pool5 and the classes."""

    FC = "fc"
    GAP = "gap"


class Figure(str, Enum):
    """The paper's figures that ``report`` draws."""

    KERNELS = "kernels"
    NEIGHBOURS = "neighbours"


class Exif(str, Enum):
    """What becomes of the camera's orientation tag when an image is decoded."""

    IGNORE = "ignore"
    APPLY = "apply"


class Keep(str, Enum):
    """What ``pack`` keeps of an image."""

    PIXELS = "pixels"
    JPEG = "jpeg"


class FeatureDtype(str, Enum):
    """The number type features are stored in."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


class OnnxInput(str, Enum):
    """What an exported ONNX graph takes: the network's own input, or pixels."""

    TENSOR = "tensor"
    PIXELS = "pixels"


class Compress(str, Enum):
    """The HDF5 filter of a finished feature file; lzf is known to h5py alone."""

    NONE = "none"
    LZF = "lzf"
    GZIP = "gzip"


class Merge(str, Enum):
    """What becomes of the parts that several processes have written: rows copied into one
    file, or left where they are, under a file that shows them as one."""

    COPY = "copy"
    VIRTUAL = "virtual"


class Precision(str, Enum):
    """What products are computed in: float32, its 19-bit form of NVIDIA GPUs, bfloat16."""

    FLOAT32 = "float32"
    TF32 = "tf32"
    BF16 = "bf16"


class Decode(str, Enum):
    """How JPEGs far larger than needed are decoded: all pixels, or a fraction of them."""

    EXACT = "exact"
    FAST = "fast"


class Metric(str, Enum):
    """The distance between two rows of features."""

    CORRELATION = "correlation"
    COSINE = "cosine"
    EUCLIDEAN = "euclidean"


class Average(str, Enum):
    """What is averaged over the views of an image before it is stored."""

    NONE = "none"
    FEATURES = "features"


MODELS = ("alexnet", "alexnet-owt", "alexnet-bn", "bvlc-alexnet", "caffenet")
"""The networks alexkit builds itself, by the names ``--model`` takes."""

WEIGHT_WORDS = ("auto", "imagenet", "random")
"""What ``--weights`` takes besides a path."""


class Protocol(str, Enum):
    """How ``eval`` divides rows, and what it fits and chooses on them; see
    :mod:`alexkit.probes.protocols`."""

    AUTO = "auto"
    HOLDOUT = "holdout"
    KFOLD = "kfold"
    FEW_SHOT = "few-shot"
    CALTECH101 = "caltech101"
    DECAF = "decaf"
    RAZAVIAN = "razavian"
    GOYAL = "goyal"
    KORNBLITH = "kornblith"
    CLIP = "clip"
    VOC07 = "voc07"


class ProbeKind(str, Enum):
    """What ``eval`` fits to features."""

    SVM = "svm"
    HINGE = "hinge"
    LOGISTIC = "logistic"
    RIDGE = "ridge"
    KNN = "knn"
