"""Bodies that no route takes are refused by their headers, or at their first file."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

pytestmark = pytest.mark.django_db

PATHS = ["/accounts/login/", "/o/acme/upgrades/new", "/admin/login/", "/api/v1/auth/login", "/deployments", "/nowhere"]
MULTIPART = "multipart/form-data; boundary=x"


class Unread:
    """A body that nobody may read."""

    def read(self, *args: Any) -> bytes:
        raise AssertionError("the body was read")

    readline = read


def announce(path: str, content_type: str, length: str) -> Any:
    """Send the headers of a POST."""
    body: dict[str, Any] = {"CONTENT_LENGTH": length, "wsgi.input": Unread()}
    return Client(enforce_csrf_checks=True).generic("POST", path, b"", content_type, **body)


@pytest.mark.parametrize(
    "content_type", [MULTIPART, "application/x-www-form-urlencoded", "application/json", "image/png"]
)
@pytest.mark.parametrize("path", PATHS)
def test_a_large_body_is_413_and_not_read(path: str, content_type: str) -> None:
    assert announce(path, content_type, str(1024 * 1024 + 1)).status_code == 413


@pytest.mark.parametrize("path", ["/accounts/login/", "/admin/login/"])
def test_a_file_is_415(path: str) -> None:
    file = SimpleUploadedFile("a.txt", b"x" * 1000)

    client = Client(enforce_csrf_checks=True)
    client.cookies["csrftoken"] = "t" * 32  # with it, the form is read for its token

    response = client.post(path, {"login": "a@example.com", "file": file})

    assert response.status_code == 415
    assert "The portal takes no files." in response.content.decode()
