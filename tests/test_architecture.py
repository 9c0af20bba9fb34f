"""Imports point one way, and names say what a module does."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fsasd"

LAYERS = [
    "settings",
    "runtime",
    "store",
    "data",
    "evaluation",
    "generation",
    "detectors",
    "selection",
    "detection",
    "deployment",
    "export",
    "report",
    "pipeline",
    "testing",
    "cli",
]
"""Bottom first: a part may import itself and what lies below."""

FRAMEWORKS = {"hydra": "fsasd.cli.", "omegaconf": ("fsasd.cli.", "fsasd.data.captions")}
"""Who may import what only the entry point should see."""

PUBLIC = "fsasd.deployment.model"
"""What the package's own name gives access to (``fsasd.load``), imported when it is asked for."""

VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}


def modules(package: Path) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(name: str, path: Path, known: set[str]) -> Iterator[tuple[str, int]]:
    """What a module imports, wherever in it, with the line; submodules by their own name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [base])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in known else base, node.lineno


def layer_violations(package: Path) -> list[str]:
    """A sentence for each import that points upwards or sideways."""
    place = {part: level for level, part in enumerate(LAYERS)}
    found = modules(package)
    problems = []
    for name, path in found.items():
        part = name.split(".")[1] if "." in name else None
        if part is not None and part not in place:
            problems.append(f"{path.name}: {name} has no place among the LAYERS of this test")
            continue
        for imported, line in imports(name, path, set(found)):
            target = imported.split(".")
            if target[0] != package.name or len(target) == 1 or target[1] == part:
                continue
            if part is None and imported.startswith(PUBLIC):
                continue
            if part is None or place.get(target[1], len(LAYERS)) >= place[part]:
                where = path.relative_to(package.parent)
                problems.append(f"{where}:{line} imports {imported}, which is not below {name}")
    return problems


def framework_violations(package: Path) -> list[str]:
    """A sentence for each import of a framework outside the modules that may see it."""
    found = modules(package)
    return [
        f"{path.relative_to(package.parent)}:{line} imports {imported}, which only fsasd.cli may"
        for name, path in found.items()
        for imported, line in imports(name, path, set(found))
        if not name.startswith(FRAMEWORKS.get(imported.split(".")[0], ""))
    ]


def vague_names(package: Path) -> list[str]:
    """Modules and packages whose name says nothing."""
    return [name for name in modules(package) if VAGUE & set(name.split("."))]


def cycle(package: Path) -> list[str]:
    """A circle of modules that import one another, if there is one."""
    found = modules(package)
    graph = {
        name: {target for target, _ in imports(name, path, set(found)) if target in found}
        - ({name} if "." in name else {name, PUBLIC})
        for name, path in found.items()
    }
    # A package's __init__ gathers its own modules, and importing one of them runs it: no circle.
    graph = {
        name: {target for target in targets if not name.startswith(f"{target}.")}
        for name, targets in graph.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


AUDIOLDM = "fsasd.generation.audioldm"

WORDS_OF_ONE_FAMILY = re.compile(r"(?<!nu)mel\b|clap\b|unet|16_?,?000|audioldm\b", re.IGNORECASE)
"""What a module of all latent diffusion models does not know. Docstrings may name AudioLDM as where
a number is from."""


def family_violations(package: Path) -> list[str]:
    """A sentence for each import of AudioLDM by a module that any family of models uses."""
    found = modules(package)
    general = {
        name: path
        for name, path in found.items()
        if name.startswith(f"{package.name}.generation.") and not name.startswith(AUDIOLDM)
    }
    return [
        f"{path.relative_to(package.parent)}:{line} imports {imported}"
        for name, path in general.items()
        for imported, line in imports(name, path, set(found))
        if imported.startswith(AUDIOLDM)
    ]


def family_words(path: Path) -> list[str]:
    """Words of one family in the code of a module: names and texts, without docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented):
            node.body = [n for n in node.body if not _is_text(n)] or [ast.Pass()]
    return [f"{path.name}: {word}" for word in WORDS_OF_ONE_FAMILY.findall(ast.unparse(tree))]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def report(problems: list[str]) -> str:
    return "\n" + "\n".join(problems)


def test_imports_point_one_way():
    problems = layer_violations(PACKAGE)
    assert not problems, report(problems)


def test_no_modules_import_one_another_in_a_circle():
    circle = cycle(PACKAGE)
    assert not circle, " -> ".join(circle)


@pytest.mark.slow
def test_only_the_entry_point_sees_the_configuration_framework():
    problems = framework_violations(PACKAGE)
    assert not problems, report(problems)


def test_every_name_says_what_the_module_does():
    names = vague_names(PACKAGE)
    assert not names, f"named after nothing: {', '.join(names)}"


