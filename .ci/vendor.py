"""Download the dashboard's JavaScript libraries that ``vendor/vendor.json`` lists: ``python .ci/vendor.py``.

npm downloads each package at its version. The package's hash must equal the recorded one. The listed files are kept,
with two changes: bare names in imports become the names of files beside them (the page's Content-Security-Policy allows
no inline import map), and pointers to source maps, which are not kept, are removed. The hashes of the results are
written to ``sha256``, which a test compares with the files. For another version, first write it and its ``integrity``
(``npm view NAME@VERSION dist.integrity``) into the file. Needs npm.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).parents[1] / "lightwork" / "server" / "page" / "vendor"


def fetched(name: str, version: str, integrity: str, folder: Path) -> Path:
    """Download the package's tarball with npm into the folder, check it, and return it."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{name}@{version}"]
    tarball = folder / subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    found = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if found != integrity:
        sys.exit(f"{name} {version} has the hash {found}, not {integrity}: nothing was changed")
    return tarball


def adapted(content: bytes, imports: dict[str, str]) -> bytes:
    """Return a module whose imports name the files beside it, without the pointer to its source map."""
    text = re.sub(r"\n?//# sourceMappingURL=\S+\s*$", "\n", content.decode())
    return re.sub(
        r"""(\bfrom\s*|\bimport\s*)(["'])([@\w][\w@/.-]*)\2""",
        lambda match: f'{match[1]}"{imports[match[3]]}"',
        text,
    ).encode()


def main() -> None:
    """Download and check everything, then write it."""
    lock: dict[str, Any] = json.loads((VENDOR / "vendor.json").read_text())
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        for package in lock["packages"]:
            tarball = fetched(package["name"], package["version"], package["integrity"], Path(folder))
            with tarfile.open(tarball) as archive:
                for source, target in package["files"].items():
                    member = archive.extractfile(f"package/{source}")
                    if member is None:
                        sys.exit(f"{package['name']} has no file {source}")
                    content = member.read()
                    files[target] = adapted(content, lock["imports"]) if target.endswith(".js") else content
    for name, content in files.items():
        (VENDOR / name).write_bytes(content)
    lock["sha256"] = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    (VENDOR / "vendor.json").write_text(json.dumps(lock, indent=2) + "\n")
    print(f"{len(files)} files in {VENDOR}")


if __name__ == "__main__":
    main()
