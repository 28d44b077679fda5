"""The shape of the package: imports point one way, files and functions stay short, and tests need no network."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {path: ast.parse(path.read_text("utf-8")) for path in sorted((ROOT / "nmt").rglob("*.py"))}
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MODULES = {".".join(path.relative_to(ROOT / "nmt").with_suffix("").parts): tree for path, tree in FILES.items()}
MODULES = {name.removesuffix("__init__").removesuffix("."): tree for name, tree in MODULES.items()}
ANYTHING = set(MODULES) - {"cli", "__main__", ""}

# What each module may import of ours. A package stands for all in it.
MAY_IMPORT: dict[str, set[str]] = {
    "corpus": set(),
    "tokenizer": set(),
    "evaluation": set(),
    "states": set(),
    "native": set(),
    "native.training": {"native"},
    "search": {"states"},
    "model": set(),
    "model.cells": set(),
    "model.attention": set(),
    "hessian_free": set(),
    "guidance": set(),
    "risk": set(),
    "alignment": set(),
    "steppers": {"search"},
    "rules": {"search"},
    "diversity": {"search"},
    "columns": {"native", "search"},
    "offers": {"columns", "native", "search", "states"},
    "constraints": {"search", "rules"},
    "sampling": {"search", "states", "rules"},
    "decoding": {
        *("search", "states", "rules", "columns", "constraints", "diversity", "offers", "sampling", "steppers"),
    },
    "check": {"corpus"},
    "batches": {"corpus", "tokenizer"},
    "model.products": {"native"},
    "model.kernels": set(),
    "model.loss": {"native"},
    "model.equations": {"model.cells", "model.products"},
    "model.native_equations": {"native", "model.equations"},
    "model.bptt": {"model.cells", "model.equations", "model.native_equations", "model.products"},
    "model.recurrent": {"native", "model.cells", "model.bptt", "model.kernels", "model.products"},
    "model.encoder": {"model.recurrent", "model.cells"},
    "model.decoder": {"model.recurrent", "model.attention", "model.encoder", "model.cells"},
    "model.seq2seq": {"model.encoder", "model.decoder", "model.attention", "model.cells"},
    "model.laid": {"model", "native", "states"},
    "model.laid_cells": {"model", "native", "states"},
    "model.laid_encoder": {"model", "native"},
    "model.narrowed": {"model.laid"},
    "model.graphed": {"states", "model.laid", "model.attention", "model.cells"},
    "shortlist": {"batches", "checkpoint", "tokenizer"},
    "curvature": {"batches", "hessian_free", "model"},
    "checkpoint": {"tokenizer", "model"},
    "answers": {"alignment", "risk", "search", "tokenizer"},
    "members": {"checkpoint", "model"},
    "translator": {
        *("answers", "checkpoint", "tokenizer", "batches", "members", "model", "search", "decoding", "sampling"),
        *("shortlist", "steppers"),
    },
    "workers": {"answers", "translator"},
    "training": {
        "batches",
        "checkpoint",
        "curvature",
        "guidance",
        "hessian_free",
        "corpus",
        "model",
        "search",
        "translator",
        "evaluation",
    },
    "model.language_model": {"model.seq2seq", "model.decoder", "model.recurrent", "model.cells"},
    "monolingual": {"batches", "corpus", "tokenizer"},
    "language_training": {"training", "monolingual", "model"},
    "scoring": {
        "alignment",
        "batches",
        "checkpoint",
        "corpus",
        "evaluation",
        "model",
        "states",
        "tokenizer",
        "translator",
    },
    "rescoring": {"corpus", "scoring", "translator"},
    "averaging": {"checkpoint", "shortlist"},
    "runs": ANYTHING,
    "callbacks": {"batches", "checkpoint", "training"},
    "config": {"corpus", "tokenizer", "model", "search", "training"},
    "fit": ANYTHING,
    "quickstart": ANYTHING,
    "info": ANYTHING,
    "cli": ANYTHING,
    "plots": set(),
    "streams": {"answers", "checkpoint", "risk", "alignment"},
    "verbs": set(),
    "search_flags": {"verbs", "answers", "checkpoint", "members", "sampling", "search", "translator"},
    "translating_verb": {"verbs", "search_flags", "streams", "answers", "checkpoint", "plots", "translator", "workers"},
    "scoring_verb": {"verbs", "streams", "checkpoint", "corpus", "scoring", "rescoring"},
    "tuning": {"averaging", "checkpoint", "corpus", "evaluation", "model", "search", "translator"},
    "tuning_verb": {"verbs", "search_flags", "tuning", "corpus", "evaluation", "search", "shortlist", "translator"},
    "__main__": {"cli"},
    "": {"translator"},  # nmt/__init__.py, whose version all may read
}


def imported(tree: ast.AST, modules: set[str]) -> Iterator[str]:
    """The full name of each module that is imported anywhere below, `from package import module` counted as both."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: name the package in full"
            yield node.module
            yield from (name for alias in node.names if (name := f"{node.module}.{alias.name}") in modules)


