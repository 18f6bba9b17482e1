"""How long linear SVMs take: alexkit's solver against scikit-learn's LinearSVC.

    python examples/speed/probes.py features.h5 --layer pool5 --plot probes.png

On rows of a real feature file, for several numbers of rows, columns and classes (k-means parts
of the file's own classes where more are asked for): one fit, and with --grid five C on five
folds, against LinearSVC and GridSearchCV on as many processes as there are cores. LinearSVC
runs at its default tolerance; ours is asked for the gap of its solution, measured by the same
certificate, or for --gap where that is larger.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import sklearn
from joblib import cpu_count
from measuring import keep, machine
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import LinearSVC

from alexkit.features.store import FeatureStore
from alexkit.probes.objective import Problems, certify
from alexkit.probes.solver import Solver
from alexkit.probes.svm import class_signs

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DECADES = (-2, -1, 0, 1, 2)


def split_classes(x: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    """(n) labels of as many classes as asked: each given one is parted by k-means."""
    given = np.unique(y)
    parts = -(-classes // given.size)
    labels = np.empty(len(y), np.int64)
    for k, label in enumerate(given):
        rows = np.flatnonzero(y == label)
        means = KMeans(parts, n_init=1, random_state=0).fit(x[rows])
        labels[rows] = k * parts + means.labels_
    return np.unique(labels, return_inverse=True)[1]


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def gap_of(x: np.ndarray, y: np.ndarray, c: float, fitted: LinearSVC) -> float:
    """The certified relative duality gap of liblinear's solution."""
    problems = Problems.of(class_signs(y)[1], c)
    u = np.c_[fitted.coef_, fitted.intercept_]
    return certify(x, problems, u, bias=1.0).gap


def our_fit(x: np.ndarray, y: np.ndarray, c: float, gap: float) -> float:
    _, signs = class_signs(y)
    solver = Solver(x, problems=signs.shape[1])
    found = solver.solve(Problems.of(signs, c), gap=gap)
    solver.weights(found.terms)
    return found.certificate.gap


def our_grid(x: np.ndarray, y: np.ndarray, grid: list[float], folds: int, gap: float) -> float:
    """Every C on every fold, the held out rows scored, then one fit of all rows."""
    _, signs = class_signs(y)
    fold = np.empty(len(y), np.int64)
    for k, (_, outside) in enumerate(StratifiedKFold(folds).split(x, y)):
        fold[outside] = k
    problems = Problems.of(signs, grid[0], folds=fold)
    solver = Solver(x, problems=len(grid) * len(problems) + signs.shape[1])
    terms, worst, middle = None, 0.0, grid[len(grid) // 2]
    for c in grid:
        found = solver.solve(problems.at(c), gap=gap, start=terms)
        terms, worst = found.terms, max(worst, found.certificate.gap)
        for k, part in enumerate(np.split(terms, folds)):
            solver.decisions(part, np.flatnonzero(fold == k))
        if c == middle:  # as if it had been chosen
            start = np.mean(np.split(terms, folds), axis=0)
    found = solver.solve(Problems.of(signs, middle), gap=gap, start=start)
    solver.weights(found.terms)
    return max(worst, found.certificate.gap)


def compare(x: np.ndarray, y: np.ndarray, args: argparse.Namespace) -> dict[str, Any]:
    size = float((x.astype(np.float64) ** 2).sum(axis=1).mean())
    grid = [10.0**decade / size for decade in DECADES]
    c = grid[len(grid) // 2]
    one: list[tuple[float, float]] = []
    for _ in range(args.rounds):
        theirs, fitted = seconds(lambda: LinearSVC(C=c, random_state=0).fit(x, y))
        asked = max(args.gap, gap_of(x, y, c, fitted))
        ours, reached = seconds(lambda asked=asked: our_fit(x, y, c, asked))
        one.append((theirs, ours))
    result: dict[str, Any] = {
        "rows": len(x),
        "columns": x.shape[1],
        "classes": int(y.max()) + 1,
        "linear_svc": statistics.median(theirs for theirs, _ in one),
        "alexkit": statistics.median(ours for _, ours in one),
        "times": statistics.median(theirs / ours for theirs, ours in one),
        "gap": {"asked": asked, "reached": reached},
    }
    if args.grid:
        search = GridSearchCV(
            LinearSVC(random_state=0), {"C": grid}, cv=args.folds, n_jobs=cpu_count()
        )
        theirs, _ = seconds(lambda: search.fit(x, y))
        ours, worst = seconds(lambda: our_grid(x, y, grid, args.folds, args.gap))
        result["grid"] = {"grid_search_cv": theirs, "alexkit": ours, "times": theirs / ours}
        result["grid"]["gap"] = worst
    return result


def measure(args: argparse.Namespace) -> dict[str, Any]:
    with FeatureStore.open(args.features) as store:
        rows = store.rows(labelled=True)
        whole = store.values(args.layer, rows).reshape(len(rows), -1)
        labels = store.labels[rows]
    rng = np.random.default_rng(0)
    order, columns = rng.permutation(len(whole)), rng.permutation(whole.shape[1])
    base = (args.rows[0], args.columns[0], args.classes[0])
    cases = {base}
    for place, values in enumerate((args.rows, args.columns, args.classes)):
        cases |= {(*base[:place], value, *base[place + 1 :]) for value in values}
    results = []
    for n, d, classes in sorted(cases):
        x = np.ascontiguousarray(whole[order[:n]][:, np.sort(columns[:d])])
        results.append(compare(x, split_classes(x, labels[order[:n]], classes), args))
        show(results[-1])
    versions = {"scikit-learn": sklearn.__version__}
    return {"machine": machine() | versions, "results": results}


def show(result: dict[str, Any]) -> None:
    shape = f"{result['rows']} × {result['columns']}, {result['classes']} classes"
    told = f"LinearSVC {result['linear_svc']:.2f} s, alexkit {result['alexkit']:.2f} s"
    print(f"{shape:32}{told}, {result['times']:.1f} ×")
    if "grid" in result:
        grid = result["grid"]
        told = f"GridSearchCV {grid['grid_search_cv']:.1f} s, alexkit {grid['alexkit']:.1f} s"
        print(f"{'':32}{told}, {grid['times']:.1f} ×")


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Seconds of one fit over each of the three sizes, the others as they are first named."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharey=True)
    names = ("rows", "columns", "classes")
    base = {name: statistics.mode(result[name] for result in results) for name in names}
    for axis, name in zip(axes, names, strict=True):
        rest = [other for other in names if other != name]
        line = [r for r in results if all(r[other] == base[other] for other in rest)]
        line.sort(key=lambda result: result[name])
        for key, label in (("linear_svc", "LinearSVC"), ("alexkit", "alexkit")):
            axis.loglog([r[name] for r in line], [r[key] for r in line], "o-", label=label)
        axis.set_xlabel(name)
    axes[0].set_ylabel("seconds, one fit")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("features", type=Path, help="a feature file")
    parser.add_argument("--layer", default="pool5")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 500, 2000])
    parser.add_argument("--columns", type=int, nargs="+", default=[4096, 1024, 9216])
    parser.add_argument("--classes", type=int, nargs="+", default=[20, 10, 50])
    parser.add_argument("--gap", type=float, default=1e-4, help="relative duality gap")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--grid", action="store_true", help="GridSearchCV too (slow)")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over these")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--plot", type=Path, help="picture of how the cost grows")
    args = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = measure(args)
    keep(result, args.json)
    if args.plot:
        plot(result["results"], args.plot)


if __name__ == "__main__":
    main()
