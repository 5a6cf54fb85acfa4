"""Outbound requests: refused addresses and handling of responses. A canary on loopback counts connections."""

import contextlib
import errno
import gc
import gzip
import ipaddress
import random
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from portal import outbound
from portal.outbound import OutboundFailed, OutboundRefused, send
from tests.outside import Outside, drip, outside, raw

LOOPBACK = ["127.0.0.1/32"]
EVERYTHING = ["0.0.0.0/0", "::/0"]

# Spellings that another parser may read as loopback, metadata or another host. Refused even if `networks` allows all.
SPELLINGS = """
http://2130706433:{port}/
http://0x7f000001:{port}/
http://0X7F000001:{port}/
http://017700000001:{port}/
http://0177.0.0.1:{port}/
http://0x7f.0.0.1:{port}/
http://127.1:{port}/
http://127.0.1:{port}/
http://127.0.0.01:{port}/
http://127.0.0.1.:{port}/
http://127.0.0.1..:{port}/
http://localhost.:{port}/
http://0:{port}/
http://127.0.0.256:{port}/
http://1.1.1.1.1:{port}/
http://0x:{port}/
http://user@127.0.0.1:{port}/
http://user:password@127.0.0.1:{port}/
http://@127.0.0.1:{port}/
http://example.com@127.0.0.1:{port}/
http://127.0.0.1:{port}@example.com/
http://example.com#@127.0.0.1:{port}/
http://127.0.0.1:{port}#@example.com/
http://127.0.0.1:{port}/#fragment
http://127.0.0.1:{port}\\@example.com/
http:\\\\127.0.0.1:{port}/
http:/127.0.0.1:{port}/
http:127.0.0.1:{port}/
http:///127.0.0.1:{port}/
//127.0.0.1:{port}/
127.0.0.1:{port}/
HTTP://127.0.0.1:{port}/
ftp://127.0.0.1:{port}/
file:///etc/passwd
gopher://127.0.0.1:{port}/_x
javascript:alert(1)
http://127.0.0.1 :{port}/
http://127.0.0.1:{port}/a b
 http://127.0.0.1:{port}/
http://127.0.0.1%2e:{port}/
http://127.0.0.1%00.example.com:{port}/
http://%31%32%37.0.0.1:{port}/
http://127.0.0.1:{port}:80/
http://127.0.0.1:0/
http://127.0.0.1:65536/
http://127.0.0.1:-1/
http://127.0.0.1:+{port}/
http://127.0.0.1:0x50/
http://127。0。0。1:{port}/
http://①②⑦.⓪.⓪.①:{port}/
http://\uff11\uff12\uff17.0.0.1:{port}/
http://ⓛocalhost:{port}/
http://loca\u217chost:{port}/
http://exämple.com:{port}/
http://-localhost:{port}/
http://localhost-:{port}/
http://local_host:{port}/
http://.localhost:{port}/
http://a..b:{port}/
http://[127.0.0.1]:{port}/
http://[::1:{port}/
http://::1:{port}/
http://[::1%25lo]:{port}/
http://[fe80::1%lo]:{port}/
http://[::ffff:127.1]:{port}/
http://[v1.127]:{port}/
http://:{port}/
http://
http://{long}:{port}/
http://127.0.0.1:{port}/{long}{long}{long}{long}{long}{long}{long}{long}
""".strip("\n").splitlines()
CONTROL = [f"http://127.0.0.1:{{port}}/{character}x" for character in '\t\n\r\0\x0b\x7f\x1b\u2028\u202e\\^`{|}"<>']
CONTROL += ["http://127.0.0.1\n.example.com:{port}/", "http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: x", "", "http://[]/"]

# Addresses that are never reached, even if `networks` contains everything.
NEVER = """
0.0.0.0 0.1.2.3 169.254.169.254 169.254.170.2 169.254.0.1 100.100.100.200 168.63.129.16 192.0.0.192 192.88.99.1 224.0.0.1
239.255.255.250 240.0.0.1 255.255.255.255 [::] [::127.0.0.1] [::169.254.169.254] [::2] [::ffff:169.254.169.254]
[::ffff:a9fe:aa02] [::ffff:0.0.0.0] [::ffff:0:7f00:1] [64:ff9b::7f00:1] [64:ff9b::a9fe:a9fe] [64:ff9b::10.0.0.1]
[64:ff9b:1::7f00:1] [2002:7f00:1::] [2002:a9fe:a9fe::1] [2001:0:53aa:64c::80ff:fffe] [2001::1] [2001:db8::1] [3fff::1]
[100::1] [5f00::1] [fe80::1] [febf::1] [fec0::1] [ff02::1] [ff05::2] [fd00:ec2::254] [fd00:ec2::253] [fd20:ce::254]
[2606:4700::5efe:7f00:1] [2606:4700::200:5efe:127.0.0.1] [fc00::5efe:a9fe:a9fe]
"""

