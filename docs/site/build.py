"""Make a site of the pages: `python docs/site/build.py` writes build/site.

Links that lead from the pages to files of the repository become its addresses on the web.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
#: Pages that are not in docs/, and their names in the site.
OTHERS = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def pages() -> Mapping[str, str]:
    """Return the pages' names in the site, by their paths in the repository."""
    found = sorted((ROOT / "docs").rglob("*.md"))
    in_docs = {each.relative_to(ROOT).as_posix(): each for each in found}
    return OTHERS | {path: path.removeprefix("docs/") for path in in_docs}


def repository() -> str:
    """Return where the repository's files are read on the web."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return f"{project['urls']['Repository']}/blob/main"


def for_the_site(text: str, path: str, names: Mapping[str, str], elsewhere: str) -> str:
    """Return the page at *path* with links as they are in the site."""

    def target(link: re.Match[str]) -> str:
        there = os.path.normpath(PurePosixPath(path).parent / link[1])
        if there in names:
            return os.path.relpath(names[there], PurePosixPath(names[path]).parent)
        if there.startswith("docs/images/"):
            here = PurePosixPath(names[path]).parent
            return os.path.relpath(there.removeprefix("docs/"), here)
        return f"{elsewhere}/{there}"

    return _LINK.sub(target, text)


def gather(folder: Path) -> None:
    """Write all that the generator reads to *folder*."""
    names, elsewhere = pages(), repository()
    shutil.rmtree(folder, ignore_errors=True)
    for path, name in names.items():
        page = folder / "pages" / name
        page.parent.mkdir(parents=True, exist_ok=True)
        text = (ROOT / path).read_text(encoding="utf-8")
        page.write_text(for_the_site(text, path, names, elsewhere), encoding="utf-8")
    shutil.copytree(ROOT / "docs/images", folder / "pages/images")
    shutil.copy(ROOT / "docs/site/mkdocs.yml", folder)


def build(to: Path) -> int:
    """Write the site to *to*, and return 0 if every link leads somewhere."""
    source = to.with_name(f"{to.name}-source")
    gather(source)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=source, check=False)
    if done.returncode == 0:
        shutil.rmtree(to, ignore_errors=True)
        (source / "site").rename(to)
    return done.returncode


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1]) if sys.argv[1:] else BUILD / "site"))
