"""The image: its Dockerfile follows the rules, what it copies is complete, and its steps run with production's packages."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.commands import find_mistakes, find_unknown_settings
from tests.deploy.production import SETTINGS, run_python
from tests.local_aws import ROOT

# https://docs.docker.com/reference/dockerfile/
INSTRUCTIONS = {"FROM", "COPY", "RUN", "ENV", "WORKDIR", "USER", "EXPOSE", "VOLUME", "HEALTHCHECK", "CMD"}
# The demo's: the local AWS, and what starts and stops the parts of `make up`.
DEMO_MODULES = ("portal.sandbox", "portal.local")
USED_IN_PRODUCTION = ("portal.local.exposure",)

IMPORT_ALL = """
import importlib, sys, django
django.setup()
for name in sys.argv[1:]:
    importlib.import_module(name)
"""

Step = tuple[str, str]


def read_stages() -> list[list[Step]]:
    """Return the instructions of each stage of the Dockerfile, with their arguments on one line."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    steps = [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]
    starts = [number for number, (name, _) in enumerate(steps) if name == "FROM"]
    return [steps[start:end] for start, end in zip(starts, [*starts[1:], len(steps)], strict=True)]


def find_argument(stage: list[Step], name: str) -> str:
    """Return the argument of the last such instruction."""
    return [argument for given, argument in stage if given == name][-1]


def is_ignored(path: Path) -> bool:
    """Return whether .dockerignore leaves the file out: the last line that matches it or a folder above it decides.

    https://docs.docker.com/build/concepts/context/#dockerignore-files
    """
    ignored = False
    places = [str(path), *(str(parent) for parent in path.parents)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        form = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(form, place) for place in places):
            ignored = not line.startswith("!")
    return ignored


def find_files() -> list[Path]:
    """Return the files that `COPY . .` copies in a fresh clone."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    paths = [Path(name) for name in names if name and (ROOT / name).exists()]
    return [path for path in paths if not is_ignored(path)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the image's files."""
    folder = tmp_path_factory.mktemp("image")
    for path in find_files():
        (folder / path.parent).mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    return folder


def find_production_modules() -> list[str]:
    paths = [path for package in ("portal", "deployments", "upgrades") for path in (ROOT / package).rglob("*.py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return sorted(name for name in names if not name.startswith(DEMO_MODULES) or name in USED_IN_PRODUCTION)


def test_the_dockerfile_follows_the_rules() -> None:
    stages = read_stages()
    names = {name for stage in stages for name, _ in stage}
    bases = {argument.split()[0] for stage in stages for name, argument in stage if name == "FROM"}

    assert names <= INSTRUCTIONS
    assert all(":" in base and not base.endswith(":latest") for base in bases)
    assert len(bases) == 1
    assert int(find_argument(stages[-1], "USER")) > 0
    assert "--require-hashes --only-binary=:all:" in find_argument(stages[0], "RUN")
    assert "/readyz" in find_argument(stages[-1], "HEALTHCHECK")
    assert not {"RUN", "COPY"} & {name for name, _ in stages[-1][-5:]}, "root's steps come before USER"


def test_its_command_is_the_web_process() -> None:
    assert find_mistakes(json.loads(find_argument(read_stages()[-1], "CMD"))) == []


def test_it_holds_only_what_runs_in_production() -> None:
    files = {str(path) for path in find_files()}
    folders = {name.partition("/")[0] for name in files}

    assert folders == {
        "requirements.txt",
        "manage.py",
        "portal",
        "deployments",
        "upgrades",
        "templates",
        "static",
    }
    assert {name for name in files if name.startswith(("portal/sandbox", "portal/local"))} == {
        "portal/local/__init__.py",
        "portal/local/exposure.py",
    }


def test_every_production_module_imports_only_production(image: Path) -> None:
    ran = run_python(
        "-c", IMPORT_ALL, *find_production_modules(), folder=image, DJANGO_SETTINGS_MODULE="portal.settings"
    )

    assert ran.returncode == 0, ran.stderr


def test_its_static_files_are_collected_by_its_own_step(image: Path) -> None:
    steps = [argument for name, argument in read_stages()[1] if name == "RUN" and "collectstatic" in argument]
    (step,) = steps
    settings, command = step.split("python ")

    ran = run_python(*command.split(), folder=image, **dict(each.split("=", 1) for each in settings.split()))

    assert ran.returncode == 0, ran.stderr
    assert (image / "static_root" / "staticfiles.json").exists()
    assert find_unknown_settings(each.split("=")[0] for each in settings.split()) == set()
    assert SETTINGS.keys() >= {each.split("=")[0] for each in settings.split()}
