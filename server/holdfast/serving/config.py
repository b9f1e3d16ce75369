"""What a server is told: flags, and a TOML file with the same keys; checked before anything is touched."""

import ipaddress
import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from holdfast.cli import InputError
from holdfast.core.activations.breaker import FAILURES_MAX

LISTEN_DEFAULT = "127.0.0.1:50051"
HTTP_DEFAULT = "127.0.0.1:8080"
STORE_DEFAULT = "sqlite:holdfast.db"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 picks a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class AddressType(click.ParamType[Address]):
    """`HOST:PORT`, with an IPv6 host in brackets."""

    name = "host:port"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Reads an address."""
        if isinstance(value, Address):
            return value
        found = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]]+)):(?P<port>\d{1,5})", str(value))
        if found is None or int(found["port"]) > 65535:
            self.fail(f"{value!r} is no HOST:PORT with a port of 0 to 65535, such as {LISTEN_DEFAULT}", param, ctx)
        return Address(found["v6"] or found["host"], int(found["port"]))


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """Which store to use: an engine, and its file where it has one."""

    engine: str
    path: Path | None = None


class StoreType(click.ParamType[StoreSpec]):
    """`sqlite:PATH` or `memory`."""

    name = "store"

    def convert(  # noqa: RET503 - fail() does not return
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> StoreSpec:
        """Reads a store's address."""
        if isinstance(value, StoreSpec):
            return value
        engine, _, rest = str(value).partition(":")
        if engine == "sqlite" and rest:
            return StoreSpec("sqlite", Path(rest))
        if engine == "memory" and not rest:
            return StoreSpec("memory")
        if engine == "etcd":
            self.fail(f"{value!r}: the etcd engine is not built yet; use sqlite:PATH", param, ctx)
        self.fail(f"{value!r} is no store; use sqlite:PATH, or memory for a trial", param, ctx)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Everything a server is told. Times are in seconds."""

    listen: Address
    http: Address
    store: StoreSpec
    insecure: bool
    ready_file: Path | None
    drain_timeout_s: float
    retain_revisions: int
    log_level: str
    breaker_failures: int = FAILURES_MAX

    def check(self) -> None:
        """Checks across fields.

        Raises:
            InputError: An address can be reached from other machines, and `insecure` was not asked for.
        """
        for flag, address in (("--listen", self.listen), ("--http", self.http)):
            if not address.is_loopback and not self.insecure:
                raise InputError(
                    f"{flag} {address} can be reached from other machines, and this version has no authentication.\n"
                    "Listen on 127.0.0.1, or add --insecure if the network around it keeps strangers out."
                )


def read_file(path: Path, parameters: list[click.Parameter], ctx: click.Context) -> dict[str, Any]:
    """The values of a TOML file by parameter name: its keys are the flags without dashes in front.

    Raises:
        InputError: The file cannot be read, or a key or value in it is wrong; with file, line and key.
    """
    try:
        text = path.read_text()
        content = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror}. Name a TOML file this user can read.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: not TOML: {error}") from error
    known = {
        parameter.opts[0].removeprefix("--"): parameter
        for parameter in parameters
        if isinstance(parameter, click.Option) and parameter.name not in ("config", "help")
    }
    return dict(_value(path, text, key, value, known, ctx) for key, value in content.items())


def _value(
    path: Path, text: str, key: str, value: object, known: dict[str, click.Option], ctx: click.Context
) -> tuple[str, Any]:
    where = f"{path}:{_line_of(text, key)}: {key}"
    option = known.get(key)
    if option is None:
        near = get_close_matches(key.replace("_", "-"), known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else f" Keys are: {', '.join(sorted(known))}."
        raise InputError(f"{where}: no such key.{hint}")
    if isinstance(value, bool) != option.is_flag or not isinstance(value, (str, int, float)):
        expected = "true or false" if option.is_flag else f"a {option.type.name}"
        raise InputError(f"{where}: {value!r} is not {expected}.")
    try:
        converted = value if option.is_flag else option.type.convert(value, option, ctx)
    except click.BadParameter as error:
        raise InputError(f"{where}: {error.message}") from error
    assert option.name is not None, f"{option} has no name"
    return option.name, converted


def _line_of(text: str, key: str) -> int:
    pattern = re.compile(rf"""^\s*\[?\s*["']?{re.escape(key)}["']?\s*[\].=]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)
