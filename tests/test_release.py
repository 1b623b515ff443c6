"""A release: the same bytes twice, all that it needs and nothing else, and it runs alone."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from email import message_from_bytes
from functools import cache
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: Mapping[str, list[str]] = PROJECT["optional-dependencies"]
CONSTRAINTS, BUILD = (
    (ROOT / each).read_text() for each in ("constraints.txt", "deploy/build.txt")
)
PACKAGES = ("relay", "connectors", "sender")
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
#: CI has one in each job; the others are looked for with ``--long``.
OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
#: Where a variable that no test sets would lead a fresh environment astray.
ELSEWHERE = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONPYCACHEPREFIX", "PYENV_VERSION"}


def run(*command: str | Path, cwd: Path = ROOT, timeout: float = 300, **environ: str) -> str:
    given = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    done = subprocess.run(
        [str(each) for each in command], cwd=cwd, env={**given, **environ},
        capture_output=True, text=True, check=False, timeout=timeout,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def uv(*args: str | Path, cwd: Path = ROOT) -> str:
    return run(sys.executable, "-m", "uv", "--no-progress", *args, cwd=cwd)


@cache
def python(version: str) -> str | None:
    """Return a Python of that version that this machine has."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which(f"python{version}"), *root.glob(f"versions/{version}.*/bin/python")]
    for each in filter(None, found):
        asked = [str(each), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return str(each)
    return None


def build(source: Path, to: Path, *, umask: int) -> dict[str, Path]:
    """Build sdist and wheel of *source*, and return them by the end of their names."""
    code = f"import os; os.umask({umask}); from build.__main__ import main; main(None)"
    args = ["--no-isolation", "--quiet", "--outdir", str(to), "."]
    run(sys.executable, "-c", code, *args, cwd=source)
    return {path.suffix: path for path in to.iterdir()}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(ROOT, tmp_path_factory.mktemp("release"), umask=0o022)


def wheel_names(release: Mapping[str, Path]) -> list[str]:
    with zipfile.ZipFile(release[".whl"]) as wheel:
        return wheel.namelist()


@pytest.mark.slow
def test_the_sdist_of_itself_builds_the_same_bytes(
    release: Mapping[str, Path], tmp_path: Path
) -> None:
    with tarfile.open(release[".gz"]) as sdist:
        sdist.extractall(tmp_path / "source", filter="data")
    [source] = (tmp_path / "source").iterdir()
    for path in source.rglob("*"):
        os.utime(path, (1, 1))

    again = build(source, tmp_path / "again", umask=0o077)

    for kind, path in release.items():
        assert path.name == again[kind].name
        assert path.read_bytes() == again[kind].read_bytes(), kind


@pytest.mark.slow
def test_the_index_would_take_it(release: Mapping[str, Path]) -> None:
    run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *release.values())


@pytest.mark.slow
def test_each_link_on_the_index_leads_to_a_file_of_this_version(
    release: Mapping[str, Path],
) -> None:
    with zipfile.ZipFile(release[".whl"]) as wheel:
        [name] = [each for each in wheel.namelist() if each.endswith(".dist-info/METADATA")]
        shown = message_from_bytes(wheel.read(name)).get_payload()
    readme = (ROOT / "README.md").read_text()
    of_files = r"\]\((?!https?:|#)([^)#]+)"
    repository, version = (
        re.escape(each) for each in (PROJECT["urls"]["Repository"], PROJECT["version"])
    )

    assert re.findall(of_files, shown) == []
    led_to = re.findall(rf"\]\({repository}/(?:blob|raw)/v{version}/([^)#]+)", shown)
    assert led_to == re.findall(of_files, readme) != []
    assert [each for each in led_to if not (ROOT / each).exists()] == []
    assert re.findall(r"!\[[^]]*\]\((?!https://[^)]+/raw/)", shown) == []


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_packages_and_no_other(
    release: Mapping[str, Path],
) -> None:
    ours = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    found = {name for name in wheel_names(release) if ".dist-info/" not in name}

    assert found == ours
    assert {f"{each}/py.typed" for each in PACKAGES} <= found


