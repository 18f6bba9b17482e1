"""Fisher vectors of dense SIFT: how the runner-up of ILSVRC-2012 described images.

PCA and a Gaussian mixture are fitted to descriptors of training images, without labels; an
image is then the gradient of its descriptors' log-likelihood with respect to the mixture,
with signed square root and length 1: Perronnin, Sánchez & Mensink, ECCV 2010; Sánchez,
Perronnin, Mensink & Verbeek, IJCV 2013. The mixture and the gradient are scikit-image's.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from alexkit.errors import DataError
from alexkit.extras import extra
from alexkit.features import sift
from alexkit.features.opening import damaged
from alexkit.images.draws import words
from alexkit.whole_file import whole_file, writing

Floats = npt.NDArray[np.float32]

SIFT_FV = "sift-fv"
"""The name of these features, where layers of a network have theirs."""


@dataclass(frozen=True)
class Recipe:
    """What a codebook is made of.

    Attributes:
        seed: of the sample and of the mixture's first values.
        images: training images that are sampled, at most.
        descriptors: descriptors of all of them together, about.
        most: descriptors of one image, at most: those of one image resemble each other.
        dimensions: what PCA leaves of 128: 64 (Sánchez et al. 2013).
        components: Gaussians: 256 (both papers).
        rounds: of expectation-maximisation, at most.
        tolerance: gain in mean log-likelihood that ends it sooner (scikit-learn's default).
        floor: added to each variance, as a share of the largest of the descriptors' own
            (VLFeat ``apps/recognition/trainEncoder.m``, CovarianceBound).
    """

    seed: int
    images: int = 2_000
    descriptors: int = 100_000
    most: int = 1_000
    dimensions: int = 64
    components: int = 256
    rounds: int = 30
    tolerance: float = 1e-3
    floor: float = 1e-4

    @property
    def length(self) -> int:
        """Numbers in a Fisher vector: gradients by weights, means and variances."""
        return self.components * (2 * self.dimensions + 1)

    def to_record(self) -> dict[str, Any]:
        """All that decides the numbers, JSON-safe, versions of the libraries included."""
        return {
            "descriptor": {
                "name": "dense SIFT",
                "bin_sizes": list(sift.SIZES),
                "step": sift.STEP,
                "smoothing": sift.SMOOTHING,
                "window": sift.WINDOW,
                "clip": sift.CLIP,
                "contrast": sift.CONTRAST,
            },
            "codebook": asdict(self),
            "normalisation": "signed square root, then length 1",
            "versions": {
                name: version(name)
                for name in ("scikit-image", "scikit-learn", "scipy", "numpy")
            },
        }


@dataclass(frozen=True)
class Codebook:
    """PCA and a Gaussian mixture, all float32.

    Attributes:
        centre: (128) mean descriptor.
        axes: (128, D) principal axes.
        weights: (K) of the Gaussians.
        means: (K, D).
        variances: (K, D).
    """

    centre: Floats
    axes: Floats
    weights: Floats
    means: Floats
    variances: Floats

    @classmethod
    def fit(cls, descriptors: Floats, recipe: Recipe) -> Codebook:
        """Fits PCA, then the mixture, to (n, 128) descriptors; equal bits for equal input.

        Raises:
            DataError: fewer descriptors than Gaussians.
        """
        if len(descriptors) < max(recipe.components, recipe.dimensions):
            raise DataError(
                f"the training images have {len(descriptors)} SIFT descriptors, too few for "
                f"{recipe.components} Gaussians",
                hint="add training images that show more than one colour",
            )
        with np.errstate(invalid="ignore"):  # its shares of no variance, were there none
            pca = (
                _scikit_learn("decomposition")
                .PCA(recipe.dimensions, svd_solver="covariance_eigh")
                .fit(descriptors)
            )
        axes = np.ascontiguousarray(pca.components_.T, np.float32)
        centre = pca.mean_.astype(np.float32)
        projected = (descriptors - centre) @ axes
        settings = {
            "covariance_type": "diag",
            "init_params": "k-means++",
            "max_iter": recipe.rounds,
            "tol": recipe.tolerance,
            # Not zero: all descriptors may be equal, and no variance at all is refused.
            "reg_covar": max(recipe.floor * float(projected.var(axis=0).max()), 1e-12),
            "random_state": recipe.seed % 2**32,
        }
        with warnings.catch_warnings():
            # It has as many rounds as the recipe gives it.
            warnings.simplefilter("ignore", _scikit_learn("exceptions").ConvergenceWarning)
            mixture = scikit_image().learn_gmm(
                projected, n_modes=recipe.components, gm_args=settings
            )
        fitted = (mixture.weights_, mixture.means_, mixture.covariances_)
        return cls(centre, axes, *(np.asarray(part, np.float32) for part in fitted))

    def encode(self, descriptors: Floats) -> Floats:
        """The Fisher vector (K (2 D + 1)) of (n, 128) descriptors, n at least 1.

        In the order of :func:`skimage.feature.fisher_vector`: gradients by the K weights, the
        K × D means and, with the sign turned, the K × D variances; each divided by the root
        of its Fisher information, then signed square root, then length 1.
        """
        gaussians = _scikit_learn("mixture").GaussianMixture
        mixture = gaussians(len(self.weights), covariance_type="diag")
        mixture.weights_, mixture.means_ = self.weights, self.means
        mixture.covariances_ = self.variances
        mixture.precisions_cholesky_ = 1 / np.sqrt(self.variances)
        found = scikit_image().fisher_vector(
            (descriptors - self.centre) @ self.axes, mixture, improved=True
        )
        return np.asarray(found, np.float32)

    def sha256(self) -> str:
        """Hex SHA-256 over the numbers."""
        digest = hashlib.sha256()
        for part in vars(self).values():
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    def save(self, path: Path, about: Mapping[str, Any]) -> None:
        """Writes a NumPy archive, whole or not at all, with what it was fitted ``about``.

        Raises:
            OutOfSpace: the disk is full, read-only, or not ours to write.
        """
        with writing(path), whole_file(path) as file:
            np.savez(file, about=np.array(_text(about)), **vars(self))

    @classmethod
    def load(cls, path: Path, about: Mapping[str, Any]) -> Codebook | None:
        """What :meth:`save` wrote; None if it was fitted about something else.

        Raises:
            DamagedFile: it is no such archive, or was changed.
        """
        try:
            with path.open("rb") as raw, np.load(raw) as file:
                if str(file["about"]) != _text(about):
                    return None
                return cls(**{name: file[name] for name in cls.__dataclass_fields__})
        # zipfile, zlib and NumPy's header parser raise whatever a damaged file leads them to.
        except Exception as error:
            raise damaged(path, f"is no codebook: {error or type(error).__name__}") from error


def sample(descriptors: Floats, count: int, *, seed: int, row: int) -> Floats:
    """At most ``count`` of an image's descriptors, drawn by seed and row, in their order."""
    if len(descriptors) <= count:
        return descriptors
    keys = words("sift-fv sample", seed, row, np.arange(len(descriptors)), 1)[:, 0]
    return descriptors[np.sort(np.argsort(keys, kind="stable")[:count])]


def scikit_image() -> ModuleType:
    """``skimage.feature``, which takes a second to import.

    Raises:
        UsageError: it is not installed.
    """
    return extra("sift", SIFT_FV, "skimage.feature", "scikit-image")


def _scikit_learn(part: str) -> ModuleType:
    """As :func:`scikit_image`: features of networks do not wait for it."""
    return importlib.import_module(f"sklearn.{part}")


def _text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True, allow_nan=False)
