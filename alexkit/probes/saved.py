"""A fitted probe as a file: everything that turns a layer's rows into scores, and what made it.

Safetensors: ``weights`` (K, d'), ``bias`` (K), ``labels`` (K) and, where the normalisation is
fitted, ``norm.mean`` (d), ``norm.scale`` (d) or ``norm.axes`` (d', d); float64 but for the
labels. The metadata has ``format``, ``format_version`` and, under ``probe``, a JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from scipy.linalg import solve_triangular

from alexkit.errors import DamagedFile, DataError, UsageError
from alexkit.json_text import from_json
from alexkit.models.tensorfile import write_tensors
from alexkit.probes.norms import FittedNorm, Norm
from alexkit.probes.objective import Array
from alexkit.probes.protocol import LayerResult, fit
from alexkit.probes.rows import Features, Part, blocks
from alexkit.probes.svm import Labels, LinearModel
from alexkit.whole_file import whole_file

FORMAT = "alexkit/probe"
FORMAT_VERSION = "1"


@dataclass(frozen=True)
class SavedProbe:
    """A probe that can score rows of the layer it was fitted on.

    Attributes:
        classes: K names; ``scores`` has a column for each, minus infinity where the probe
            does not know the class.
        layer: the layer's name.
        record: what else the file says: ``model``, ``weights``, ``preprocessing``, ``C``,
            ``protocol``, ``rows``.
    """

    model: LinearModel
    norm: FittedNorm
    classes: tuple[str, ...]
    layer: str
    record: Mapping[str, Any]

    def scores(self, x: npt.NDArray[np.floating]) -> Array:
        """(n, K) of (n, d) rows as the layer gives them; the largest names the class."""
        out = np.full((len(x), len(self.classes)), -np.inf)
        out[:, self.model.labels] = self.model.scores(self.norm(x))
        return out


def probe_of(layer: LayerResult, x: Features, c: float) -> tuple[LinearModel, FittedNorm, str]:
    """The probe to keep: the scored one of a single split, or, of several splits, one fitted
    on the rows of all, at the C chosen most often; and which it is, in words.

    Args:
        x: (n, d) the layer's own rows.

    Raises:
        UsageError: k nearest neighbours have no weights.
    """
    task, (first, *others) = layer.task, layer.splits
    model, norm = first.model, first.norm
    if not isinstance(model, LinearModel):
        raise UsageError("a knn probe has no weights to save", hint="leave out --save")
    told = "the training rows of the only split"
    source = x if layer.turned is None else layer.turned
    if others:
        told = "the rows of all splits"
        parts = [part for d in task.divisions for part in (d.train, d.test)]
        rows = np.unique(np.concatenate(parts))
        part = Part.fitted(source, rows, task.record)
        y = None if task.y is None else task.y[rows]
        every_c = np.full(len(task.classes), c)
        fitted = fit(part, y, task.signs[rows], task.record, every_c)
        assert isinstance(fitted, LinearModel)
        model, norm = fitted, part.norm
    if layer.turned is not None:
        model, norm = _turned_back(model, norm, layer.turned, x)
    return model, norm, told


def _turned_back(
    model: LinearModel, norm: FittedNorm, turned: Array, x: Features
) -> tuple[LinearModel, FittedNorm]:
    """From coordinates into the layer's own numbers: a row a of coordinates L is a L⁻¹ X."""
    axes = norm.axes if norm.norm.kind == "pca" else model.weights
    both = np.concatenate([axes, norm.mean[None, :]]) if norm.mean.size else axes
    shares = solve_triangular(turned, both.T, lower=True, trans="T").T
    n, d = x.shape
    out = np.zeros((len(both), d))
    for rows in blocks(n, d):
        out += shares[:, rows] @ np.asarray(x[rows], np.float64)
    if norm.norm.kind == "pca":
        return model, replace(norm, axes=out[: len(axes)], mean=out[-1])
    return replace(model, weights=out), norm


def save_probe(
    path: Path,
    model: LinearModel,
    norm: FittedNorm,
    *,
    classes: tuple[str, ...],
    layer: str,
    record: Mapping[str, Any],
) -> None:
    """Writes the file, as a whole or not at all.

    Args:
        record: JSON-safe; see :class:`SavedProbe`.

    Raises:
        OSError: it cannot be written.
    """
    tensors = {
        "weights": model.weights,
        "bias": model.bias,
        "labels": model.labels.astype(np.int64),
    }
    for name in ("mean", "scale", "axes"):
        value = getattr(norm, name)
        if value.size:
            tensors[f"norm.{name}"] = value
    kind = {"kind": norm.norm.kind, "value": norm.norm.value, "offset": norm.norm.offset}
    told = {"classes": list(classes), "layer": layer, "norm": kind, "C": model.c, **record}
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "probe": json.dumps(told, allow_nan=False),
    }
    written = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()}
    with whole_file(path) as file:
        write_tensors(file, written, metadata)


def load_probe(path: Path | str) -> SavedProbe:
    """Reads what :func:`save_probe` wrote.

    Raises:
        DataError: there is no such file, or it cannot be read.
        DamagedFile: it is no probe of alexkit, or was truncated or edited.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is no file", hint="alexkit eval --save writes probes")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if (metadata["format"], metadata["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError("another format")
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise ValueError("not all are numbers")
        told = from_json(metadata["probe"])
        kind, empty = Norm(**told.pop("norm")), np.empty(0)
        norm = FittedNorm(
            kind,
            mean=tensors.get("norm.mean", empty),
            scale=tensors.get("norm.scale", empty),
            axes=tensors.get("norm.axes", np.empty((0, 0))),
        )
        model = _checked(tensors["labels"], tensors["weights"], tensors["bias"], told)
        _check_norm(norm, model.weights.shape[1])
        return SavedProbe(model, norm, tuple(told.pop("classes")), told.pop("layer"), told)
    except (
        *(SafetensorError, LookupError, ValueError, TypeError),
        *(AttributeError, ArithmeticError),
    ) as problem:
        raise DamagedFile(
            f"{path} is no probe of alexkit, or damaged: {problem}",
            hint="name a file that alexkit eval --save wrote",
        ) from problem
    except OSError as problem:
        raise DataError(
            f"cannot read {path}: {problem}", hint="give yourself permission to read it"
        ) from problem


def _checked(
    labels: Labels, weights: Array, bias: Array, told: Mapping[str, Any]
) -> LinearModel:
    if not (weights.ndim == 2 and len(weights) == len(bias) == len(labels)):
        raise ValueError("its tensors do not belong together")
    if not all(isinstance(name, str) for name in (*told["classes"], told["layer"])):
        raise ValueError("a class or the layer has no name")
    if labels.size and not (labels.min() >= 0 and labels.max() < len(told["classes"])):
        raise ValueError("a label has no class")
    return LinearModel(labels, weights, bias, float(told["C"]), None)


def _check_norm(norm: FittedNorm, columns: int) -> None:
    """Raises ValueError where it does not give rows of so many columns."""
    kind, axes = norm.norm.kind, norm.axes
    if kind == "pca":
        fits = axes.ndim == 2 and len(axes) == columns and norm.mean.shape == axes.shape[1:]
    elif kind == "standardize":
        fits = norm.mean.shape == norm.scale.shape == (columns,)
    else:
        fits = kind in ("none", "l2", "power")
    if not (fits and float(norm.norm.value) >= 0 and float(norm.norm.offset) >= 0):
        raise ValueError("its normalisation does not belong to its weights")
