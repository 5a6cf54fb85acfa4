"""Refuses bodies that no route takes: those larger than 1 MiB before they are read, and files at the first one."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.files.uploadhandler import FileUploadHandler
from django.http import HttpRequest, HttpResponse

from portal.errors import TOO_LARGE, FilesRefused, PortalError, respond


class BodyMiddleware:
    """Answer 413 if Content-Length is too large. portal/wsgi.py adds it to bodies that came without one.

    Django's own limit does not count files, and applies only after the body of a form was read.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        length = request.META.get("CONTENT_LENGTH") or "0"
        if length.isdecimal() and int(length) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return respond(request, PortalError("too_large", TOO_LARGE, 413))
        return self.get_response(request)


class RefusingUploadHandler(FileUploadHandler):
    """Refuses the first file of a form (FILE_UPLOAD_HANDLERS)."""

    def new_file(self, *args: Any, **options: Any) -> None:
        raise FilesRefused("no route takes files")

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        return raw_data

    def file_complete(self, file_size: int) -> None:
        return None
