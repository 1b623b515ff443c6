"""Runs what units say, as systemd would, below the folder $HERE: for tests of installations.

python played_systemd.py systemctl start|restart|enable … UNIT
python played_systemd.py systemd-run --property=… COMMAND …
"""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

HERE = Path(os.environ["HERE"])
UNITS = HERE / "etc/systemd/system"
CREDENTIALS = {"CREDENTIALS_DIRECTORY": str(HERE / "etc/credstore")}
#: Caddy's own unit, of which the page sees variables only.
CADDY = "caddy run --adapter caddyfile --config {}/etc/caddy/Caddyfile"


def variables(text: str) -> Mapping[str, str]:
    found = re.findall(r'^Environment="?(\w+)=([^"\n]*)', text, re.MULTILINE)
    for name in re.findall(r"^EnvironmentFile=-?(\S+)", text, re.MULTILINE):
        with suppress(FileNotFoundError):
            found += re.findall(r"^(\w+)=(.*)$", Path(name).read_text(), re.MULTILINE)
    return dict(found)


def command_of(text: str, key: str) -> list[str]:
    [line] = re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)
    return shlex.split(line.replace("%%", "%").replace("$$", "$"))


def start(name: str) -> None:
    stop(name)
    if name == "caddy":
        text = (UNITS / "caddy.service.d/relay.conf").read_text()
        command = CADDY.format(HERE).split()
        added = {"CADDY_ADMIN": "off", "XDG_DATA_HOME": str(HERE), "HOME": str(HERE)}
    else:
        text = (UNITS / f"{name}.service").read_text()
        command, added = command_of(text, "ExecStart"), CREDENTIALS
        for folder in re.findall(r"^StateDirectory=(.*)$", text, re.MULTILINE):
            (HERE / "var/lib" / folder).mkdir(parents=True, exist_ok=True)
    environ = {**os.environ, **variables(text), **added}
    if "Type=oneshot" in text:
        subprocess.run(command, env=environ, check=True, stdout=sys.stderr)
        subprocess.run(command_of(text, "ExecStartPost"), check=True)
        return
    with (HERE / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environ, stdout=log, stderr=log, start_new_session=True
        )
    (HERE / f"{name}.pid").write_text(str(process.pid))


def stop(name: str) -> None:
    """End what was started, and wait for it; its parent is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        pid = int((HERE / f"{name}.pid").read_text())
        descriptor = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        select.select([descriptor], [], [], 30)
        os.close(descriptor)


def main(verb: str, *given: str) -> None:
    for name in (each for each in given if not each.startswith("--")):
        # A socket of systemd's is not played: the relay opens its own.
        is_service = not name.endswith((".timer", ".socket"))
        if is_service and verb in ("start", "restart", "enable"):
            start(name.removesuffix(".service"))


if __name__ == "__main__":
    main(*sys.argv[1:])
