"""nginx with the configuration of the docs, on a free port and with a certificate of its own."""

import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.local_aws import ROOT
from tests.processes import free_port, wait_for


@contextmanager
def running_nginx(folder: Path, *web_servers: int) -> Iterator[int]:
    """Run nginx before the two web servers at these ports, and return its port. Skips the test without nginx."""
    if not shutil.which("nginx") or not shutil.which("openssl"):
        pytest.skip("nginx or openssl is not installed")
    port, key, certificate = free_port(), folder / "portal.key", folder / "portal.crt"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=portal.example", "-days", "1"]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    first, second = web_servers
    text = (ROOT / "docs/deploy/nginx.conf").read_text()
    for here, there in {
        "127.0.0.1:8000": f"127.0.0.1:{first}",
        "127.0.0.1:8001": f"127.0.0.1:{second}",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/nginx/portal.crt": str(certificate),
        "/etc/nginx/portal.key": str(key),
    }.items():
        assert text.count(here) == 1
        text = text.replace(here, there)
    (folder / "nginx.conf").write_text(re.sub(r"http \{", f"http {{\n{write_paths(folder)}", text))
    directives = f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;"
    process = subprocess.Popen(["nginx", "-p", folder, "-c", folder / "nginx.conf", "-g", directives])
    wait_for(lambda: listens(port))
    try:
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


def write_paths(folder: Path) -> str:
    """Return the directives that keep nginx's files in the folder."""
    names = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    return "access_log off;\n" + "\n".join(f"{name}_temp_path {folder}/{name};" for name in names)


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def trust_anything() -> ssl.SSLContext:
    """Return the settings of a TLS client that accepts the certificate."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls
