"""The image and the small Compose file: what can be known of them where no engine runs."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from test_deploy import SCHEMA, VARIABLE, documented, run

from relay.config.installed import find
from relay.config.load import load

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
TEXT = (DEPLOY / "compose.small.yaml").read_text()
SMALL: dict[str, Any] = yaml.safe_load(TEXT)
FLEET: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
RELAY: dict[str, Any] = SMALL["services"]["relay"]
#: What keeps a process that was taken over from going further.
SHUT_IN = (
    "init",
    "read_only",
    "tmpfs",
    "cap_drop",
    "security_opt",
    "restart",
    "stop_grace_period",
)


def test_hadolint_finds_nothing(missing: Any) -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if program is None:
        missing("hadolint", "no such command")

    done = run(program, "--no-color", "--failure-threshold", "style", str(DOCKERFILE))

    assert (done.returncode, done.stdout) == (0, "")


def test_the_small_compose_file_is_one() -> None:
    done = run(*SCHEMA, str(DEPLOY / "compose.small.yaml"))

    assert done.returncode == 0, done.stdout


def test_one_relay_is_shut_in_like_each_of_a_fleet() -> None:
    fleet = FLEET["services"]["web-1"]

    assert {key: RELAY[key] for key in SHUT_IN} == {key: fleet[key] for key in SHUT_IN}
    assert (RELAY["image"], RELAY["build"]) == (fleet["image"], fleet["build"])
    assert "ports" not in RELAY
    assert SMALL["services"]["caddy"]["ports"] == FLEET["services"]["caddy"]["ports"]


def test_what_the_image_asks_is_asked_by_compose_where_a_receiver_runs() -> None:
    [asked] = re.findall(r"^HEALTHCHECK .*\\\n +CMD (.*)$", DOCKERFILE.read_text(), re.M)
    fleet = FLEET["services"]

    for service in (RELAY, fleet["web-1"], fleet["web-2"]):
        assert service["healthcheck"]["test"] == ["CMD", *json.loads(asked)]
    for name in ("work", "migrate", "sandbox"):
        assert fleet[name]["healthcheck"] == {"disable": True}


def test_volumes_are_where_the_image_has_folders_of_its_user() -> None:
    [made] = re.findall(r"install -d -m 700 -o relay (.*)$", DOCKERFILE.read_text(), re.M)
    mounted = dict(volume.split(":")[:2] for volume in RELAY["volumes"])

    assert sorted(made.split()) == sorted(mounted[name] for name in ("store", "backups"))
    assert {*SMALL["volumes"]} == {"store", "backups", "caddy"}


def test_every_variable_of_the_small_file_is_documented() -> None:
    assert {found[1] for found in VARIABLE.finditer(TEXT)} <= documented()


def test_the_config_loads_with_what_the_small_file_gives(tmp_path: Path) -> None:
    for name in ("gofax-signing-secret", "gofax-metrics-token"):
        (tmp_path / name).write_text("x" * 32)
    given = {**RELAY["environment"], "CREDENTIALS_DIRECTORY": str(tmp_path)}

    config = load(DEPLOY / "small.yaml", find_connector=find, environ=given)

    assert (config.server.listen, config.server.trusted_proxies) == ("0.0.0.0:8080", 1)
    assert config.admin is not None
    assert config.admin.listen == "0.0.0.0:8081"
    assert config.store == "sqlite:////var/lib/gofax-relay/relay.db"