# Addresses that are reached only if `networks` contains them.
PRIVATE = """
127.0.0.1 127.255.255.254 10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 100.64.0.1 100.127.255.255
198.18.0.1 198.19.255.255 192.0.2.1 198.51.100.1 203.0.113.1 [::1] [fc00::1] [fd12:3456::1] [::ffff:127.0.0.1]
[::ffff:7f00:1] [::ffff:10.0.0.1] [0:0:0:0:0:ffff:7f00:1] [4000::1] [1000::1]
"""

PUBLIC = "93.184.216.34 1.1.1.1 8.8.8.8 [2606:4700:4700::1111] [2a00:1450:4001::1] [64:ff9b::5db8:d822]"


@pytest.fixture
def canary() -> Iterator[Outside]:
    with outside() as server:
        yield server


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Set the DNS answers of a name, one after the other. The last one repeats."""
    answers: dict[str, list[list[str]]] = {}

    def resolve(host: str, port: int, *rest: Any, **named: Any) -> list[Any]:
        given = answers.get(host)
        if not given:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = given.pop(0) if len(given) > 1 else given[0]
        families = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [
            (families[ipaddress.ip_address(text).version], socket.SOCK_STREAM, 6, "", (text, port)) for text in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return answers


def test_a_request_is_answered(canary: Outside) -> None:
    canary.answer("/health", {"status": "healthy"})

    answer = send("GET", f"{canary.url}/health?x=%20", networks=LOOPBACK, headers={"Accept": "application/json"})

    assert (answer.status, answer.body) == (200, b'{"status": "healthy"}')
    assert answer.headers["content-type"] == "application/json"
    assert 0 < answer.seconds < 3
    head = canary.requests[0].split("\r\n")
    assert head[0] == "GET /health?x=%20 HTTP/1.1"
    assert {f"host: 127.0.0.1:{canary.port}", "accept: application/json", "accept-encoding: identity"} <= set(head)


def test_a_body_is_sent(canary: Outside) -> None:
    canary.answer("/hook", {}, status=202)

    answer = send("POST", f"{canary.url}/hook", networks=LOOPBACK, body=b'{"a": 1}', headers={"X-Id": "7"})

    assert answer.status == 202
    assert canary.requests[0].endswith('\r\n\r\n{"a": 1}')
    assert "Content-Length: 8" in canary.requests[0]


def test_a_name_is_reached_at_the_address_that_was_checked(canary: Outside, names: dict[str, list[list[str]]]) -> None:
    names["agent.acme.local"] = [["127.0.0.1"], ["169.254.169.254"]]
    canary.answer("/", {})

    assert send("GET", f"http://Agent.ACME.local:{canary.port}", networks=LOOPBACK).status == 200

    assert f"host: agent.acme.local:{canary.port}" in canary.requests[0]


def test_ipv6_is_reached(names: dict[str, list[list[str]]]) -> None:
    with outside("::1") as server:
        names["six.example"] = [["::1"]]

        for host in ("[::1]", "[0:0::1]", "six.example"):
            assert send("GET", f"http://{host}:{server.port}/", networks=["::1/128"]).status == 404

    assert f"host: [::1]:{server.port}" in server.requests[1]


def test_the_next_address_is_tried_when_one_takes_no_connection(
    canary: Outside, names: dict[str, list[list[str]]]
) -> None:
    names["two.example"] = [["127.0.0.2", "127.0.0.1"]]

    assert send("GET", f"http://two.example:{canary.port}/", networks=["127.0.0.0/30"]).status == 404


@pytest.mark.parametrize("left", [0, 1])
def test_running_out_of_file_descriptors_is_a_failure(canary: Outside, left: int) -> None:
    """For the socket itself, or for the duplicate that cuts it off."""
    with socket.socket() as next_free:
        limit = next_free.fileno() + left
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        with pytest.raises(OutboundFailed):
            send("GET", f"http://127.0.0.1:{canary.port}/", networks=LOOPBACK)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_family_that_the_machine_does_not_have_is_passed_over(
    canary: Outside, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithoutIPv6(socket.socket):
        def __init__(self, family: int = -1, *rest: Any, **more: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *rest, **more)

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    names["two.example"] = [["::1", "127.0.0.1"]]

    assert send("GET", f"http://two.example:{canary.port}/", networks=["::1/128", *LOOPBACK]).status == 404


def test_a_silent_address_leaves_time_for_the_next(canary: Outside, names: dict[str, list[list[str]]]) -> None:
    """A listener with a full queue drops packets, as a firewall does."""
    names["two.example"] = [["127.0.0.2", "127.0.0.1"]]
    with socket.socket() as listener, contextlib.ExitStack() as queue:
        listener.bind(("127.0.0.2", canary.port))
        listener.listen(0)
        for _ in range(3):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())

        assert send("GET", f"http://two.example:{canary.port}/", networks=["127.0.0.0/30"], seconds=2).status == 404


# Refused


@pytest.mark.parametrize("form", [*SPELLINGS, *CONTROL])
def test_an_odd_spelling_is_refused(canary: Outside, form: str, names: dict[str, list[list[str]]]) -> None:
    url = form.replace("{port}", str(canary.port)).replace("{long}", "a" * 256)
    for host in ("localhost", "example.com", "127.0.0.1", "xn--exmple-cua.com"):
        names[host] = [["127.0.0.1"]]

    with pytest.raises(OutboundRefused):
        send("GET", url, networks=[*LOOPBACK, *EVERYTHING])

    assert canary.connections == 0


@pytest.mark.parametrize("host", NEVER.split())
def test_some_addresses_are_never_reached(host: str, names: dict[str, list[list[str]]]) -> None:
    names["innocent.example"] = [[host.strip("[]")]]

    for url in (f"https://{host}/", f"http://{host}:8080/", "https://innocent.example/"):
        with pytest.raises(OutboundRefused, match="never connects to"):
            send("GET", url, networks=EVERYTHING)


@pytest.mark.parametrize("host", PRIVATE.split())
def test_private_addresses_need_the_settings(host: str, names: dict[str, list[list[str]]]) -> None:
    names["innocent.example"] = [[host.strip("[]")]]

    for url in (f"https://{host}/", f"http://{host}:8080/", "https://innocent.example/"):
        with pytest.raises(OutboundRefused, match="non-public"):
            send("GET", url, networks=["192.0.2.128/25", "fd99::/16"])


@pytest.mark.parametrize("host", PUBLIC.split())
@pytest.mark.parametrize("start", ["http://{}/", "http://{}:443/", "https://{}:8443/", "https://{}:80/"])
def test_public_addresses_are_reached_only_by_https(host: str, start: str) -> None:
    with pytest.raises(OutboundRefused, match="only by https on port 443"):
        send("GET", start.format(host), networks=LOOPBACK)


@pytest.mark.parametrize("host", PUBLIC.split())
def test_public_addresses_pass(host: str) -> None:
    place = outbound.parse(f"https://{host}/")

    assert [str(a) for a in outbound.permitted(place, LOOPBACK, outbound.Deadline(1))] == [place.host]


def test_one_forbidden_address_refuses_the_name(canary: Outside, names: dict[str, list[list[str]]]) -> None:
    names["mixed.example"] = [["127.0.0.1", "10.0.0.1"]]

    with pytest.raises(OutboundRefused):
        send("GET", f"http://mixed.example:{canary.port}/", networks=LOOPBACK)

    assert canary.connections == 0


def test_a_changed_dns_answer_reaches_nothing(canary: Outside, names: dict[str, list[list[str]]]) -> None:
    """127.0.0.2 is allowed and has no listener; the canary listens at 127.0.0.1, which is not allowed."""
    chance = random.Random(7)
    outcomes = []
    for number in range(1000):
        name = f"rebind-{number}.example"
        answers = [["127.0.0.2"], ["127.0.0.1"], ["127.0.0.2", "127.0.0.1"], ["::ffff:127.0.0.1"]]
        names[name] = [chance.choice(answers) for _ in range(4)]
        first = names[name][0]
        with pytest.raises((OutboundRefused, OutboundFailed)) as raised:
            send("GET", f"http://{name}:{canary.port}/", networks=["127.0.0.2/32"], seconds=1)
        outcomes.append((first == ["127.0.0.2"], raised.type))

    assert set(outcomes) == {(True, OutboundFailed), (False, OutboundRefused)}
    assert canary.connections == 0
    # One query for each: the second answer is still unused.
    assert all(len(names[f"rebind-{number}.example"]) == 3 for number in range(1000))


def test_reserved_headers_cannot_be_set(canary: Outside) -> None:
    for name in ("Host", "accept-encoding", "Content-Length", "Transfer-Encoding"):
        with pytest.raises(ValueError, match=name.lower()):
            send("GET", canary.url, networks=LOOPBACK, headers={name: "x"})


def test_a_header_cannot_be_smuggled_in(canary: Outside) -> None:
    with pytest.raises(OutboundFailed):
        send("GET", canary.url, networks=LOOPBACK, headers={"X-Id": "1\r\nX-Evil: 1"})

    assert canary.requests == []


# Responses


def test_a_redirect_is_returned(canary: Outside) -> None:
    canary.answers["/"] = raw(b"HTTP/1.1 302 Found\r\nLocation: /admin\r\nContent-Length: 0\r\n\r\n")

    answer = send("GET", canary.url, networks=LOOPBACK)

    assert (answer.status, answer.headers["location"]) == (302, "/admin")
    assert len(canary.requests) == 1


def test_proxies_of_the_environment_are_ignored(canary: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    with outside() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.upper(), proxy.url)

        send("GET", canary.url, networks=LOOPBACK)

        assert (canary.connections, proxy.connections) == (1, 0)


FAILURES = {
    "too large": (b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70000, "larger than 65536"),
    "too large without a length": (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 70000, "larger than 65536"),
    "too large in chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n" + b"x" * 70000 + b"\r\n0\r\n\r\n",
        "larger than 65536",
    ),
    "a bomb": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"0" * 10_000_000),
        "compressed",
    ),
    "a bomb that is denied": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Encoding: identity\r\n\r\nx",
        "compressed",
    ),
    "a bomb on the way": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "not requested"),
    "cut off": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx", "ended too early"),
    "cut off in chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "broke"),
    "nothing": (b"", "does not speak HTTP"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2 secret\r\n", "does not speak HTTP"),
    "a long line": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000 + b"\r\n\r\n", "does not speak HTTP"),
    "many headers": (b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n", "does not speak HTTP"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_an_unusable_response_fails(canary: Outside, kind: str) -> None:
    answer, sentence = FAILURES[kind]
    canary.answers["/"] = raw(answer)

    with pytest.raises(OutboundFailed, match=sentence) as raised:
        send("GET", canary.url, networks=LOOPBACK)

    assert "secret" not in str(raised.value)


def test_the_largest_response_is_accepted(canary: Outside) -> None:
    canary.answers["/"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + b"x" * 10)

    assert send("GET", canary.url, networks=LOOPBACK, max_bytes=10).body == b"x" * 10


def test_the_head_of_an_endless_response_is_read(canary: Outside) -> None:
    """A request that wants no body gets the status and does not read further."""
    endless = b"HTTP/1.1 202 Accepted\r\nContent-Encoding: gzip\r\n\r\n"

    def talk(connection: socket.socket, request: str) -> None:
        connection.sendall(endless)
        while True:
            connection.sendall(b"x" * 65536)

    canary.answers["/"] = talk

    answer = send("GET", canary.url, networks=LOOPBACK, seconds=2, max_bytes=None)

    assert (answer.status, answer.body) == (202, b"")


def test_a_closed_port_fails(canary: Outside) -> None:
    canary.stop()

    with pytest.raises(OutboundFailed, match="Nothing accepted the connection"):
        send("GET", canary.url, networks=LOOPBACK)


def test_a_name_without_an_address_fails(names: dict[str, list[list[str]]]) -> None:
    names["empty.example"] = [[]]

    for name in ("nowhere.example", "empty.example"):
        with pytest.raises(OutboundFailed, match="does not resolve"):
            send("GET", f"https://{name}/", networks=LOOPBACK)


@pytest.mark.parametrize(
    ("at_once", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"x" * 100),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 100),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n", b"x" * 100),
        (b"", b"HTTP/1.1 200 OK\r\nX-Header: " + b"x" * 100),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    ],
)
def test_a_dripping_response_is_cut_off(canary: Outside, at_once: bytes, answer: bytes) -> None:
    canary.answers["/"] = drip(answer, at_once=at_once)
    began = time.monotonic()

    with pytest.raises(OutboundFailed, match=r"No complete response within 0\.4 seconds"):
        send("GET", canary.url, networks=LOOPBACK, seconds=0.4)

    assert time.monotonic() - began < 1.5


def test_a_silent_peer_is_cut_off(canary: Outside) -> None:
    canary.answer("/", {}, seconds=2)
    began = time.monotonic()

    with pytest.raises(OutboundFailed, match="No complete response within"):
        send("GET", canary.url, networks=LOOPBACK, seconds=0.3)

    assert time.monotonic() - began < 1.5


def test_a_hanging_resolver_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *rest, **named: hang.wait(5) and [])
    began = time.monotonic()

    with pytest.raises(OutboundFailed, match="No complete response within"):
        send("GET", "https://slow.example/", networks=LOOPBACK, seconds=0.3)

    assert time.monotonic() - began < 1.5
    hang.set()


# TLS


def make_certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """Return a server context with a self-signed certificate for the name, and the file of its authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context, path


