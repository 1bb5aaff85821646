"""The settings of a service: its address, its clients and their limits."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rapidin.errors import SettingError
from rapidin.settings import RERANKED_PER_RESULT

TOKEN_VARIABLE = "RAPIDIN_TOKEN"
_SHORTEST_TOKEN = 16
_LONGEST_TOKEN = 4_096
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # what RFC 6750 allows behind "Bearer"
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one request, and of all of them together.

    Attributes:
        body: bytes of a request.
        body_seconds: seconds in which a request must have arrived.
        send_seconds: seconds in which the client must take each part of an answer.
        characters: characters of a prompt, and of a generation.
        tokens: tokens of both together, as the model sees them.
        max_new_tokens: tokens of an answer that the model writes.
        k: samples at each end.
        token_k: samples at each end if every token is looked up, which multiplies them.
        rerank: samples at each end whose exact influence is computed.
        waiting: searches that may wait while one is computed.
        seconds: seconds in which a search must be answered, waiting included.
        requests: requests of all kinds at a time.
        connections: connections at a time; more are closed at once.
        head_seconds: seconds in which a connection must have sent the head of a request.

    Raises:
        SettingError: on creation, a number is not positive.
    """

    body: int = 1 << 20
    body_seconds: float = 30.0
    send_seconds: float = 30.0
    characters: int = 100_000
    tokens: int = 2_048
    max_new_tokens: int = 512
    k: int = 100
    token_k: int = 20
    rerank: int = 300
    waiting: int = 16
    seconds: float = 120.0
    requests: int = 256
    connections: int = 512
    head_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            least = 0 if name in ("waiting", "rerank") else 1
            if not getattr(self, name) >= least:
                raise SettingError(
                    f"a limit of {getattr(self, name)} for {name} cannot be used: give at least {least}"
                )

    def default_rerank(self, k: int) -> int:
        """Return the number of exact influences that the command line computes, or 0 if the limit forbids it."""
        wanted = min(RERANKED_PER_RESULT * k, self.rerank)
        return wanted if wanted >= k else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """The address of a service, and the clients that it answers.

    Attributes:
        host: address or name to listen at.
        port: port to listen at; 0 for any that is free.
        token: token that a client must send; None: every client that reaches the address may ask.
        allowed_hosts: host names that requests may name besides those of this machine.
        limits: limits of requests.
        regular_expressions: whether filters may hold any regular expression. One can keep Python busy for ever.

    Raises:
        SettingError: on creation, others could reach the service without a token, or the token cannot be used.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    regular_expressions: bool = False

    def __post_init__(self) -> None:
        if self.token is not None:
            _check_token(self.token)
        elif not self.is_loopback:
            raise SettingError(
                f"--host {self.host} can be reached by others: give --token-file FILE, or set {TOKEN_VARIABLE}, "
                "so that only those who know the token are answered"
            )
        elif self.allowed_hosts:
            raise SettingError(
                "--allow-host lets others in who call this machine by that name: give --token-file FILE, or set "
                f"{TOKEN_VARIABLE}, too"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        return all(ipaddress.ip_address(address).is_loopback for address in _addresses(self.host))

    @property
    def names(self) -> frozenset[str] | None:
        """Names that a request's Host may hold, in small letters; None: any, because there is a token."""
        given = frozenset(name.lower() for name in self.allowed_hosts)
        if self.is_loopback:
            return given | {*_LOOPBACK_NAMES, self.host.lower()}
        return given | {*_LOOPBACK_NAMES, self.host.lower()} if given else None


def read_token(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """Read the token from a file, or else from the environment variable RAPIDIN_TOKEN; None if neither is there.

    Raises:
        SettingError: the file cannot be read, or is empty.
    """
    if file is None:
        return environment.get(TOKEN_VARIABLE) or None
    try:
        with file.open("rb") as opened:
            token = opened.read(_LONGEST_TOKEN + 2).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not text"
        raise SettingError(f"--token-file {file}: {reason}; give a file that holds one token") from error
    if not token:
        raise SettingError(f"--token-file {file} is empty: write a token of at least {_SHORTEST_TOKEN} characters")
    return token


def _check_token(token: str) -> None:
    if not (_SHORTEST_TOKEN <= len(token) <= _LONGEST_TOKEN and _TOKEN.fullmatch(token)):
        raise SettingError(
            f"the token cannot be used: it needs {_SHORTEST_TOKEN} to {_LONGEST_TOKEN} letters, digits or "
            ". _ ~ + / = -; 'openssl rand -hex 32' makes one"
        )


def _addresses(host: str) -> set[str]:
    """The addresses that a host stands for.

    Raises:
        SettingError: it stands for none.
    """
    try:
        found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SettingError(f"--host {host!r} is no address of this machine: {error}") from error
    return {str(address[0]).partition("%")[0] for *_, address in found}
