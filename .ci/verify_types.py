"""Fail unless pyright knows the type of every public name of lightwork: ``python .ci/verify_types.py``.

``pyright --verifytypes`` looks at every module of the installed package. Only the public names of its report count:
those in ``__all__`` of the modules that `tests.api_page` lists. A public class counts as known if its bases, attributes
and methods are known, and every class that those mention. Types of other packages do not count.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.api_page import FRAMEWORK  # found on the path that the line above sets


def report() -> list[dict[str, Any]]:
    """Return what pyright says of each symbol of the package that is installed beside this interpreter."""
    command = [sys.executable, "-m", "pyright", "--verifytypes", "lightwork", "--ignoreexternal", "--outputjson"]
    # Here pyright ignores its option --pythonpath and searches the packages of the `python` on the path.
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    done = subprocess.run(command, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True, check=False)
    # The exit code is 1 as soon as any module of the package, public or not, is incomplete.
    completeness: dict[str, Any] = json.loads(done.stdout)["typeCompleteness"]
    symbols: list[dict[str, Any]] = completeness.get("symbols", [])
    if not symbols:
        sys.exit(f"pyright found no symbols of lightwork: {done.stdout}")
    return symbols


def is_known(symbol: dict[str, Any]) -> bool:
    """Whether pyright knows the type of a symbol, and every type checker infers the same one."""
    return symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]


def main() -> None:
    """Print the share of public names whose types are known; exit with 1 if it is below 100 %."""
    symbols = {symbol["name"]: symbol for symbol in report()}
    public = [
        f"{module}.{name}"
        for module in FRAMEWORK
        for name in importlib.import_module(module).__all__
        if not name.startswith("__")  # pyright's report leaves out `__version__`
    ]
    missing = [name for name in public if name not in symbols]
    unknown = [name for name in public if name in symbols and not is_known(symbols[name])]
    print(f"{len(public) - len(missing) - len(unknown)} of {len(public)} public names have known types")
    for name in missing:
        print(f"{name}: pyright does not see it")
    for name in unknown:
        print(f"{name}: not known, or ambiguous")
    if unknown:
        print("\nThe causes are among these:")
        for symbol in symbols.values():
            for found in symbol["diagnostics"]:
                # "partially unknown" follows from another symbol, and a missing docstring is no matter of types.
                if not is_known(symbol) and "partially unknown" not in found["message"] and "file" in found:
                    line = found["range"]["start"]["line"] + 1
                    print(f"{found['file']}:{line}: {symbol['name']}: {found['message'].splitlines()[0]}")
    if missing or unknown:
        sys.exit(1)


if __name__ == "__main__":
    main()
