"""The differences between clouds: arguments of a create call, tags, states, why a machine ended, the console.

Everything here runs in the thread that owns the driver.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import importlib
import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec

from lightwork.errors import ConfigError
from lightwork.runtime import Rejected
from lightwork_runtimes.cloud._options import CloudOptions

if TYPE_CHECKING:
    from libcloud.compute.base import Node, NodeDriver

__all__ = ["TAG", "Machine", "Order", "Phase", "Provider", "provider_for"]

TAG = "lightwork-"
"""Prefix of lightwork's tags: ``owner``, ``name``, ``spec``, ``work``, ``profile`` and ``scheduler``."""


class Phase(enum.StrEnum):
    """The state of a machine, in one word for the many words of the clouds."""

    COMING = "coming"
    UP = "up"
    DOWN = "down"
    """The machine does not run and will not run again, but it still exists and may cost something."""
    GONE = "gone"


class Machine(msgspec.Struct, frozen=True):
    """A machine as the cloud describes it.

    Attributes:
        id: The cloud's id.
        tags: lightwork's tags, without `TAG`.
        phase: The machine's state.
        state: The cloud's own word for the state.
        public, private: An address of each kind, empty if it has none.
        size: Id of its size, empty if the cloud does not report it.
        created: Time of creation in seconds since the epoch, by the cloud's clock; None if it is not reported.
        taken_back: Whether the cloud reports that it took the machine away.
    """

    id: str
    tags: dict[str, str]
    phase: Phase
    state: str
    public: str = ""
    private: str = ""
    size: str = ""
    created: float | None = None
    taken_back: bool = False


class Order(msgspec.Struct, frozen=True):
    """A machine to create. `tags` are without `TAG`; `disk_size` is in GB, 0 for the image's size."""

    name: str
    size: str
    tags: dict[str, str]
    user_data: str
    is_interruptible: bool = False
    disk_size: int = 0


class Provider:
    """A driver whose ``create_node`` takes ``ex_metadata`` and ``ex_userdata``, and whose nodes show their metadata.

    Args:
        where: Name of the profile for messages.
        options: The profile's options.
    """

    def __init__(self, where: str, options: CloudOptions) -> None:
        self.where = where
        self.options = options

    def open(self, secrets: dict[str, str]) -> NodeDriver:
        """Return a driver for this thread.

        Raises:
            ConfigError: The driver is unknown, its arguments are wrong, or it cannot be used here.
        """
        cls = self._driver_class()
        options = self.options
        given: dict[str, Any] = {"timeout": options.api_timeout, **options.driver, **secrets}
        if options.region is not None:
            given["region"] = options.region
        try:
            driver: NodeDriver = cls(**given)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{self.where}: the driver {options.provider!r} rejected the arguments from region, driver and "
                f"credentials: {error}"
            ) from None
        parameters = inspect.signature(driver.create_node).parameters
        missing = [name for name in ("ex_metadata", "ex_userdata") if name not in parameters]
        if missing:
            raise ConfigError(
                f"{self.where}: the driver {options.provider!r} cannot be used: its create_node does not take "
                f"{' and '.join(missing)}, so a machine could get lost, or could not end itself"
            )
        return driver

    def _driver_class(self) -> Any:
        from libcloud.compute.providers import get_driver

        name = self.options.provider
        try:
            if ":" in name:
                module, _, attribute = name.partition(":")
                return getattr(importlib.import_module(module), attribute)
            return get_driver(name)
        except (AttributeError, ImportError) as error:
            raise ConfigError(f"{self.where}: unknown driver {name!r} (provider): {error}") from None

    # --- creating -------------------------------------------------------------------------------

    def create(self, driver: NodeDriver, order: Order) -> Machine:
        """Create the machine, in one call that also sets its name and tags."""
        from libcloud.compute.base import NodeImage, NodeSize

        node = driver.create_node(  # type: ignore[call-arg]
            name=order.name,
            size=NodeSize(order.size, order.size, 0, 0, 0, 0.0, driver),
            image=NodeImage(self.options.image, self.options.image, driver),
            ex_userdata=order.user_data,
            ex_metadata={f"{TAG}{key}": value for key, value in order.tags.items()},
            **dict(self._arguments(order)),
        )
        return self.describe(node)

    def _arguments(self, order: Order) -> Iterator[tuple[str, Any]]:
        options = self.options
        if options.key_name is not None:
            yield "ex_keyname", options.key_name
        if options.security_groups:
            yield "ex_security_groups", options.security_groups
        if options.subnet is not None or options.public_address:
            raise Rejected(f"{self.where}: subnet and public_address are for ec2 only; use `create` instead")
        if order.disk_size:
            raise Rejected(f"{self.where}: disk_size is for ec2 only: the disk has the image's size")
        yield from options.create.items()
        if order.is_interruptible:
            if not options.interruptible:
                raise Rejected(
                    f"{self.where}: an interruptible machine was requested, but the profile has no arguments to "
                    "create one (interruptible)"
                )
            yield from options.interruptible.items()

    # --- querying -------------------------------------------------------------------------------

    def machines(self, driver: NodeDriver, owner: str | None) -> list[Machine]:
        """Return every machine of this owner, or of all owners. The list may include machines in `Phase.GONE`."""
        found = [self.describe(node) for node in driver.list_nodes()]
        return [one for one in found if "name" in one.tags and owner in (None, one.tags.get("owner"))]

    def describe(self, node: Node) -> Machine:
        """Return the description of a node."""
        created = node.created_at
        return Machine(
            str(node.id),
            self.tags(node),
            self.phase(node),
            str(node.state),
            _first(node.public_ips),
            _first(node.private_ips),
            self.size(node),
            None if created is None else created.timestamp(),
            self.taken_back(node),
        )

    def tags(self, node: Node) -> dict[str, str]:
        """Return lightwork's tags of a node."""
        extra = node.extra or {}
        every = extra.get("metadata") or extra.get("tags") or {}
        return {key.removeprefix(TAG): str(value) for key, value in every.items() if key.startswith(TAG)}

    def phase(self, node: Node) -> Phase:
        """Return the phase of a node."""
        match str(node.state):
            case "running":
                return Phase.UP
            case "terminated":
                return Phase.GONE
            case "stopped" | "stopping" | "error" | "suspended" | "paused":
                return Phase.DOWN
            case _:
                return Phase.COMING

    def size(self, node: Node) -> str:
        """Return the id of a node's size, empty if it is not reported."""
        return str(node.size.id) if node.size is not None else ""

    def taken_back(self, node: Node) -> bool:
        """Return whether the cloud reports that it took the machine away. Most clouds do not report it."""
        return bool((node.extra or {}).get("taken_back", False))

    def console(self, driver: NodeDriver, machine: str) -> str:
        """Return the console output of the machine.

        Raises:
            Rejected: The driver cannot read consoles.
        """
        read = getattr(driver, "ex_get_console_output", None)
        if read is None:
            raise Rejected(
                f"{self.where}: the driver {self.options.provider!r} cannot read a machine's console; set host_keys to "
                "'known' or 'first-use'"
            )
        said = read(_node(driver, machine))
        return str((said.get("output") if isinstance(said, dict) else said) or "")

    # --- ending ---------------------------------------------------------------------------------

    def destroy(self, driver: NodeDriver, machine: str) -> None:
        """Delete the machine. The caller checks that it is gone."""
        driver.destroy_node(_node(driver, machine))


