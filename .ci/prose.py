"""Find phrases that a reader must read twice: ``python .ci/prose.py [PATH ...]``.

Reads the comments and strings of Python files (docstrings, errors, help texts), the comments of shell scripts in
``.ci``, and the text of Markdown pages outside of code. Prints ``path:line: phrase -> plain alternative`` for each
phrase, and exits with 1 if it finds any. A line that contains ``prose: ok`` is exempt.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

DEFAULT = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "noxfile.py", ".ci", "docs", "lightwork"]
DEFAULT += ["runtimes", "tests", "benchmarks", "examples", "typing_tests"]

PHRASES = {
    r"such (?:a one|ones)|none such": "name the thing",
    r"(?:is|are|was) that of|like that of|than that of": "name the thing",
    r"what ends (?:that|it)|gives what ends": '"Return a function that stops ..."',
    r"give[sn]? (?:whether|what|None|True|False)": '"return", or a noun phrase',
    r"(?:is|are|was|were) none(?! of)": '"not found", "has no ...", "invalid ..."',
    r"is none of": '"is not one of"',
    r"(?:has|have|had|for|of) none(?! of)\b(?! if)": '"no ..." with the noun',
    r"(?<!there\s)(?:is|are|was) no (?!longer|further|more|such|need|way|reason|match)[a-z]+": '"is not a ..."',
    r"asked for": '"requested", "called"',
    r"(?:is|are|was|were|be|been) told": '"receives", "is notified", "is reported"',
    r"told (?:from|of)": '"distinguished from", "reported"',
    r"know[sn]? of": '"has", "known to"',
    r"hears? of": '"receives"',
    r"be it": '"whether ... or"',
    r"so that is|so it is|and so (?:is|does|are|do)": "a sentence with a subject",
    r"[,;.] else(?! if| \w+\()": '"otherwise"',
    r"at last": '"finally"',
    r"what (?:comes|came|goes|went|stands) ?(?:in|out|by)?": '"incoming ...", "outgoing ..."',
    r"(?:becomes|became|become) of": '"happens to"',
    r"whoever|whomever|somebody else's|nobody's|somebody's": "name the caller, the reader, the owner",
    r"(?:by|from|for|to) who": "name the caller, the reader, the client",
    r"look(?:s|ed)? on": '"observe"',
    r"(?:is|are|was|were) over(?! \d| [a-z]+ \d)(?=[\s.,;:)]|$)": '"has ended"',
    r"(?:end|ends|ended|stops?|stopped|leaves) in order": '"gracefully"',
    r"of (?:its|their|his|our|one's) own": '"separate", "its ..."',
    r"on (?:its|their) way": '"in flight", "queued"',
    r"mend(?:s|ed|ing)?": '"fix", "correct"',
    r"anew": '"again"',
    r"for ever": '"forever"',
    r"where (?:it|that|this|what is \w+) stands": '"its origin", "its place"',
    r"(?:up|down) to [a-z]+ to say": "name the one that decides",
    r"hold(?:s|ing)? (?:\w+ )?up": '"block", "delay"',
    r"takes? leave of|thereof|therein|whereof|hereby": "a plain verb",
}
_REGEX = {re.compile(rf"(?<![\w`-])(?:{key})\b".replace(" ", r"\s+")): use for key, use in PHRASES.items()}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each piece of prose of a file with its first line."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        blank = re.sub(r"^```.*?^```", lambda code: "\n" * code[0].count("\n"), source, flags=re.MULTILINE | re.DOTALL)
        yield 1, re.sub(r"`[^`\n]*`", "`", blank)
    elif path.suffix == ".py":
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield node.lineno, node.value
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        yield from _blocks((token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT)
    elif source.startswith("#!"):
        yield from _blocks((n, row.strip()) for n, row in enumerate(source.splitlines(), 1) if row.strip()[:1] == "#")


def _blocks(comments: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Join the comments of consecutive lines, so that a phrase may continue on the next line."""
    first, last, block = 0, -1, ""
    for line, text in comments:
        if line != last + 1:
            yield first, block
            first, block = line, ""
        last, block = line, block + text.lstrip("# ") + "\n"
    yield first, block


def findings(path: Path) -> Iterator[str]:
    """Yield a message for each phrase in a file, by line."""
    rows = path.read_text(encoding="utf-8").splitlines()
    found: set[tuple[int, str]] = set()
    for first, text in texts(path):
        for regex, use in _REGEX.items():
            for match in regex.finditer(text):
                line = first + text.count("\n", 0, match.start())
                if "prose: ok" not in rows[min(line, len(rows)) - 1]:
                    found.add((line, f"{path}:{line}: {' '.join(match[0].split())!r} -> {use}"))
    yield from (message for _, message in sorted(found))


def main(paths: list[str]) -> int:
    """Check files, and the files in folders. Return the exit code."""
    roots = [Path(path) for path in paths or DEFAULT]
    files = {file for root in roots for file in ([root] if root.is_file() else root.rglob("*")) if file.is_file()}
    hidden = {file for file in files if {"vendor", "venv", "__pycache__"} & set(file.parts)}
    hidden |= {file for file in files if file.resolve() == Path(__file__).resolve()}  # it quotes the phrases
    kept = sorted(file for file in files - hidden if file.suffix in {".py", ".md"} or file.parent.name == ".ci")
    found = [message for file in kept for message in findings(file)]
    print(*found, f"{len(found)} phrases in {len(kept)} files", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