@pytest.fixture
def secure_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    """Start a server with a trusted certificate for hooks.example."""
    context, authority = make_certificate(tmp_path, "hooks.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    outbound.tls_context.cache_clear()
    with outside(tls=context) as server:
        yield server
    outbound.tls_context.cache_clear()


def test_tls_uses_the_host_name(secure_server: Outside, names: dict[str, list[list[str]]]) -> None:
    asked: list[str] = []
    assert secure_server.tls is not None
    secure_server.tls.sni_callback = lambda connection, name, context: asked.append(name)
    names["hooks.example"] = [["127.0.0.1"]]
    secure_server.answer("/", {})

    answer = send("POST", f"https://hooks.example:{secure_server.port}/", networks=LOOPBACK, body=b"{}")

    assert (answer.status, asked) == (200, ["hooks.example"])
    assert f"host: hooks.example:{secure_server.port}" in secure_server.requests[0]


def test_a_certificate_for_another_name_is_refused(secure_server: Outside, names: dict[str, list[list[str]]]) -> None:
    names["other.example"] = [["127.0.0.1"]]

    for host in ("other.example", "127.0.0.1"):
        with pytest.raises(OutboundFailed, match="certificate is not accepted"):
            send("GET", f"https://{host}:{secure_server.port}/", networks=LOOPBACK)

    assert secure_server.requests == []


def test_a_certificate_of_an_unknown_authority_is_refused(
    secure_server: Outside, names: dict[str, list[list[str]]], tmp_path: Path
) -> None:
    names["fake.example"] = [["127.0.0.1"]]
    context, _ = make_certificate(tmp_path, "fake.example")

    with outside(tls=context) as server, pytest.raises(OutboundFailed, match="certificate is not accepted"):
        send("GET", f"https://fake.example:{server.port}/", networks=LOOPBACK)


def test_plain_http_at_an_https_url_fails(canary: Outside) -> None:
    with pytest.raises(OutboundFailed, match="No TLS connection"):
        send("GET", f"https://127.0.0.1:{canary.port}/", networks=LOOPBACK)


def test_a_handshake_that_never_ends_is_cut_off() -> None:
    began = time.monotonic()

    # The server never calls accept: the kernel takes the connection, and nothing answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(OutboundFailed, match="No complete response within"):
            send("GET", url, networks=LOOPBACK, seconds=0.4)

    assert time.monotonic() - began < 1.5


def test_no_connection_is_left_open(canary: Outside) -> None:
    """Warnings are errors, so an unclosed socket fails the test. All timers must have ended too."""
    canary.answers["/"] = raw(FAILURES["too large"][0])
    for _ in range(20):
        with pytest.raises(OutboundFailed):
            send("GET", canary.url, networks=LOOPBACK)

    gc.collect()
    assert [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)] == []
