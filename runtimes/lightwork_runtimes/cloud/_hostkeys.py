"""SSH keys: the login key that new machines accept, and the host keys that identify machines.

Nobody knows the host key of a new machine. Sending one in the user data would be unsafe: any process on the machine
could read it there and impersonate the machine later. So the machine makes its own key and prints it on its console.
The cloud returns the console over the same authenticated channel that the order used.
"""

from __future__ import annotations

import os
import re
import tempfile

import anyio
import asyncssh

from lightwork.runtime import Rejected, Unreachable
from lightwork_runtimes.cloud._options import CloudOptions
from lightwork_runtimes.cloud._userdata import BEGIN_KEYS, END_KEYS

__all__ = ["first_use", "forget", "known_hosts_file", "login_keys", "printed_keys", "remember"]

_KEY = re.compile(r"(?:ssh-|ecdsa-|sk-)[\w@.-]+ [A-Za-z0-9+/]+=*")


def login_keys(where: str, options: CloudOptions) -> tuple[list[str], list[str]]:
    """Return files of private keys for the login, and their public keys. Make a key if none is configured. Blocks.

    Raises:
        Rejected: A file cannot be read, or holds no key.
    """
    files = [os.path.expanduser(file) for file in options.client_keys]
    if not files:
        files = [f"{options.state_folder}/key"]
        _make_key(files[0])
    return files, [_public_key(where, file) for file in files]


def _make_key(path: str) -> None:
    if os.path.exists(path):
        return
    _make_folder(os.path.dirname(path))
    key = asyncssh.generate_private_key("ssh-ed25519", comment="lightwork")
    descriptor, aside = tempfile.mkstemp(prefix=".key-", dir=os.path.dirname(path))  # only this user can read it
    try:
        with open(descriptor, "wb") as file:
            file.write(key.export_private_key())
        # Another process may do the same. The first key is used by all.
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(aside)


def _public_key(where: str, path: str) -> str:
    try:
        if os.path.exists(f"{path}.pub"):
            key = asyncssh.read_public_key(f"{path}.pub")
        else:
            key = asyncssh.read_private_key(path).convert_to_public()
    except (OSError, asyncssh.KeyImportError) as error:
        raise Rejected(f"{where}: client_keys: {path} cannot be used: {error}") from None
    return key.export_public_key().decode().strip()


# --- known hosts ----------------------------------------------------------------------------------


def printed_keys(console: str) -> list[str]:
    """Return the host keys that a machine printed last. Return none if it has not printed them completely."""
    text = console.replace("\r", "")
    start = text.rfind(BEGIN_KEYS)
    end = text.find(END_KEYS, start)
    if start < 0 or end < 0:
        return []
    return _KEY.findall(text[start:end])


async def first_use(where: str, host: str, port: int, timeout: float) -> list[str]:
    """Return the key of the server that answers at the address. Nothing proves that it is the machine.

    Raises:
        Unreachable: No server answers.
    """
    try:
        with anyio.fail_after(timeout):
            key = await asyncssh.get_server_host_key(host, port, config=None)
    except (OSError, asyncssh.Error, TimeoutError) as error:
        raise Unreachable(f"{where}: {host} has not shown a host key yet: {error}") from None
    return [] if key is None else [key.export_public_key().decode().strip()]


def known_hosts_file(options: CloudOptions, machine: str) -> str:
    """Return the path of the file with a machine's host keys."""
    return f"{options.state_folder}/hosts/{re.sub('[^A-Za-z0-9._-]', '_', machine)}"


def remember(path: str, host: str, port: int, keys: list[str]) -> None:
    """Write the host keys of a machine to a file. Blocks."""
    _make_folder(os.path.dirname(path))
    name = f"[{host}]:{port}" if port != 22 else host
    aside = f"{path}.{os.urandom(4).hex()}"
    with open(aside, "w", encoding="utf-8") as file:
        file.writelines(f"{name} {key}\n" for key in keys)
    os.rename(aside, path)


def forget(path: str) -> None:
    """Remove the file that `remember` wrote. Blocks."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _make_folder(path: str) -> None:
    os.makedirs(path, mode=0o700, exist_ok=True)
