"""An environment of its own, into which versions of the relay are installed as pip does."""

from __future__ import annotations

import re
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("relay", "connectors", "sender")
SOURCES = (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")


class Installed:
    """A virtual environment that has our dependencies and, at any time, one version of ours."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        venv.create(folder / "venv", symlinks=True)
        self.python = str(folder / "venv" / "bin" / "python")
        [self._packages] = (folder / "venv" / "lib").glob("python*/site-packages")
        (self._packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))

    def wheel(self, version: str) -> Path:
        """Build a wheel of this code that calls itself *version*."""
        source = self._folder / f"source-{version}"
        source.mkdir()
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, source / name)
        project = source / "pyproject.toml"
        named = re.compile(r'^version = ".*"', re.MULTILINE)
        project.write_text(named.sub(f'version = "{version}"', project.read_text()))
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", self._folder]
        subprocess.run(build, cwd=source, check=True, capture_output=True)
        return self._folder / f"gofax_relay-{version}-py3-none-any.whl"

    def install(self, wheel: Path) -> None:
        """Put *wheel* in the place of the version that is there."""
        self.uninstall()
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(self._packages)

    def uninstall(self) -> None:
        for name in PACKAGES:
            shutil.rmtree(self._packages / name, ignore_errors=True)
        for each in self._packages.glob("gofax_relay-*.dist-info"):
            shutil.rmtree(each)
