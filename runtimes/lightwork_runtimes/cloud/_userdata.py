"""The script of a new machine: start the watchdog, run the setup, allow the login, print the host keys.

Clouds call this shell script user data. Every process that can read the machine's metadata can read it, works
included. So it holds no secret. Its login key is the public half.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

import msgspec

__all__ = ["BEGIN_KEYS", "END_KEYS", "MOST_BYTES", "Watchdog", "user_data"]

BEGIN_KEYS = "-----BEGIN SSH HOST KEY KEYS-----"
END_KEYS = "-----END SSH HOST KEY KEYS-----"
"""The markers that cloud-init prints too, so either's output can be read."""

MOST_BYTES = 16384
"""EC2's limit; other clouds allow more."""

_LONGEST_PAUSE = 10
"""Longest pause between two checks of the watchdog, in seconds."""


class Watchdog(msgspec.Struct, frozen=True):
    """When a machine shuts itself down.

    Attributes:
        first: Seconds to wait for the first heartbeat of a scheduler.
        window: Seconds without a worker and without a scheduler after that.
        lifetime: Seconds after which it shuts down in any case; None for no limit.
    """

    first: float
    window: float
    lifetime: float | None


def user_data(
    watchdog: Watchdog, *, username: str, folder: str, public_keys: Sequence[str], setup: Sequence[str] = ()
) -> str:
    """Return the script.

    Args:
        watchdog: When the machine shuts itself down.
        username: User of the login.
        folder: `SshOptions.folder` on the machine.
        public_keys: Lines for ``authorized_keys``.
        setup: Commands that must succeed before any login is allowed.
    """
    pause = max(1, min(_LONGEST_PAUSE, int(min(watchdog.first, watchdog.window) / 4)))
    values = {
        "user": username,
        "folder": folder,
        "first": math.ceil(watchdog.first),
        "window": math.ceil(watchdog.window),
        "lifetime": 0 if watchdog.lifetime is None else math.ceil(watchdog.lifetime),
        "pause": pause,
    }
    lines = "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in values.items())
    watch = _WATCH.replace("@VALUES@\n", lines)
    steps = "\n".join(setup)
    keys = "\n".join(public_keys)
    return (
        _SCRIPT.replace("@WATCH@\n", watch)
        .replace("@USER@", shlex.quote(username))
        .replace("@BEGIN@", BEGIN_KEYS)
        .replace("@END@", END_KEYS)
        .replace("@SETUP@", f"set -e\n{steps}" if setup else ":")
        .replace("@KEYS@", keys)
    )


def _short(script: str) -> str:
    """Remove comments and indentation: the script travels in the URL of a request, whose length servers limit."""
    lines = [line.strip() for line in script.splitlines()]
    return "".join(f"{line}\n" for line in lines if line and not (line.startswith("#") and line != "#!/bin/sh"))


_SCRIPT = _short("""\
#!/bin/sh
# Made by lightwork for this machine. It holds no secret.
umask 022
say() { echo "lightwork: $1" >/dev/console 2>/dev/null || true; }
mkdir -p /var/lib/lightwork

# 1. This machine shuts itself down when nobody needs it any more, even if everything else fails.
cat >/var/lib/lightwork/watch <<'LIGHTWORK_END'
@WATCH@
LIGHTWORK_END
if [ -d /run/systemd/system ]; then
    cat >/etc/systemd/system/lightwork-watch.service <<'LIGHTWORK_END'
[Unit]
Description=lightwork: shuts this machine down when nobody needs it any more
[Service]
ExecStart=/bin/sh /var/lib/lightwork/watch
Restart=always
[Install]
WantedBy=multi-user.target
LIGHTWORK_END
    systemctl daemon-reload
    systemctl enable lightwork-watch.service
    systemctl start --no-block lightwork-watch.service
else
    setsid sh /var/lib/lightwork/watch >/dev/null 2>&1 </dev/null &
fi

# 2. The setup of the profile.
cat >/var/lib/lightwork/setup <<'LIGHTWORK_END'
@SETUP@
LIGHTWORK_END
if ! sh /var/lib/lightwork/setup >/var/lib/lightwork/setup.log 2>&1 </dev/null; then
    say "the setup failed; its last lines:"
    tail -n 15 /var/lib/lightwork/setup.log >/dev/console 2>/dev/null
    exit 1
fi

# 3. Only now the login is allowed.
home=$(eval echo ~@USER@)
mkdir -p "$home/.ssh"
chmod 700 "$home/.ssh"
cat >>"$home/.ssh/authorized_keys" <<'LIGHTWORK_END'
@KEYS@
LIGHTWORK_END
chmod 600 "$home/.ssh/authorized_keys"
chown -R @USER@ "$home/.ssh"
{
    echo "@BEGIN@"
    cat /etc/ssh/ssh_host_*_key.pub
    echo "@END@"
} >/dev/console 2>/dev/null
exit 0
""")

_WATCH = _short("""\
# All times are this machine's own uptime, so no clock has to be right.
@VALUES@
PATH=$PATH:/usr/sbin:/sbin
home=$(eval echo "~$user")
case $folder in /*) sign=$folder/alive ;; *) sign=$home/$folder/alive ;; esac

now() {
    read -r up rest </proc/uptime
    echo "${up%%.*}"
}
off() {
    echo "lightwork: this machine shuts down: $1" >/dev/console 2>/dev/null
    while :; do
        shutdown -h now || poweroff || halt -p
        sleep 10
    done
}

# The time before a restart counts, too.
spent=0
[ -r /var/lib/lightwork/spent ] && read -r spent </var/lib/lightwork/spent
began=$(now) heard=$(now) patience=$first seen=
while :; do
    sleep "$pause"
    time=$(now)
    total=$((spent + time - began))
    echo "$total" >/var/lib/lightwork/spent.new && mv /var/lib/lightwork/spent.new /var/lib/lightwork/spent
    [ "$lifetime" -gt 0 ] && [ "$total" -ge "$lifetime" ] && off "its max_lifetime of $lifetime s has passed"
    what=$(cat "$sign" 2>/dev/null)
    if [ -n "$what" ] && [ "$what" != "$seen" ]; then # a scheduler was here
        seen=$what heard=$time patience=$window
    elif grep -qsa '/helper/[0-9a-f]\\{32\\}.supervise.' /proc/[0-9]*/cmdline; then # a worker runs
        heard=$time patience=$window
    fi
    [ $((time - heard)) -ge "$patience" ] && off "no worker and no scheduler was here for $patience s"
done
""")
