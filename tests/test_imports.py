"""The import contract: who may import whom, read from the source by ast."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["portal", "deployments", "upgrades"]
APPS = ["deployments", "upgrades"]
AWS_LIBRARIES = {"boto3", "botocore", "moto", "s3transfer"}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "services"}

# A layer is a folder or a file of the app. It imports the layers in the rows below its own, never one in the same row.
# The layers in the last row are the record and what reads only the record; they may import each other.
LAYERS = {
    "deployments": [
        "urls agent_urls admin tasks gauges templatetags management",
        "pages",
        "api",
        "commands",
        "engine",
        "lists registry",
        "events notifications revisions container_spec secret_references models states apps",
    ],
    "upgrades": [
        "urls tasks gauges templatetags management",
        "pages",
        "api",
        "commands",
        "engine rollback_plan stop_effects",
        "checks",
        "inventory lists",
        "events estimates notifications outcome_texts scope models states verdicts apps",
    ],
}


def source_files(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if "migrations" not in path.parts]


@cache
def read_imports(path: Path) -> list[str]:
    """Return the full names that a file imports: `from upgrades import api` is `upgrades.api`."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def find_imports(folder: str, *packages: str) -> set[str]:
    """Return `file: name` for every import of one of the packages in a folder."""
    return {
        f"{path.relative_to(ROOT)}: {name}"
        for path in source_files(folder)
        for name in read_imports(path)
        if any(name == package or name.startswith(f"{package}.") for package in packages)
    }


def test_portal_imports_no_app() -> None:
    assert find_imports("portal", *APPS) == set()


@pytest.mark.parametrize("app", APPS)
def test_an_app_imports_no_other_app(app: str) -> None:
    assert find_imports(app, *set(APPS) - {app}) == set()


@pytest.mark.parametrize("folder", PACKAGES)
def test_only_portal_aws_imports_boto3(folder: str) -> None:
    outside = {
        line for line in find_imports(folder, *AWS_LIBRARIES) if not line.startswith(("portal/aws/", "portal/sandbox/"))
    }

    assert outside == set()


def test_the_local_aws_is_isolated() -> None:
    inside = {line for line in find_imports("portal/sandbox", *PACKAGES) if ": portal.sandbox" not in line}
    outside = {
        line
        for folder in PACKAGES
        for line in find_imports(folder, "portal.sandbox")
        if not line.startswith("portal/sandbox/")
    }

    assert (inside, outside) == (set(), set())


@pytest.mark.parametrize("folder", PACKAGES)
def test_nothing_imports_the_simulation(folder: str) -> None:
    assert find_imports(folder, "sim") == set()


@pytest.mark.parametrize("app", APPS)
def test_layers_import_only_lower_layers(app: str) -> None:
    rank = {name: number for number, row in enumerate(LAYERS[app]) for name in row.split()}
    lowest = len(LAYERS[app]) - 1
    upwards = []
    for path in source_files(app):
        layer = path.relative_to(ROOT / app).parts[0].removesuffix(".py")
        for name in read_imports(path):
            package, _, rest = name.partition(".")
            imported = rest.partition(".")[0]
            if package != app or layer in ("__init__", imported) or rank[layer] == rank[imported] == lowest:
                continue
            if rank[layer] >= rank[imported]:
                upwards.append(f"{path.relative_to(ROOT)}: {name}")

    assert upwards == []


def test_no_files_import_each_other_in_a_circle() -> None:
    # Imports inside functions count as well.
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in source_files(package)
    }
    imported = {
        module: {part for name in read_imports(path) for part in (name, name.rpartition(".")[0]) if part in modules}
        - {module}
        for module, path in modules.items()
    }

    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("folder", PACKAGES)
def test_no_file_has_a_name_that_says_nothing(folder: str) -> None:
    names = {part.removesuffix(".py") for path in source_files(folder) for part in path.relative_to(ROOT).parts}

    assert names & FORBIDDEN_NAMES == set()
