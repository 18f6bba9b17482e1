"""Fine-tuning and prediction as scikit-learn has them, for notebooks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from alexkit.errors import DataError
from alexkit.events import Reporter, silent
from alexkit.recipes import finetune
from alexkit.recipes.options import FinetuneOptions, from_values
from alexkit.recipes.predict import predictions
from alexkit.recipes.run_dir import RUNS
from alexkit.recipes.using import PredictOptions
from alexkit.reports.tables import csv_bytes

Paths = Sequence[str | os.PathLike[str]]
LISTS = "lists"


class AlexNetClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A pretrained network fitted to images that are given by their paths.

    ``fit`` is ``alexkit finetune``, ``predict`` is ``alexkit predict``; everything is in the
    run folder, :attr:`run_`, which the commands can go on with. The images are listed in
    ``runs/lists/``.

    Args:
        weights: a run folder, a file, ``"imagenet"``, ``"random"``, or ``"auto"``: the newest
            run here, else ImageNet's.
        model: the network, where the weights do not tell.
        freeze: highest layer that is left as it is, as ``finetune --freeze`` takes it.
        epochs: passes over the images; None is finetune's default.
        out: the run folder; None is the next in ``runs/``.
        options: any other option of ``finetune``, e.g. ``{"device": "cuda"}``.
        seed: of everything random.
        report: hears what the command line shows; None is silent.

    Attributes:
        classes_: (K) the labels, sorted.
        n_features_in_: 1, a path.
        run_: the run folder.
        result_: what ``finetune`` returns, the held-out accuracy among it.
    """

    def __init__(
        self,
        *,
        weights: str = "auto",
        model: str | None = None,
        freeze: str = "auto",
        epochs: int | None = None,
        out: str | None = None,
        options: dict[str, Any] | None = None,
        seed: int = 0,
        report: Reporter | None = None,
    ) -> None:
        self.weights = weights
        self.model = model
        self.freeze = freeze
        self.epochs = epochs
        self.out = out
        self.options = options
        self.seed = seed
        self.report = report

    def fit(self, X: Paths, y: Sequence[Any]) -> AlexNetClassifier:
        """Fits to images (n) and their labels (n), text or numbers.

        Part of each class is held out, as ``finetune`` does.

        Raises:
            DataError: as many labels as images are needed, and two classes.
            AlexkitError: what ``alexkit finetune`` exits with.
        """
        labels = np.asarray(y)
        if labels.ndim != 1 or len(labels) != len(X):
            raise DataError(
                f"{len(X)} images have labels of shape {labels.shape}",
                hint="give one label for each path",
            )
        self.classes_ = np.unique(labels)
        lines = [[os.path.abspath(path), str(y)] for path, y in zip(X, labels, strict=True)]
        values = {
            "data": _listed(lines),
            "weights": str(self.weights),
            "model": self.model,
            "freeze": self.freeze,
            "epochs": self.epochs,
            "out": None if self.out is None else Path(self.out),
            "seed": self.seed,
            **(self.options or {}),
        }
        self.result_ = finetune.run(from_values(FinetuneOptions, values), self._report)
        self.run_ = str(Path(self.result_["run"]).absolute())
        self.n_features_in_ = 1
        return self

    def predict_proba(self, X: Paths) -> npt.NDArray[np.float64]:
        """(n, K) probabilities, columns as in ``classes_``.

        Raises:
            DataError: an image cannot be read; it is named.
        """
        check_is_fitted(self, "run_")
        names = [str(label) for label in self.classes_]
        options = PredictOptions(
            images=tuple(os.fspath(path) for path in X),
            weights=(self.run_,),
            top=len(names),
            seed=self.seed,
            strict=True,
        )
        found, _, _ = predictions(options, self._report)
        column = {name: at for at, name in enumerate(names)}
        out = np.zeros((len(found), len(names)))
        for row, one in zip(out, found, strict=True):
            row[[column[name] for name in one.classes]] = one.values
        return out

    def predict(self, X: Paths) -> npt.NDArray[Any]:
        """(n) the likeliest label of each image."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    @property
    def _report(self) -> Reporter:
        return silent if self.report is None else self.report

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        return tags


def _listed(lines: Sequence[Sequence[str]]) -> Path:
    """The list of images as a file that the same images and labels always have, so that an
    interrupted fit is continued."""
    data = csv_bytes(["path", "label"], lines)
    path = RUNS / LISTS / f"{hashlib.sha256(data).hexdigest()[:16]}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