def ours(name: str) -> set[str]:
    """The modules of ours that a module imports, the package itself left out."""
    known = {f"nmt.{module}" for module in MODULES if module}
    found = imported(MODULES[name], known)
    return {module.removeprefix("nmt.") for module in found if module.startswith("nmt.")}


def at_import(tree: ast.Module) -> ast.Module:
    """What may run at import: no functions and nothing for type checkers only (methods are counted, to be safe)."""

    def runs(node: ast.stmt) -> bool:
        return not (
            isinstance(node, ast.FunctionDef)
            or (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")
        )

    return ast.Module([node for node in tree.body if runs(node)], [])


def needed(name: str) -> set[str]:
    """The packages of others that importing a module of ours imports."""
    known, waiting, seen, others = {f"nmt.{module}" for module in MODULES}, [name], set(), set()
    while waiting:
        seen.add(module := waiting.pop())
        for full in imported(at_import(MODULES[module]), known):
            package, _, inner = full.partition(".")
            if package != "nmt":
                others.add(package)
            elif inner not in seen:
                waiting.append(inner)
    return others


def test_every_module_has_its_line_here():
    assert set(MODULES) == set(MAY_IMPORT)


@pytest.mark.parametrize("name", MODULES, ids=lambda name: name or "__init__")
def test_imports_point_one_way(name):
    allowed = MAY_IMPORT.get(name, set())
    wrong = {module for module in ours(name) if module not in allowed and module.split(".")[0] not in allowed}
    assert not wrong, f"nmt.{name} may import {sorted(allowed)}"


def test_tools_import_the_package_and_not_the_other_way_round():
    tools = {path.stem for path in (ROOT / "tools").iterdir()}
    for name, tree in MODULES.items():
        assert not {module.split(".")[0] for module in imported(tree, set())} & (tools | {"tools", "tests"}), name


@pytest.mark.parametrize("name", ["", "cli", "__main__"], ids=["nmt", "nmt.cli", "python -m nmt"])
def test_the_command_line_answers_without_torch(name):
    assert not needed(name) & {"torch", "lightning", "sentencepiece", "datasets", "jsonargparse", "numpy", "yaml"}


def test_translating_never_imports_lightning():
    assert "lightning" in needed("training")
    assert "torch" in needed("translator")
    assert not needed("translator") & {"lightning", "jsonargparse"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_long(path):
    assert len(path.read_text("utf-8").split("\n")) - 1 <= 400
    functions = (node for node in ast.walk(FILES[path]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    long = {node.name: lines for node in functions if (lines := node.end_lineno - node.lineno + 1) > 60}
    assert not long


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_need_no_network(path):
    network = {"socket", "urllib", "requests", "http", "httpx", "aiohttp", "ftplib", "huggingface_hub"}
    assert not {name.split(".")[0] for name in imported(ast.parse(path.read_text("utf-8")), set())} & network
