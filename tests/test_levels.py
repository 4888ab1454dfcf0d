"""Imports go down only (DESIGN, section 3), and there is no cycle."""

from __future__ import annotations

import ast
from pathlib import Path

import tuwen

ROOT = Path(tuwen.__file__).parent
LEVELS = [
    {"records", "config", "errors", "files", "progress"},
    {"text", "layers", "losses", "metrics", "decode", "distributed", "muon"},
    {
        "importers",
        "dataset",
        "check",
        "images",
        "scenes",
        "towers",
        "features",
        "graphs",
        "checkpoint",
        "store",
        "lance",
        "viz",
        "holdout",
        "regions",
    },
    {"models"},
    {"tasks"},
    {
        "train",
        "evaluate",
        "pipelines",
        "card",
        "indexing",
        "listing",
        "searching",
        "answering",
        "reranking",
        "hits",
        "browsing",
        "noting",
        "intake",
        "upkeep",
        "calibrate",
        "handout",
        "describing",
        "detecting",
        "tune",
        "questions",
        "votes",
    },
    {"cli", "server", "report", "gallery", "tune_page", "drawn_page", "rating", "demo", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


def module_of(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(path: Path) -> set[tuple[str, ...]]:
    """Modules of the package that a file imports, late imports included; type-checking ones too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tuwen":
            base = tuple(node.module.split(".")[1:])
            for alias in node.names:
                inner = ROOT.joinpath(*base, alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                found.add((*base, alias.name) if is_module else base)
        elif isinstance(node, ast.Import):
            found |= {tuple(a.name.split(".")[1:]) for a in node.names if a.name.split(".")[0] == "tuwen"}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    return {name for name in found if name}


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]
GRAPH = {module_of(path): imported(path) for path in FILES}


def test_every_module_has_a_level() -> None:
    assert len(FILES) > 30
    assert {module[0] for module in GRAPH} == set(LEVEL)


def test_imports_go_down_only() -> None:
    wrong = [
        f"{'.'.join(module)} imports {'.'.join(other)}"
        for module, others in GRAPH.items()
        for other in others
        if LEVEL[other[0]] > LEVEL[module[0]]
    ]
    assert not wrong


def test_models_never_import_one_another() -> None:
    wrong = [
        (module, other)
        for module, others in GRAPH.items()
        for other in others
        if module[0] == other[0] == "models" and len(module) > 1 and len(other) > 1 and module[1] != other[1]
    ]
    assert not wrong


def test_faces_reach_models_through_level_five_only() -> None:
    assert not [
        (module, other)
        for module, others in GRAPH.items()
        for other in others
        if LEVEL[module[0]] == 6 and other[0] in {"models", "tasks", "losses", "layers"}
    ]


def test_there_is_no_cycle() -> None:
    done: set[tuple[str, ...]] = set()

    def visit(module: tuple[str, ...], path: tuple[tuple[str, ...], ...]) -> None:
        assert module not in path, f"cycle: {path} {module}"
        if module in done:
            return
        for other in GRAPH.get(module, set()):
            visit(other, (*path, module))
        done.add(module)

    for module in GRAPH:
        visit(module, ())
    assert len(done) >= len(GRAPH)
