"""The directions of the arrows : who may import whom, read from the source by ast."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APPS = [name for name in ("deployments", "upgrades") if (ROOT / name).is_dir()]
AWS_LIBRARIES = {"boto3", "botocore", "moto", "s3transfer"}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "services"}

# Inside an app a file imports only from files further down; those in one row do not import each other.
ORDER = {
    "deployments": [
        "urls agent_urls api_urls",
        "agents_api",
        "admin views act_views agent_views api tasks gauges templatetags management",
        "pages",
        "live_regions",
        "regions agent_forms serializers",
        "forms",
        "actions timeline charts windows",
        "commands",
        "reconcile",
        "steps",
        "looks",
        "budget",
        "lists logs metrics",
        "events",
        "log_lines environment",
        "models",
        "states",
        "apps",
    ],
    "upgrades": [
        "urls api_urls",
        "validation_views validation_api",
        "evidence",
        "admin views form_views version_views api tasks gauges templatetags management",
        "forms next_steps exports",
        "serializers lanes timeline plans version_options",
        "commands signing",
        "preflight",
        "versions rollback",
        "diffs",
        "platform",
        "drift rollouts validation",
        "goals steadiness own_views",
        "endings",
        "looks",
        "images claims matrix",
        "events estimates",
        "announcements",
        "models",
        "scope probes advice",
        "states",
        "apps",
    ],
}


def files(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if "migrations" not in path.parts]


def imports(path: Path) -> Iterator[str]:
    """The full names that a file imports: `from upgrades import api` is `upgrades.api.upgrades`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def found(folder: str, *packages: str) -> set[str]:
    """`file: name` for what the files of a folder import from the packages."""
    return {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files(folder)
        for name in imports(path)
        if any(name == package or name.startswith(f"{package}.") for package in packages)
    }


def test_portal_imports_no_app() -> None:
    assert found("portal", "upgrades", "deployments") == set()


@pytest.mark.parametrize("app", APPS)
def test_an_app_imports_no_other_app(app: str) -> None:
    assert found(app, *{"upgrades", "deployments"} - {app}) == set()


@pytest.mark.parametrize("folder", ["portal", *APPS])
def test_aws_libraries_are_imported_at_the_edge_alone(folder: str) -> None:
    outside = {
        line for line in found(folder, *AWS_LIBRARIES) if not line.startswith(("portal/aws/", "portal/sandbox/"))
    }

    assert outside == set()


def test_the_local_aws_stands_alone() -> None:
    inside = {line for line in found("portal/sandbox", "portal", *APPS) if ": portal.sandbox" not in line}
    outside = {
        line
        for folder in ("portal", *APPS)
        for line in found(folder, "portal.sandbox")
        if "portal/sandbox/" not in line
    }

    assert (inside, outside) == (set(), set())


@pytest.mark.parametrize("app", APPS)
def test_inside_an_app_imports_point_one_way(app: str) -> None:
    rank = {name: number for number, group in enumerate(ORDER[app]) for name in group.split()}
    backwards = []
    for path in files(app):
        part = path.relative_to(ROOT / app).parts[0].removesuffix(".py")
        for name in imports(path):
            package, _, rest = name.partition(".")
            if package == app and part != "__init__" and rank[part] >= rank[rest.partition(".")[0]]:
                backwards.append(f"{path.relative_to(ROOT)}: {name}")

    assert backwards == []


@pytest.mark.parametrize("folder", ["portal", *APPS])
def test_no_file_is_named_after_nothing(folder: str) -> None:
    names = {part.removesuffix(".py") for path in files(folder) for part in path.relative_to(ROOT).parts}

    assert names & FORBIDDEN_NAMES == set()
