"""HTTP requests to addresses that people entered (probes, webhooks), protected against server-side request forgery.

The host is resolved once, and every address found must pass. The connection goes to one of those addresses, with the
host name in Host, SNI and the certificate check. Public addresses are reached only by https on port 443. Any other
address or port must be in the caller's `networks`, and some addresses are never reached. Redirects are returned, not
followed. Proxies of the environment are ignored. One deadline covers the whole request, and the response size is
limited.

Built on http.client, which accepts a connected socket. A larger client adds pools, retries, redirects, decoding and
proxies, all of which would have to be switched off here.
"""

import functools
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DEFAULT_SECONDS = 3.0
DEFAULT_MAX_BYTES = 64 * 1024
# The most addresses of one name that are tried within the deadline.
MAX_ADDRESSES = 4
SET_HERE = {"host", "accept-encoding", "connection", "content-length", "transfer-encoding"}

# Refused even if `networks` contains them. Sources: IANA's special-purpose registries (iana-ipv4-special-registry,
# iana-ipv6-special-registry), and the addresses at which clouds serve credentials.
NEVER: list[Network] = [
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # "this host": Linux connects it to itself
        "100.100.100.200/32",  # metadata of Alibaba Cloud
        "168.63.129.16/32",  # metadata of Azure, a public address
        "169.254.0.0/16",  # link-local: metadata of EC2, credentials of ECS tasks (169.254.170.2)
        "192.0.0.0/24",  # protocol assignments; metadata of Oracle Cloud
        "192.88.99.0/24",  # relays of 6to4
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "::/128",
        "::ffff:0:0:0/96",  # IPv4 translated (RFC 2765)
        "64:ff9b:1::/48",  # local NAT64: the position of the IPv4 address in it is not known
        "100::/64",  # discarded
        "2001::/23",  # protocol assignments, including Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fd00:ec2::/32",  # metadata of EC2, time and names of AWS
        "fd20:ce::254/128",  # metadata of Google Cloud
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local
        "ff00::/8",  # multicast
    )
]
# Reached only if `networks` contains them. Python's `is_global` excludes most of these, depending on its version.
NOT_PUBLIC: list[Network] = [
    ip_network(text)
    for text in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
    )
]
PUBLIC_IPV6 = IPv6Network("2000::/3")
LOOPBACK_IPV6 = IPv6Address("::1")
NAT64 = IPv6Network("64:ff9b::/96")
IPV4_COMPATIBLE = IPv6Network("::/96")
ISATAP = {0x00005EFE, 0x02005EFE}  # the third quarter of the address (RFC 5214)

# Stricter than RFC 3986: refuses every URL that two parsers might read differently.
URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?][A-Za-z0-9._~:/?@!$&'()*+,;=%\[\]-]*)?"
)
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# A last label that a resolver may parse as a number: 127.1, 0x7f000001, 2130706433.
NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
MAX_URL_LENGTH = 2000


class OutboundRefused(Exception):
    """The address is not allowed, and nothing was connected. `str()` is a sentence that may be shown."""


class OutboundFailed(Exception):
    """There was no usable response. `str()` is a sentence that may be shown. It contains no part of the response."""


@dataclass(frozen=True)
class Answer:
    """A response of any status, including redirects. `body` is within the allowed size and never decoded.

    Header names are in lower case. The last value of a repeated header counts.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


@dataclass(frozen=True)
class Place:
    """A parsed URL. `host` is in lower case; an IPv6 address is without brackets."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default_port(self.scheme) else f"{host}:{self.port}"


