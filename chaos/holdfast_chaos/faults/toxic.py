"""What the faults made by one Toxiproxy toxic share: putting it there, and taking it away from any process."""

from abc import abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import quote

from pydantic import Field

from holdfast.cli import InputError
from holdfast_chaos import tools
from holdfast_chaos.faults.base import Availability, Fault, FaultContext, FaultError, SpecT, Support
from holdfast_chaos.toxiproxy import Toxiproxy, ToxiproxyError, ToxiproxyUnreachableError
from holdfast_slo.documents import Strict


class ToxicSpec(Strict):
    """Settings every toxic has."""

    toxicity: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    """Share of connections it touches. Toxiproxy draws it once for each connection, not for each call, and without a
    seed."""


class ToxicFault(Fault[SpecT]):
    """A fault that is one toxic on the proxy between load and target."""

    stream: ClassVar[str] = "downstream"

    @abstractmethod
    def attributes(self) -> dict[str, int]:
        """The toxic's own settings, in Toxiproxy's words."""

    @classmethod
    def supported(cls) -> Support:
        """Where Toxiproxy is installed."""
        try:
            tools.find("toxiproxy-server")
        except InputError as missing:
            return Support(Availability.NOT_HERE, missing.message)
        return Support(Availability.SUPPORTED)

    def undo_record(self, context: FaultContext) -> dict[str, Any]:
        """Where the toxic will be."""
        proxy = _toxiproxy(self.id, context)
        return {"kind": self.kind, "address": proxy.address, "proxy": context.proxy_name, "toxic": self._toxic}

    def inject(self, context: FaultContext) -> None:
        """Adds the toxic and reads it back."""
        toxicity = self.spec.toxicity if isinstance(self.spec, ToxicSpec) else 1.0
        _toxiproxy(self.id, context).add_toxic(
            context.proxy_name, self._toxic, self.kind, self.stream, toxicity, self.attributes()
        )

    def heal(self, context: FaultContext) -> None:
        """Removes the toxic."""
        _toxiproxy(self.id, context).remove_toxic(context.proxy_name, self._toxic)

    def is_healed(self, context: FaultContext) -> bool:
        """Whether Toxiproxy no longer lists it."""
        return self._toxic not in _toxiproxy(self.id, context).toxics(context.proxy_name)

    @classmethod
    def undo(cls, record: Mapping[str, Any]) -> str | None:
        """Removes the toxic, if Toxiproxy is still there: toxics live in its memory and end with it."""
        try:
            toxiproxy, proxy, name = Toxiproxy(str(record["address"])), str(record["proxy"]), str(record["toxic"])
        except (KeyError, ValueError) as error:
            raise FaultError(f"the journal's undo record {dict(record)!r} is malformed: {error!r}") from error
        where = f"proxy {proxy!r} of Toxiproxy at {toxiproxy.address}"
        command = f"curl -X DELETE http://{toxiproxy.address}/proxies/{quote(proxy)}/toxics/{quote(name)}"
        try:
            removed = toxiproxy.remove_toxic(proxy, name)
            left = name in toxiproxy.toxics(proxy)
        except ToxiproxyUnreachableError:
            return None
        except ToxiproxyError as error:
            raise FaultError(f"{error}; by hand: {command}") from error
        if left:
            raise FaultError(f"toxic {name!r} is still on {where}; by hand: {command}")
        return f"removed toxic {name!r} ({cls.kind}) from {where}" if removed else None

    @property
    def _toxic(self) -> str:
        return f"holdfast-{self.id}"


def whole_ms(duration: timedelta) -> int:
    """Milliseconds, rounded: Toxiproxy takes whole ones."""
    return round(duration / timedelta(milliseconds=1))


def _toxiproxy(fault_id: str, context: FaultContext) -> Toxiproxy:
    if context.toxiproxy is None or not context.proxy_name:
        raise FaultError(f"{fault_id} needs Toxiproxy between load and target, and this run has none")
    return context.toxiproxy
