"""Pictures by URL, from the public internet only.

In: a URL that a stranger chose. Out: at most so many bytes, within so many seconds. Names are resolved here, and the
connection goes to the very address that was looked at, so that no second answer of a name server can lead it elsewhere.
Each redirect is looked at anew.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import httpcore2

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {"Accept": "image/*,*/*;q=0.8", "Accept-Encoding": "identity", "User-Agent": "kimi-vl"}
_LONGEST = 4096  # characters of a URL
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# An IPv4 address stands at the end of these, and is where they lead.
_TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::ffff:0:0/96"))
# Of special use (RFC 6890, 8215), which some versions of Python take for public.
_SPECIAL = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "2001::/23")))


@dataclass(frozen=True)
class Fetcher:
    """``private`` admits addresses that are not public, for servers whose pictures lie in their own network."""

    most_bytes: int
    seconds: float
    redirects: int
    private: bool

    async def get(self, url: str) -> bytes:
        """Raises: ``ValueError`` naming the URL, without what stands behind its question mark."""
        shown = shortened(url)
        try:
            async with asyncio.timeout(self.seconds):
                return await self._follow(url)
        except TimeoutError:
            raise ValueError(f"{shown}: takes more than {self.seconds:g} s to be fetched") from None
        except ValueError as error:
            raise ValueError(f"{shown}: {error}") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
            reason = str(error) or type(error).__name__
            raise ValueError(f"{shown}: cannot be fetched ({reason[:200]})") from None

    async def _follow(self, url: str) -> bytes:
        async with httpcore2.AsyncConnectionPool(network_backend=_Guarded(self.private)) as pool:
            for _ in range(self.redirects + 1):
                answer = await self._once(pool, normalised(url))
                if isinstance(answer, bytes):
                    return answer
                url = urljoin(url, answer)
        raise ValueError(f"leads on more than {self.redirects} times")

    async def _once(self, pool: httpcore2.AsyncConnectionPool, url: str) -> bytes | str:
        """The body, or where it leads on to."""
        async with pool.stream("GET", url, headers=list(_HEADERS.items())) as response:
            headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in _REDIRECTS and b"location" in headers:
                return headers[b"location"]
            if response.status != 200:
                raise ValueError(f"answered with status {response.status}")
            length = headers.get(b"content-length", "")
            if length.isdigit() and int(length) > self.most_bytes:
                raise ValueError(f"has {length} bytes, over the limit of {self.most_bytes}")
            body = bytearray()
            async for part in response.aiter_stream():
                body += part
                if len(body) > self.most_bytes:
                    raise ValueError(f"has more bytes than the limit of {self.most_bytes}")
            return bytes(body)


def normalised(url: str) -> str:
    """A URL in ASCII.

    Raises: ``ValueError`` for one that is not http or https, has a password in it, or is none at all.
    """
    if len(url) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} characters")
    parts = urlsplit(url)
    if parts.scheme.lower() not in _PORTS:
        raise ValueError("must begin with http:// or https://, or be a data URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must have no user name or password in it")
    if not parts.hostname:
        raise ValueError("names no host")
    host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode()
    netloc = f"[{host}]" if ":" in host else host
    if parts.port is not None:  # which raises for what is no port
        netloc += f":{parts.port}"
    path = quote(parts.path or "/", safe="/%:=&~+!$,;'@()*-._")
    query = quote(parts.query, safe="/%:=&?~+!$,;'@()*-._[]")
    return urlunsplit((parts.scheme.lower(), netloc, path, query, ""))


def shortened(url: str) -> str:
    """As it may be shown and logged: what stands behind a question mark may be a secret."""
    plain = url.split("?")[0].split("#")[0]
    host = plain.split("://", 1)[-1].split("/")[0]
    plain = plain.replace(host, host.rsplit("@", 1)[-1], 1)
    return plain if len(plain) <= 200 else f"{plain[:200]}…"


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet."""
    try:
        ip: _Address = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if any(ip in network for network in _TRANSLATED):
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip.sixtofour is not None:
            return is_public(str(ip.sixtofour))
        if ip.teredo is not None or ip.is_site_local:
            return False
    special = ip.is_multicast or ip.is_reserved or any(ip in network for network in _SPECIAL)
    return ip.is_global and not special


class _Guarded(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that it has looked at itself."""

    def __init__(self, private: bool) -> None:
        self._private = private
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise ValueError("its host is not known") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        # if one of them is private, the name is not to be trusted as a whole
        if not self._private and not all(map(is_public, addresses)):
            raise ValueError("its host has a private address, which pictures are not fetched from")
        failure: Exception = ValueError("its host has no address")
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore2.NetworkError as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)
