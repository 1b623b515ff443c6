"""Installing from zero: what deploy/install.sh leaves on a machine, and that it serves there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from gofax import sign
from test_docs import blocks, free_port
from test_release import build, uv

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
INSTALL = (DEPLOY / "install.sh").read_text()
SMALL = yaml.safe_load((DEPLOY / "small.yaml").read_text())
CREDENTIALS = ["gofax-signing-secret", "gofax-metrics-token"]
PATIENCE = 60.0
#: A machine that has the programs of this one, and none of what an installation leaves.
BOOT = r"""
set -eu
for each in bin sbin lib lib32 lib64 libx32; do
  [ ! -L "/$each" ] || ln -s "$(readlink "/$each")" "$each"
done
mkdir -p usr dev proc tmp run var/lib var/tmp source etc/systemd/system
mount --bind /usr usr
mount -t tmpfs -o mode=755 tmpfs usr/local/bin
cp -a /usr/local/bin/python* usr/local/bin/ 2>/dev/null || true
mount -o remount,ro,bind usr
mount --rbind /dev dev
mount --rbind /proc proc
mount --bind "$SOURCE" source
mount -o remount,ro,bind source
case "$PYTHON" in
  /usr | /usr/*) ;;
  *) mkdir -p opt/python; mount --bind "$PYTHON" opt/python; mount -o remount,ro,bind opt/python ;;
esac
chmod 1777 tmp var/tmp
cd /etc
for each in passwd group shadow gshadow login.defs pam.d hosts nsswitch.conf ssl; do
  [ ! -e "$each" ] || cp -a "$each" "$OLDPWD/etc/"
done
cp -a ld.so* "$OLDPWD/etc/"
cd "$OLDPWD"
# A Python with a shared library looks for that where it was built.
if [ -d opt/python/lib ]; then
  echo /opt/python/lib >etc/ld.so.conf.d/python.conf
  chroot . ldconfig
fi
echo ready
exec sleep infinity
"""


class Machine:
    """An empty machine with this one's kernel, network and programs, seen by its own processes."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        self._stack = stack
        given = Path(sys.base_prefix)
        #: One of a home, where install.sh takes none, is in /opt there.
        self.python = given if given.is_relative_to("/usr") else Path("/opt/python")
        boot = stack.enter_context(subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", BOOT],
            cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHON": sys.base_prefix, "SOURCE": str(ROOT)},
        ))  # fmt: skip
        stack.callback(boot.kill)
        assert boot.stdout is not None
        assert boot.stderr is not None
        if boot.stdout.readline() != "ready\n":
            raise OSError(boot.stderr.read())
        self._enter = ["nsenter", f"--target={boot.pid}", "--mount", "chroot", str(root)]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._enter, *command], env=self._environ(), capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip

    def does(self, *command: str) -> str:
        done = self.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        log = self._stack.enter_context((self.root / "tmp/log").open("wb"))
        process = subprocess.Popen(
            [*self._enter, *command], env=self._environ(), stdout=log, stderr=log
        )
        self._stack.callback(process.wait, 30)
        self._stack.callback(process.terminate)
        return process

    def said(self) -> str:
        return (self.root / "tmp/log").read_text()

    def owned(self, path: str) -> tuple[str, ...]:
        """Return owner, group and mode of a file, by the names that the machine has."""
        return tuple(self.does("stat", "--format=%U %G %a", path).split())

    def uid(self, user: str) -> int:
        return int(self.does("id", "-u", user))

    def _environ(self) -> dict[str, str]:
        system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        return {"PATH": os.pathsep.join([f"{self.python}/bin", *system]), "LANG": "C.UTF-8"}


@pytest.fixture
def machine(tmp_path: Path, missing: Any) -> Iterator[Machine]:
    if os.geteuid() != 0:
        missing("machine", "only root can make one")
    root = tmp_path / "root"
    root.mkdir()
    with ExitStack() as stack:
        try:
            made = Machine(root, stack)
        except OSError as error:
            missing("machine", str(error))
        yield made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), umask=0o022)[".whl"]


@pytest.fixture
def prepared(machine: Machine, wheel: Path) -> Machine:
    """A machine that has the dependencies already, which pip takes a minute to bring."""
    shutil.copy(wheel, machine.root / "tmp")
    environment = machine.root / "opt/gofax-relay/.venv"
    uv("venv", "--seed", "--python", sys.executable, environment)
    uv(
        "pip", "install", "--python", environment / "bin/python", "--link-mode", "copy",
        "--require-hashes", "-r", ROOT / "constraints.txt",
    )  # fmt: skip
    home = f"{machine.python}/bin"
    python = environment / "bin/python"
    python.unlink()
    python.symlink_to(f"{home}/python3")
    settings = environment / "pyvenv.cfg"
    settings.write_text(re.sub(r"^home = .*$", f"home = {home}", settings.read_text(), flags=re.M))
    return machine


def install(machine: Machine, wheel: Path) -> str:
    return machine.does("/source/deploy/install.sh", f"/tmp/{wheel.name}")


def credentials(machine: Machine) -> str:
    """Hand the credentials over as systemd does, and return in which folder."""
    folder = "/run/credentials/gofax-relay.service"
    machine.does("install", "-d", "-m", "500", "-o", "gofax-relay", folder)
    for name in CREDENTIALS:
        given = (f"/etc/credstore/{name}", f"{folder}/{name}")
        machine.does("install", "-m", "400", "-o", "gofax-relay", *given)
    return folder


def moved(machine: Machine) -> tuple[str, str]:
    """Have the config listen where nobody else does, and return its two addresses."""
    config = machine.root / "etc/gofax-relay/config.yaml"
    addresses = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    text = config.read_text()
    for was, becomes in zip(("127.0.0.1:8080", "127.0.0.1:8081"), addresses, strict=True):
        assert was in text
        text = text.replace(was, becomes)
    config.write_text(text)
    return addresses


def service_command() -> list[str]:
    [command] = re.findall(r"^ExecStart=(.*)$", (DEPLOY / "gofax-relay.service").read_text(), re.M)
    return str(command).split()


def health_command(address: str) -> list[str]:
    """Return what the image asks whether it is well, for a receiver at *address*."""
    [command] = re.findall(
        r"^HEALTHCHECK .*\\\n +CMD (.*)$", (DEPLOY / "Dockerfile").read_text(), re.M
    )
    return [each.replace("127.0.0.1:8080", address) for each in json.loads(command)]


def post(url: str, secret: str) -> requests.Response:
    body = json.dumps({"messageId": "first", "eventType": "SMS_REPLY"}).encode()
    signature = sign(body, secret)
    headers = {"Content-Type": "application/json", "X-GoFax-Signature": signature}
    return requests.post(url, data=body, headers=headers, timeout=30)


OWNED = {
    "/etc/gofax-relay": ("root", "gofax-relay", "750"),
    "/etc/gofax-relay/config.yaml": ("root", "gofax-relay", "640"),
    "/etc/credstore": ("root", "root", "700"),
    "/etc/credstore/gofax-signing-secret": ("root", "root", "600"),
    "/etc/credstore/gofax-metrics-token": ("root", "root", "600"),
    "/etc/systemd/system/gofax-relay.service": ("root", "root", "644"),
    "/etc/systemd/system/gofax-relay.socket": ("root", "root", "644"),
    "/usr/local/bin/gofax-relay": ("root", "root", "755"),
    "/opt/gofax-relay/.venv/bin/gofax-relay": ("root", "root", "755"),
    "/var/lib/gofax-relay": ("gofax-relay", "gofax-relay", "700"),
    "/var/backups/gofax-relay": ("gofax-relay", "gofax-relay", "700"),
}


@pytest.mark.slow
def test_it_is_installed_twice_serves_as_its_user_and_is_updated_while_it_runs(
    prepared: Machine, wheel: Path
) -> None:
    said = install(prepared, wheel)
    secret = prepared.does("cat", "/etc/credstore/gofax-signing-secret").strip()

    assert "endpoint /webhooks/gofax: json, signed" in said
    assert secret not in said
    assert {path: prepared.owned(path) for path in OWNED} == OWNED
    units = [f"/etc/systemd/system/gofax-relay.{each}" for each in ("service", "socket")]
    verified = prepared.run("systemd-analyze", "verify", "--man=no", *units)
    assert (verified.returncode, verified.stderr) == (0, "")

    public, inner = moved(prepared)
    config = (prepared.root / "etc/gofax-relay/config.yaml").read_text()
    process = prepared.start(
        "systemd-socket-activate", "-l", public, "-E",
        f"CREDENTIALS_DIRECTORY={credentials(prepared)}", "setpriv", "--reuid=gofax-relay",
        "--regid=gofax-relay", "--init-groups", "--no-new-privs", *service_command(),
    )  # fmt: skip
    # Whoever calls first waits at the socket while the relay starts.
    ends_at = time.monotonic() + PATIENCE
    while "Listening on" not in prepared.said():
        assert time.monotonic() < ends_at, prepared.said()
        time.sleep(0.05)
    answer = post(f"http://{public}/webhooks/gofax", secret)
    assert (answer.status_code, answer.json()["status"]) == (200, "accepted"), prepared.said()
    served = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert {each.uids().effective for each in served} == {prepared.uid("gofax-relay")}
    assert prepared.owned("/var/lib/gofax-relay/relay.db") == ("gofax-relay", "gofax-relay", "600")
    assert requests.get(f"http://{inner}/metrics", timeout=10).status_code == 401
    healthy = health_command(public)
    assert prepared.run(*healthy).returncode == 0

    install(prepared, wheel)
    assert (prepared.root / "etc/gofax-relay/config.yaml").read_text() == config
    assert prepared.does("cat", "/etc/credstore/gofax-signing-secret").strip() == secret
    prepared.does("gofax-relay", "reload")
    assert post(f"http://{public}/webhooks/gofax", secret).json()["status"] == "duplicate"
    assert prepared.does("gofax-relay", "users", "add", "mary", "--role", "admin")
    variables = """# of the service\nDAYS=7d\n  \nBAD NAME=1\nNAME='a & b'"""
    (prepared.root / "etc/gofax-relay/secrets.env").write_text(variables)
    config_file = prepared.root / "etc/gofax-relay/config.yaml"
    config_file.write_text(config + "retention: ${DAYS}\n")
    assert "keeps events for 7d" in prepared.does("gofax-relay", "check")
    config_file.write_text(config)
    prepared.does("gofax-relay", "backup", "/var/backups/gofax-relay/relay.db")
    assert prepared.owned("/var/backups/gofax-relay/relay.db")[0] == "gofax-relay"

    process.terminate()
    process.wait(30)
    assert prepared.run(*healthy).returncode != 0
    assert list((prepared.root / "run").glob("gofax-relay.*")) == []
    removed = [text for _, text in blocks("hosting.md", "sh") if "userdel" in text]
    assert len(removed) == 1
    # No systemd runs on this machine.
    prepared.does("sh", "-ec", removed[0].replace("systemctl ", ": systemctl "))
    assert [path for path in OWNED if not prepared.run("test", "-e", path).returncode] == [
        "/etc/credstore"
    ]


@pytest.mark.slow
@pytest.mark.long
def test_pip_brings_what_the_relay_needs_to_an_empty_machine(
    machine: Machine, wheel: Path
) -> None:
    shutil.copy(wheel, machine.root / "tmp")
    for name in ("resolv.conf", "pip.conf"):
        with suppress(FileNotFoundError):
            shutil.copy(Path("/etc") / name, machine.root / "etc")

    assert "endpoint /webhooks/gofax: json, signed" in install(machine, wheel)


def test_only_root_installs_and_only_a_wheel(tmp_path: Path) -> None:
    done = subprocess.run(
        [DEPLOY / "install.sh", tmp_path / "none.whl"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "usage: " in done.stderr


#: A whole Python where somebody's home is.
AT_HOME = """
mkdir -p /root/python && mount --bind "$1" /root/python && shift
PATH=/root/python/bin:$PATH exec "$@"
"""


def test_a_python_that_the_service_may_not_see_is_refused(machine: Machine) -> None:
    (machine.root / "tmp/any.whl").touch()
    environment = machine.root / "opt/gofax-relay/.venv/bin"
    environment.mkdir(parents=True)
    installing = ("/source/deploy/install.sh", "/tmp/any.whl")
    at_home = ("unshare", "--mount", "--propagation", "unchanged", "sh", "-ec", AT_HOME, "-")
    python = str(machine.python)

    of_user = machine.run(*at_home, python, *installing)
    (environment / "python").symlink_to("/root/python/bin/python3")
    of_environment = machine.run(
        *at_home, python, "sh", "-c", f"PATH={python}/bin:$PATH exec $0 $1", *installing
    )

    assert of_user.returncode == of_environment.returncode == 1
    assert "python3 is in /root/python/bin/python3" in of_user.stderr
    assert "Take a Python of the system: PATH=/usr/bin:$PATH " in of_user.stderr
    assert "Remove this one first: rm -r /opt/gofax-relay/.venv" in of_environment.stderr
    assert machine.run("id", "gofax-relay").returncode != 0


def test_the_socket_is_where_the_config_listens() -> None:
    [address] = re.findall(
        r"^ListenStream=(.*)$", (DEPLOY / "gofax-relay.socket").read_text(), re.M
    )

    assert SMALL["server"]["listen"] == f"${{RELAY_LISTEN:-{address}}}"


def test_every_credential_of_the_config_is_made_and_handed_over() -> None:
    unit = (DEPLOY / "gofax-relay.service").read_text()
    needed = re.findall(
        r'^[^#\n]*"credential:([\w-]+)"', (DEPLOY / "small.yaml").read_text(), re.M
    )
    [made] = re.findall(r"^for name in (.*); do$", INSTALL, re.M)

    assert sorted(needed) == sorted(CREDENTIALS)
    assert re.findall(r"^LoadCredential=(.*)$", unit, re.M) == made.split() == CREDENTIALS