class Ec2(Provider):
    """Amazon's EC2, and services with the same API."""

    def _arguments(self, order: Order) -> Iterator[tuple[str, Any]]:
        options = self.options
        yield "ex_terminate_on_shutdown", True
        # A repeated call with this token returns the same machine. So a lost answer does not cause a second machine.
        yield "ex_clienttoken", hashlib.sha256(order.name.encode()).hexdigest()[:32]
        if options.key_name is not None:
            yield "ex_keyname", options.key_name
        if options.security_groups:
            yield ("ex_security_groups" if options.subnet is None else "ex_security_group_ids"), options.security_groups
        if options.subnet is not None:
            yield "ex_subnet", SimpleNamespace(id=options.subnet)
        if options.public_address:
            yield "ex_assign_public_ip", True
        if order.disk_size:
            if options.root_device is None:
                raise Rejected(f"{self.where}: disk_size needs root_device, the root device of the image")
            disk = {"VolumeSize": order.disk_size, "DeleteOnTermination": "true"}
            yield "ex_blockdevicemappings", [{"DeviceName": options.root_device, "Ebs": disk}]
        yield from options.create.items()
        if order.is_interruptible:
            yield from options.interruptible.items()

    def machines(self, driver: NodeDriver, owner: str | None) -> list[Machine]:
        """Query only lightwork's machines: an account may have thousands of others."""
        wanted: Any = {"tag-key": f"{TAG}name"} if owner is None else {f"tag:{TAG}owner": owner}
        nodes = driver.list_nodes(ex_filters=wanted)
        return [one for node in nodes if "name" in (one := self.describe(node)).tags]

    def phase(self, node: Node) -> Phase:
        """Use EC2's own state, which is more exact than the driver's."""
        match node.extra.get("status"):
            case "pending" | None:
                return Phase.COMING
            case "running":
                return Phase.UP
            case "shutting-down" | "terminated":
                return Phase.GONE
        return Phase.DOWN

    def size(self, node: Node) -> str:
        """Return the instance type."""
        return str(node.extra.get("instance_type") or "")

    def taken_back(self, node: Node) -> bool:
        """Return whether EC2 gives a spot reason for the machine's end."""
        return "spot" in str(node.extra.get("reason") or "").lower()

    def console(self, driver: NodeDriver, machine: str) -> str:
        """Return the live console if this machine type has one, otherwise the console that was stored last."""
        from libcloud.common.exceptions import BaseHTTPError
        from libcloud.compute.drivers import ec2

        params = {"Action": "GetConsoleOutput", "InstanceId": machine, "Latest": "true"}
        connection: Any = driver.connection
        try:
            answer = connection.request("/", params=params).object
        except BaseHTTPError as error:
            if "UnsupportedOperation" not in str(error):
                raise
            answer = connection.request("/", params={**params, "Latest": "false"}).object
        text = answer.findtext(f"{{{ec2.NAMESPACE}}}output")
        return base64.b64decode(text).decode("utf-8", "replace") if text else ""


def provider_for(where: str, options: CloudOptions) -> Provider:
    """Return the provider for the cloud of a profile."""
    return (Ec2 if options.provider == "ec2" else Provider)(where, options)


def _first(addresses: list[str]) -> str:
    return str(addresses[0]) if addresses and addresses[0] else ""


def _node(driver: NodeDriver, machine: str) -> Node:
    """Make a node from its id: a node from another thread would use that thread's driver."""
    from libcloud.compute.base import Node
    from libcloud.compute.types import NodeState

    return Node(machine, machine, NodeState.UNKNOWN, [], [], driver)
