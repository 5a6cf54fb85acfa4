"""compose.yaml: every command, setting, file and service that it names exists, and its processes are confined."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.commands import find_mistakes, find_unknown_settings
from tests.deploy.production import run_python
from tests.local_aws import ROOT

EXAMPLE = ROOT / "docs" / "deploy" / "compose.env"
PORTAL = {"web", "worker", "scheduler", "migrate", "create-roles"}
VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")


def read_example() -> dict[str, str]:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def read_services() -> dict[str, dict[str, Any]]:
    """Return the services with the variables filled in, as Compose does. What the example leaves empty is a secret."""
    values = {name: value or "0123456789abcdef" * 4 for name, value in read_example().items()}
    text = (ROOT / "compose.yaml").read_text().replace("$$", "$")
    filled = VARIABLE.sub(lambda found: values.get(found[1], found[3] or ""), text)
    services: dict[str, dict[str, Any]] = yaml.safe_load(filled)["services"]
    return services


SERVICES = read_services()


def test_the_example_sets_every_variable_without_a_default() -> None:
    used = VARIABLE.findall((ROOT / "compose.yaml").read_text())

    assert {name for name, sign, _ in used if sign == "?"} <= read_example().keys()
    assert read_example().keys() <= {name for name, _, _ in used}


@pytest.mark.parametrize("name", sorted(PORTAL))
def test_each_process_of_the_portal_is_confined(name: str) -> None:
    service = SERVICES[name]

    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert find_unknown_settings(service["environment"]) == set()
    assert find_mistakes(service.get("command", ["gunicorn", "portal.wsgi"])) == []
    assert ("DATABASE_OWNER_URL" in service["environment"]) == (name == "migrate")


def test_only_the_proxy_has_a_port_outside() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"proxy"}


def test_the_services_that_are_waited_for_are_checked() -> None:
    own_checks = {name for name, service in SERVICES.items() if "test" in service.get("healthcheck", {})} | {"web"}

    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in own_checks or how["condition"] == "service_completed_successfully", (name, needed)


def test_the_files_that_it_mounts_exist() -> None:
    mounted = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    files = [volume.split(":")[0] for volume in mounted if volume.startswith("./")]

    assert files
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_production_starts_with_its_settings() -> None:
    settings = {name: value or "" for name, value in SERVICES["migrate"]["environment"].items()}

    ran = run_python("manage.py", "check", "--deploy", "--fail-level", "WARNING", **settings)

    assert ran.returncode == 0, ran.stderr


def test_the_proxy_changes_the_address_and_the_name_in_nginx_conf(tmp_path: Path) -> None:
    """The image has no file of nginx's own to change, so the command writes another one and starts nginx with it."""
    command = SERVICES["proxy"]["command"][2].partition(" > ")[0]
    command = command.replace("/etc/portal/nginx.conf", str(ROOT / "docs/deploy/nginx.conf"))

    ran = subprocess.run(
        ["sh", "-c", command], env={"PATH": os.environ["PATH"], "PORTAL_HOST": "ops.example"}, capture_output=True
    )

    upstream = re.search(r"upstream portal \{(.*?)\n  \}", ran.stdout.decode(), re.S)
    assert upstream
    servers = [line.strip() for line in upstream[1].splitlines() if "server " in line and "#" not in line]
    assert servers == ["zone portal 64k; resolver 127.0.0.11 valid=5s; server web:8000 resolve max_fails=0;"]
    assert "server_name ops.example;" in ran.stdout.decode()