class Deadline:
    """One deadline covering DNS, connect, TLS and every read."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.started_at = time.monotonic()

    @property
    def spent(self) -> float:
        return time.monotonic() - self.started_at

    @property
    def left(self) -> float:
        """Return the seconds left. Raises OutboundFailed if there are none."""
        self.check()
        return max(self.seconds - self.spent, 0.001)

    def check(self) -> None:
        """Raise OutboundFailed if the deadline has passed, so that it is reported instead of an error it caused."""
        if self.spent >= self.seconds:
            raise self.missed()

    def missed(self) -> OutboundFailed:
        return OutboundFailed(f"No complete response within {self.seconds:g} seconds.")


def send(
    method: str,
    url: str,
    *,
    networks: Iterable[str],
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    seconds: float = DEFAULT_SECONDS,
    max_bytes: int | None = DEFAULT_MAX_BYTES,
) -> Answer:
    """Send one request and read the response within `seconds` in total. `max_bytes` None reads only the headers.

    `networks`: CIDRs beyond the public internet that may be reached, also by http and on any port.

    *Raises* OutboundRefused if the address is not allowed; nothing was connected. OutboundFailed for no name, no
    connection, a TLS error, no HTTP, a body over `max_bytes`, a compressed, truncated or late response.
    """
    deadline = Deadline(seconds)
    place = parse(url)
    addresses = permitted(place, networks, deadline)
    requested_headers = {name.lower(): value for name, value in (headers or {}).items()}
    if SET_HERE & set(requested_headers):
        raise ValueError(f"set only by portal.outbound: {', '.join(sorted(SET_HERE & set(requested_headers)))}")
    connection = connect(place, addresses, deadline)
    with connection, translate_errors(deadline), cut_off_at(deadline, connection):
        secured = secure(connection, place)
        with secured:
            return exchange(secured, method, place, requested_headers, body, max_bytes, deadline)


def parse(url: str) -> Place:
    """Parse a URL. Raises OutboundRefused for anything but a plain `http(s)://host[:port][/path][?query]`."""
    found = URL.fullmatch(url) if len(url) <= MAX_URL_LENGTH else None
    if found is None:
        raise OutboundRefused("This is not a plain address such as https://name.example/path.")
    scheme = found["scheme"]
    host = found["host"].lower()
    port = int(found["port"]) if found["port"] else default_port(scheme)
    if not 1 <= port <= 65535:
        raise OutboundRefused(f"{port} is not a valid port.")
    target = found["target"] or "/"
    return Place(scheme, known_host(host), port, target if target.startswith("/") else f"/{target}")


def default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def known_host(host: str) -> str:
    """Return the host name, or the IP address in its canonical form. Raises OutboundRefused."""
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1]))
        labels = host.split(".")
        if NUMERIC.fullmatch(labels[-1]):
            # Four decimal numbers without leading zeros. Any other notation is refused.
            return str(IPv4Address(host))
    except ValueError as error:
        raise OutboundRefused(f"{host} is not an IP address in its usual notation.") from error
    if not all(LABEL.fullmatch(label) for label in labels):
        raise OutboundRefused(f"{host} is not a valid host name. Write an international name in its xn-- form.")
    return host


def permitted(place: Place, networks: Iterable[str], deadline: Deadline) -> list[Address]:
    """Return the addresses to try. Raises OutboundRefused unless all of them may be reached."""
    extra = [ip_network(text) for text in networks]
    addresses = [unmapped(address) for address in resolve(place, deadline)]
    for address in addresses:
        if is_forbidden(address):
            raise OutboundRefused(f"{place.host} resolves to an address that the portal never connects to.")
        if any(address in network for network in extra):
            continue
        if not is_public(address):
            raise OutboundRefused(f"{place.host} resolves to a non-public address that the settings do not allow.")
        if (place.scheme, place.port) != ("https", 443):
            raise OutboundRefused("Public addresses are reached only by https on port 443.")
    return list(dict.fromkeys(addresses))[:MAX_ADDRESSES]


def resolve(place: Place, deadline: Deadline) -> list[Address]:
    """Return every address of the host. Runs the system's resolver on its own thread, because it takes no timeout."""
    with suppress(ValueError):
        return [ip_address(place.host)]
    found: list[Address] = []

    def collect() -> None:
        with suppress(OSError, ValueError):  # ValueError includes UnicodeError
            found.extend(query_resolver(place))

    resolver = threading.Thread(target=collect, name="outbound-resolve", daemon=True)
    resolver.start()
    resolver.join(deadline.left)
    if resolver.is_alive():
        raise deadline.missed()
    if not found:
        raise OutboundFailed(f"The name {place.host} does not resolve.")
    return found


def query_resolver(place: Place) -> list[Address]:
    entries = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    families = (socket.AF_INET, socket.AF_INET6)
    return [ip_address(str(sockaddr[0])) for family, _, _, _, sockaddr in entries if family in families]