def test_only_audioldm_knows_audioldm():
    problems = family_violations(PACKAGE)
    assert not problems, report(problems)


def test_diffusion_has_no_words_of_one_family():
    paths = (PACKAGE / "generation" / "diffusion").glob("*.py")
    problems = [problem for path in paths for problem in family_words(path)]
    assert not problems, report(problems)


# The tests above would also pass if they saw nothing.


@pytest.fixture
def planted(tmp_path):
    """Make a package like ours of given modules."""

    def plant(**sources):
        for name, source in sources.items():
            path = tmp_path / "fsasd" / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return tmp_path / "fsasd"

    return plant


def test_the_graph_is_that_of_this_package():
    found = modules(PACKAGE)
    assert {"fsasd.cli.main", "fsasd.data.simulate", "fsasd.detectors.twfr_gmm"} <= set(found)
    seen = {name for name, _ in imports("fsasd.cli.run", found["fsasd.cli.run"], set(found))}
    assert {
        "fsasd.pipeline.outcome",
        "fsasd.store.store",
        "fsasd.generation.pipelines.folder",
        "hydra.core.hydra_config",
    } <= seen


@pytest.mark.parametrize(
    "source",
    [
        "import fsasd.selection",
        "from fsasd.selection import Selector",
        "from fsasd import selection",
        "from ..selection import Selector",
        "from .. import selection",
        "def late():\n    from fsasd.selection import Selector",
        "if TYPE_CHECKING:\n    from fsasd.selection import Selector",
    ],
)
def test_an_import_that_points_upwards_is_named(planted, source):
    package = planted(selection="", data__clips=f"\n{source}")
    (problem,) = layer_violations(package)
    assert problem.startswith("fsasd/data/clips.py:")
    assert "imports fsasd.selection, which is not below fsasd.data.clips" in problem


def test_imports_downwards_and_within_a_part_are_allowed(planted):
    package = planted(
        store__store="",
        data__clips="from fsasd.store.store import Store",
        data__captions="from . import clips",
    )
    assert layer_violations(package) == []


def test_a_module_without_a_place_is_named(planted):
    (problem,) = layer_violations(planted(serving=""))
    assert "fsasd.serving has no place" in problem


def test_a_framework_outside_the_entry_point_is_named(planted):
    package = planted(
        cli__main="import hydra", data__captions="import omegaconf", store="import hydra.core"
    )
    (problem,) = framework_violations(package)
    assert problem == "fsasd/store.py:1 imports hydra.core, which only fsasd.cli may"


def test_an_import_of_one_family_is_named(planted):
    package = planted(
        generation__prompts="from fsasd.generation.audioldm.mel import encode",
        generation__audioldm__mel="",
        generation__audioldm__clap="from fsasd.generation.audioldm import mel",
    )
    assert family_violations(package) == [
        "fsasd/generation/prompts.py:1 imports fsasd.generation.audioldm.mel"
    ]


def test_a_word_of_one_family_is_named(tmp_path):
    path = tmp_path / "rates.py"
    path.write_text('"""Of AudioLDM."""\ndef f(x):\n    """CLAP"""\n    unet = 16_000\n')
    assert family_words(path) == ["rates.py: unet", "rates.py: 16000"]


def test_a_vague_name_is_named(planted):
    assert vague_names(planted(data__utils="", data__clips="")) == ["fsasd.data.utils"]


def test_a_circle_is_named(planted):
    package = planted(data__a="from fsasd.data import b", data__b="from fsasd.data.a import x")
    assert set(cycle(package)) == {"fsasd.data.a", "fsasd.data.b"}


def test_the_wheel_holds_every_package():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))
    folders = {path.parent.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("__init__.py")}
    expected = {".".join(folder.parts) for folder in folders} | {"fsasd.conf"}
    assert set(project["tool"]["setuptools"]["packages"]) == expected


def test_what_a_run_prints_loads_no_torch():
    """A run that is all in the store takes a second, not ten."""
    heavy = ("torch", "sklearn", "scipy", "lightning", "diffusers", "transformers")
    code = (
        f"import sys, fsasd.report.console;print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.nightly
@pytest.mark.slow
def test_a_run_without_a_model_of_diffusers_does_not_load_it():
    """Each start of a command, and of a worker, would take two seconds more."""
    stages = [path.stem for path in (PACKAGE / "pipeline" / "stages").glob("[!_]*.py")]
    modules = ["cli.run", "generation.transforms", *(f"pipeline.stages.{name}" for name in stages)]
    imported = ", ".join(f"fsasd.{name}" for name in modules)
    heavy = ("diffusers", "peft")
    code = f"import sys, {imported}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