@pytest.mark.slow
def test_the_sdist_has_what_packagers_need_and_no_rubbish(release: Mapping[str, Path]) -> None:
    with tarfile.open(release[".gz"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}

    assert {
        "LICENSE", "CHANGELOG.md", "SECURITY.md", "config.example.yaml", "constraints.txt",
        "tests/test_release.py", "docs/hosting.md", "deploy/gofax-relay.service",
    } <= names  # fmt: skip
    rubbish = re.compile(r"__pycache__|\.pyc$|\.db$|(^|/)\.env$|egg-info|\.coverage|\.venv")
    assert not [name for name in names if rubbish.search(name)]


@pytest.fixture(
    params=[OURS, *(pytest.param(v, marks=pytest.mark.long) for v in VERSIONS if v != OURS)]
)
def version(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    if python(version) is None:
        pytest.skip(f"no Python {version} here")
    return version


def environment(folder: Path, version: str) -> Path:
    """Make an empty environment, and return where its programs are."""
    uv("venv", "--python", python(version) or version, folder)
    return folder / "bin"


@pytest.mark.slow
def test_it_runs_in_an_empty_environment_with_the_pinned_versions(
    release: Mapping[str, Path], tmp_path: Path, version: str
) -> None:
    programs = environment(tmp_path / "venv", version)
    into = ("--python", programs / "python")
    pinned = ROOT / "constraints.txt"
    uv("pip", "install", *into, "--only-binary", ":all:", "--require-hashes", "-r", pinned)

    uv("pip", "install", *into, "--no-deps", "--no-index", release[".whl"])

    uv("pip", "check", *into)
    said = run(programs / "gofax-relay", "--version", cwd=tmp_path)
    assert said == f"gofax-relay, version {PROJECT['version']}\n"
    demo = run(programs / "gofax-relay", "demo", "--once", cwd=tmp_path)
    assert "all delivered" in demo
    run(programs / "gofax-sender", "samples", cwd=tmp_path)


@pytest.fixture(scope="module")
def bare(release: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment without extras."""
    folder = tmp_path_factory.mktemp("bare")
    programs = environment(folder / "venv", default_environment()["python_version"])
    into = ("--python", programs / "python")
    uv("pip", "install", *into, "-c", ROOT / "constraints.txt", "--no-verify-hashes",
       release[".whl"])  # fmt: skip
    return programs


CONFIG = "endpoints: [{path: /in, signing_secrets: [a secret of the tests]}]\n"
DESTINATION = "destinations: {a: {connector: %s%s}}\n"
NEEDS = [
    ("hubspot", DESTINATION % ("hubspot", ", access_token: x"), ["check"]),
    ("zendesk", DESTINATION % ("zendesk", ""), ["check"]),
    ("teams", DESTINATION % ("teams", ", url: 'https://example.com'"), ["check"]),
    ("archive", DESTINATION % ("archive", ", url: 'memory://x'"), ["check"]),
    ("postgres", "store: postgresql://relay@127.0.0.1/relay\n", ["check"]),
    ("celery", "store: postgresql://relay@127.0.0.1/relay\n"
     "engine: {celery: {broker: 'amqp://127.0.0.1'}}\n", ["check"]),
    ("sentiment", "sentiment: vader\n", ["check"]),
    ("alerts", "alerts: [{name: us, url: 'json://example.com'}]\n", ["check"]),
    ("watch", "", ["serve", "--watch"]),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("extra", "text", "command"), NEEDS, ids=[each[0] for each in NEEDS])
def test_what_an_extra_would_bring_is_missed_in_one_line(
    bare: Path, tmp_path: Path, extra: str, text: str, command: list[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG + text)
    path.chmod(0o600)

    done = subprocess.run(
        [bare / "gofax-relay", *command, "--config", path],
        capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path,
    )  # fmt: skip

    [line] = [each for each in done.stderr.splitlines() if f'[{extra}]"' in each]
    assert re.search(rf'needs? .*: pip install "gofax-relay\[{extra}\]"$', line)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_checks_of_connectors_miss_their_extra_too(bare: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [bare / "gofax-relay", "connectors", "test", "webhook"],
        capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path,
    )  # fmt: skip

    needs = 'the checks need pytest: pip install "gofax-relay[kit]"'
    assert (done.returncode, done.stderr) == (1, f"Error: {needs}\n")


@pytest.mark.slow
def test_the_sender_and_a_relay_without_extras_run(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)

    assert "endpoint /in" in run(bare / "gofax-relay", "check", cwd=tmp_path)
    assert "0 of" not in run(bare / "gofax-sender", "samples", cwd=tmp_path)
    url = "http://127.0.0.1:9/"
    done = subprocess.run(
        [bare / "gofax-sender", "load", "--url", url, "--rate", "1/s", "--count", "1"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "pip install 'gofax-relay[load]'" in done.stderr
    assert "Traceback" not in done.stderr


# --- constraints.txt


def pins(text: str = CONSTRAINTS) -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for line in re.findall(r"^([a-z0-9].*?) *\\?$", text, re.MULTILINE):
        pin = Requirement(line)
        found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


def requirements(extra: str | None = None) -> Iterator[Requirement]:
    """Yield what an extra asks for, through other extras of ours too."""
    texts = PROJECT["dependencies"] if extra is None else EXTRAS[extra]
    for each in map(Requirement, texts):
        if each.name != PROJECT["name"]:
            yield each
        for inner in sorted(each.extras) if each.name == PROJECT["name"] else ():
            yield from requirements(inner)


def test_all_holds_what_a_host_needs() -> None:
    [itself] = map(Requirement, EXTRAS["all"])
    for_hosts = set(EXTRAS) - {"all", "archive", "watch", "load", "kit", "test"}

    assert itself.extras == for_hosts
    readme = (ROOT / "README.md").read_text()
    assert "gofax-relay[archive]" in readme


def test_each_requirement_is_pinned_within_its_bounds() -> None:
    pinned = pins()
    for each in (*requirements(), *requirements("all")):
        found = pinned[canonicalize_name(each.name)]
        for pin in found:
            [exact] = pin.specifier
            assert exact.operator == "=="
            assert exact.version in each.specifier, f"{pin} is not {each}"


@pytest.mark.parametrize("text", [CONSTRAINTS, BUILD], ids=["constraints", "build"])
def test_each_pin_has_hashes_and_no_index_is_named(text: str) -> None:
    for block in re.split(r"\n(?=[a-z0-9])", text.partition("\n")[2]):
        if re.match(r"[a-z0-9]", block):
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block
    assert not re.search(r"https?:|--index|--find-links|file:", text)


def test_each_floor_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    bare = re.findall(r'^[^"#\n]*"([a-z0-9-]+)[^"#\n]*>=[^"\n]*"\]?,?$', text, re.MULTILINE)
    of_ours = {canonicalize_name(each.name) for each in (*requirements(), *requirements("all"))}

    assert not of_ours & set(bare)


def test_images_install_the_pins_and_nothing_else() -> None:
    text = (ROOT / "deploy/Dockerfile").read_text()

    for pinned in ("constraints.txt", "build.txt"):
        assert f"--require-hashes --only-binary :all: -r {pinned}" in text
    assert "--no-build-isolation --no-deps" in text
    assert "--no-index --no-deps" in text
    passed = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    assert {"!constraints.txt", "!deploy/build.txt"} <= set(passed)


def test_what_builds_is_named_exactly_and_everywhere_the_same() -> None:
    text = tomllib.loads((ROOT / "pyproject.toml").read_text())
    required = text["build-system"]["requires"]

    assert required == text["dependency-groups"]["build"]
    assert set(required) <= set(EXTRAS["test"])
    assert set(required) <= {str(each) for found in pins(BUILD).values() for each in found}


@pytest.mark.slow
def test_the_documented_command_finds_nothing_to_change(tmp_path: Path) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    commands = re.findall(r"^(?:\.venv/bin/)?uv (pip compile .*) --upgrade$", page, re.MULTILINE)
    (tmp_path / "deploy").mkdir()
    for name in ("pyproject.toml", "README.md", "constraints.txt", "deploy/build.txt"):
        shutil.copy(ROOT / name, tmp_path / name)

    for command in commands:
        uv(*shlex.split(command), cwd=tmp_path)

    assert len(commands) == 2
    assert (tmp_path / "constraints.txt").read_text() == CONSTRAINTS
    assert (tmp_path / "deploy/build.txt").read_text() == BUILD


# --- floors and newest

#: What the core is tried by: rules, config, store, receiver, and what stands at a library's door.
CORE = (
    "relay/test_text.py",
    "relay/test_routing.py",
    "relay/test_signature.py",
    "relay/test_payload.py",
    "relay/test_payload_bytes.py",
    "relay/test_payload_key.py",
    "relay/test_delivery.py",
    "relay/test_units.py",
    "relay/test_sentiment.py",
    "relay/test_logs.py",
    "relay/test_config_load.py",
    "relay/test_config_endpoints.py",
    "relay/test_config_json_schema.py",
    "relay/test_config_secrets.py",
    "relay/test_database.py",
    "relay/test_accept.py",
    "relay/test_claim.py",
    "relay/test_recover.py",
    "relay/test_pauses.py",
    "relay/test_replay.py",
    "relay/test_search.py",
    "relay/test_undo.py",
    "relay/test_read.py",
    "relay/test_migrations.py",
    "relay/test_receive.py",
    "relay/test_receive_callers.py",
    "relay/test_metrics.py",
    "relay/test_inner_listener.py",
    "relay/test_granian.py",
    "relay/test_cluster_engine.py",
    "relay/test_told.py",
    "connectors/test_base.py",
    "connectors/test_http.py",
    "connectors/test_http_addresses.py",
    "connectors/test_http_answers.py",
    "connectors/test_templates.py",
    "connectors/test_hubspot_calls.py",
    "connectors/test_zendesk.py",
    "connectors/test_teams_workflow.py",
    "connectors/test_archive.py",
    "relay/test_telling.py",
)


@pytest.mark.slow
@pytest.mark.long
def test_the_core_runs_on_the_floors(tmp_path: Path) -> None:
    floors = tmp_path / "floors.txt"
    extras = [word for each in ("all", "archive", "watch", "load") for word in ("--extra", each)]
    uv("pip", "compile", "--quiet", "--python-version", VERSIONS[0], "--resolution",
       "lowest-direct", *extras, "pyproject.toml", "--output-file", floors)  # fmt: skip
    lowest = {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for line in floors.read_text().splitlines()
        if line[:1].isalnum() and (pin := Requirement(line))
    }
    programs = environment(tmp_path / "venv", VERSIONS[0])
    tools = [each for each in map(str, requirements("test")) if is_tool(each, lowest)]
    uv("pip", "install", "--python", programs / "python", "-c", floors, "-e",
       f"{ROOT}[all,archive,watch,load,kit]", *tools)  # fmt: skip

    # anyio's plugin comes with a library of ours, and old ones of it warn of newer pytests.
    core_passes(programs, "-p", "no:anyio")

    for each in requirements():
        assert Version(lowest[canonicalize_name(each.name)]) in each.specifier


@pytest.mark.slow
@pytest.mark.long
def test_the_core_runs_on_the_newest(tmp_path: Path) -> None:
    """Whatever the index has today, on the newest Python here."""
    [version] = [each for each in VERSIONS if python(each) is not None][-1:]
    programs = environment(tmp_path / "venv", version)
    uv("pip", "install", "--python", programs / "python", "--refresh", "-e", f"{ROOT}[test]")

    core_passes(programs)


def core_passes(programs: Path, *options: str) -> None:
    files = [str(ROOT / "tests" / each) for each in CORE if (ROOT / "tests" / each).exists()]
    command = ["pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *options, *files]
    out = run(programs / "python", "-m", *command, timeout=1500)

    assert re.search(r"\d+ passed", out)


#: These ask for newer libraries than our floors, and the core's tests do without them.
NOT_NEEDED = {"schemathesis", "playwright", "axe-playwright-python", "flower", "uv", "twine"}


def is_tool(requirement: str, lowest: Mapping[str, str]) -> bool:
    name = canonicalize_name(Requirement(requirement).name)
    return name not in lowest and name not in NOT_NEEDED


def test_the_core_is_still_there() -> None:
    assert [each for each in CORE if not (ROOT / "tests" / each).exists()] == []
    assert default_environment()["python_version"] in VERSIONS
