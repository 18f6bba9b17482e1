"""The plan of the house, held: imports run one way, libraries have owners, nothing outgrows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "alexkit"
FILES = sorted(PACKAGE.rglob("*.py"))
INSIDE = [path for path in FILES if path != PACKAGE / "__init__.py"]
BELOW_CLI = [path for path in INSIDE if "cli" not in path.parts]

LEVELS = {
    "cli": 0,
    "recipes": 1,
    "reports": 2,
    "training": 3,
    "features": 3,
    "probes": 3,
    "analysis": 3,
    "models": 4,
    "images": 5,
    "events": 6,
    "choices": 6,
    "errors": 7,
    "extras": 6,
    "json_text": 7,
    "whole_file": 6,
}
OWNERS = {
    "typer": {"cli"},
    "rich": {"cli"},
    "h5py": {"features", "images/pack.py"},
    "sklearn": {
        "probes",
        "features/fisher.py",
        "recipes/classifier.py",
        "recipes/demo.py",  # its digits
        "reports/maps.py",  # t-SNE
    },
    "skimage": {"features/fisher.py"},
    "threadpoolctl": {"probes/cores.py", "recipes/sift_fv.py", "reports/maps.py"},
    "jinja2": {"reports/page.py"},
    "matplotlib": {"reports/plots.py"},
    "torchvision": {"images", "models"},
    "torch.distributed": {"training/parallel.py", "training/launch.py"},
}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
FORBIDDEN_NAMES = {"utils", "common", "core", "helpers", "misc"}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Every imported module, dotted; ``from a import b`` yields ``a.b``."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda p: str(p.relative_to(PACKAGE)))


@each(INSIDE)
class TestFile:
    def test_imports_run_one_way(self, path: Path) -> None:
        here = room(path)
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "alexkit" or len(parts) < 2 or parts[1] == "__version__":
                continue
            there = parts[1]
            assert there == here or LEVELS[there] > LEVELS[here], f"{here} imports {there}"

    def test_libraries_stay_with_their_owners(self, path: Path) -> None:
        where = path.relative_to(PACKAGE).as_posix()
        for name in imports(path):
            for library, owners in OWNERS.items():
                if name == library or name.startswith(library + "."):
                    assert where in owners or room(path) in owners, f"{where} imports {name}"

    def test_ceilings(self, path: Path) -> None:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body:
                    lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
                    assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"

    def test_names_say_what_a_module_is(self, path: Path) -> None:
        assert path.stem not in FORBIDDEN_NAMES

    def test_pickles_are_never_trusted(self, path: Path) -> None:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert given.get("weights_only") == "True"


@each(BELOW_CLI)
class TestFileBelowTheCli:
    def test_nothing_is_imported_inside_a_function_below_the_cli(self, path: Path) -> None:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = [
                    n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)
                ]
                assert not inner, f"{node.name} imports on line {inner[0].lineno}"

    def test_compute_prints_nothing(self, path: Path) -> None:
        called = {
            node.func.id
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "print" not in called


def test_the_readme_map_is_the_tree() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text[text.index("## The map") :].split("```")[1]
    mapped: set[str] = set()
    folder = ""
    for line in block.strip().splitlines():
        name = line.split()[0]
        if name.endswith("/"):
            folder = "" if name == "alexkit/" else name
        else:
            mapped.add(folder + name)
    real = {
        p.relative_to(PACKAGE).as_posix()
        for p in FILES
        if p.name != "__init__.py" or p.parent == PACKAGE
    }
    assert mapped == real