def unmapped(address: Address) -> Address:
    """Return the IPv4 address of an IPv4-mapped one, so that `::ffff:127.0.0.1` counts as 127.0.0.1."""
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def is_forbidden(address: Address) -> bool:
    if any(address in network for network in NEVER):
        return True
    if isinstance(address, IPv4Address):
        return False
    if address in NAT64:
        # The gateway connects to the IPv4 address. The prefix is only for public ones (RFC 6052, 3.1).
        return not is_public(embedded(address))
    is_isatap = (int(address) >> 32) & 0xFFFFFFFF in ISATAP
    is_compatible = address in IPV4_COMPATIBLE and address != LOOPBACK_IPV6
    return bool(address.scope_id) or is_isatap or is_compatible


def is_public(address: Address) -> bool:
    """Return whether the address is public by our own lists and Python's. False for every address in NEVER."""
    if any(address in network for network in (*NEVER, *NOT_PUBLIC)):
        return False
    if isinstance(address, IPv6Address):
        if address in NAT64:
            return is_public(embedded(address))
        return address in PUBLIC_IPV6 and address.is_global
    return address.is_global


def embedded(address: IPv6Address) -> IPv4Address:
    """Return the IPv4 address in the last 32 bits."""
    return IPv4Address(int(address) & 0xFFFFFFFF)


def connect(place: Place, addresses: list[Address], deadline: Deadline) -> socket.socket:
    """Connect to the first address that accepts. Each attempt gets an equal share of the remaining time."""
    for position, address in enumerate(addresses):
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with suppress(OSError), ExitStack() as unless_connected:
            # Creating the socket fails on a machine without this family or without free file descriptors.
            connection = unless_connected.enter_context(socket.socket(family, socket.SOCK_STREAM))
            connection.settimeout(deadline.left / (len(addresses) - position))
            connection.connect((str(address), place.port))
            connection.settimeout(deadline.left)
            unless_connected.pop_all()
            return connection
    deadline.check()
    raise OutboundFailed(f"Nothing accepted the connection at {place.host}, port {place.port}.")


@contextmanager
def cut_off_at(deadline: Deadline, connection: socket.socket) -> Iterator[None]:
    """Shut the connection down at the deadline. A peer that sends one byte a second never exceeds a socket timeout.

    Uses a duplicate of the socket, because TLS detaches the original during its handshake.
    """
    with connection.dup() as handle:

        def cut() -> None:
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(deadline.left, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # the timer may still be using the handle


@contextmanager
def translate_errors(deadline: Deadline) -> Iterator[None]:
    """Translate network errors into our own messages, because the library's may contain parts of the response."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise OutboundFailed(f"The certificate is not accepted: {error.verify_message}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        deadline.check()
        if isinstance(error, ssl.SSLError):
            raise OutboundFailed("No TLS connection could be made.") from error
        raise OutboundFailed("The connection broke, or the server does not speak HTTP.") from error


def secure(connection: socket.socket, place: Place) -> socket.socket:
    if place.scheme == "http":
        return connection
    return tls_context().wrap_socket(connection, server_hostname=place.host)


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Return a context that checks the name, needs TLS 1.2 and trusts the system's authorities or `SSL_CERT_FILE`."""
    return ssl.create_default_context()


def exchange(
    connection: socket.socket,
    method: str,
    place: Place,
    headers: dict[str, str],
    body: bytes | None,
    max_bytes: int | None,
    deadline: Deadline,
) -> Answer:
    speaker = http.client.HTTPConnection(place.host, place.port)
    speaker.sock = connection
    ours = {"host": place.host_header, "accept-encoding": "identity", "connection": "close"}
    speaker.request(method, place.target, body=body, headers={"user-agent": "operations-portal", **headers, **ours})
    with speaker.getresponse() as response:
        named = {name.lower(): value for name, value in response.getheaders()}
        deadline.check()  # a response that was cut off seems complete
        if max_bytes is None:
            return Answer(response.status, named, b"", round(deadline.spent, 3))
        if response.getheader("content-encoding", "identity").strip().lower() != "identity":
            raise OutboundFailed("The response is compressed, although the request asked for no compression.")
        if response.getheader("transfer-encoding", "chunked").strip().lower() != "chunked":
            raise OutboundFailed("The response uses a transfer encoding that was not requested.")
        read = response.read(max_bytes + 1)
        if len(read) > max_bytes:
            raise OutboundFailed(f"The response is larger than {max_bytes} bytes.")
        deadline.check()  # as above
        if response.length:
            raise OutboundFailed("The response ended too early.")
        return Answer(response.status, named, read, round(deadline.spent, 3))
