"""A phone or board by its address: `rpc://HOST:PORT/KEY`, or `rpc+tracker://HOST:PORT/KEY` for whichever a tracker
hands out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pconvgen.devices.served import Address, ServedDevice
from pconvgen.devices.tracker import Servers, servers
from pconvgen.errors import UsageError

SCHEMES = {"rpc": False, "rpc+tracker": True}
"""Whether the address is a tracker's."""
ADDRESS = re.compile(r"(?P<scheme>[a-z+]+)://(?P<host>[^:/]+):(?P<port>\d{1,5})/(?P<key>[^\s:/]+)")


@dataclass(frozen=True)
class RpcDevice(ServedDevice):
    """A server that somebody has started.

    Attributes
    ----------
    host, port, key, tracker: see `Address`.
    """

    host: str
    port: int
    key: str
    tracker: bool = False

    @property
    def name(self) -> str:  # type: ignore[override]
        """Its address."""
        scheme = "rpc+tracker" if self.tracker else "rpc"
        return f"{scheme}://{self.host}:{self.port}/{self.key}"

    @property
    def kind(self) -> str:
        """Its key: devices with one key are of one kind."""
        return self.key

    @property
    def slots(self) -> int:
        """How many servers a tracker has for this key."""
        if not self.tracker:
            return 1
        return sum(len(found.addresses) for found in self._registered() if found.key == self.key)

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        """The tracker tells who is registered; see `Device.steps`."""

        def tracker() -> str:
            there = [f"{found.key}: {len(found.addresses)}, {found.free} free" for found in self._registered()]
            return f"answers; registered: {'; '.join(there) or 'nobody'}"

        return [("tracker", tracker)] if self.tracker else []

    def _registered(self) -> list[Servers]:
        return servers(f"{self.host}:{self.port}")

    def address(self) -> Address:
        """Where it is reached."""
        return Address(self.host, self.port, self.key, self.tracker)


def parse_address(text: str) -> RpcDevice:
    """The device with that address.

    Raises
    ------
    UsageError: it is none.
    """
    found = ADDRESS.fullmatch(text)
    if not found or found["scheme"] not in SCHEMES or not 0 < int(found["port"]) < 65536:
        raise UsageError(
            "no address of a device",
            found=text,
            expected=" or ".join([*(f"{scheme}://HOST:PORT/KEY" for scheme in SCHEMES), "adb://SERIAL"]),
            remedy="the port and the key are what the server was started with",
        )
    return RpcDevice(found["host"], int(found["port"]), found["key"], SCHEMES[found["scheme"]])
