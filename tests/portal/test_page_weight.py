"""What a browser loads for the heaviest pages, as the production server sends it."""

import re
from pathlib import Path
from typing import Any

import brotli
import pytest
from django.contrib.staticfiles import finders
from django.core.files import File

from portal.web.static_files import StaticFilesStorage
from tests.conftest import Cast
from tests.deployments.conftest import make_agent, make_deployment

KIB = 1024


@pytest.mark.parametrize("path", ["deployments/{deployment}/", "deployments/", "upgrades/"])
def test_style_and_script_of_a_page_stay_small(path: str, cast: Cast, client_for: Any, tmp_path: Path) -> None:
    deployment = make_deployment(cast, make_agent(cast))
    page = client_for(cast.operator).get("/o/acme/" + path.format(deployment=deployment.pk))
    names = re.findall(r'(?:src|href)="/static/([^"]+\.(?:css|js))"', page.content.decode())
    storage = StaticFilesStorage(location=tmp_path)

    weight = {"css": 0, "js": 0}
    for name in names:
        with open(str(finders.find(name)), "rb") as file:
            storage.save(name, File(file))
        weight[name.rpartition(".")[2]] += len(brotli.compress((tmp_path / name).read_bytes()))

    assert len(names) > 4
    assert weight["css"] <= 12 * KIB
    assert weight["js"] <= 24 * KIB
