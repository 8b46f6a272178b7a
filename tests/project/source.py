"""The repository as these tests read it: files, functions, names, and the tables and blocks of its documents."""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "app"
TESTS = ROOT / "tests"
DOCS = ROOT / "docs"
README = ROOT / "README.md"

HIDDEN = re.compile(r"\.(?!ci$|dockerignore$|gitignore$|github$)|node_modules$")
"""Names of folders and files of tools and of history."""
MADE = [pattern.rstrip("/") for pattern in (ROOT / ".gitignore").read_text(encoding="utf-8").split()]
"""Names of what commands make, as the shell's patterns."""


def python_files(*folders: Path) -> list[Path]:
    """Return the Python files of folders, in order."""
    return sorted(path for folder in folders for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def our_files(folder: Path = ROOT) -> Iterator[Path]:
    """Walk through every file that people have written."""
    for path in sorted(folder.iterdir()):
        if HIDDEN.match(path.name) or any(fnmatch(path.name, pattern) for pattern in MADE):
            continue
        if path.is_dir():
            yield from our_files(path)
        else:
            yield path


def documents() -> list[Path]:
    """Return the README, the security policy and every page of docs/."""
    return [README, ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]


@cache
def tree(path: Path) -> ast.Module:
    """Parse a Python file, once."""
    return ast.parse(path.read_text(encoding="utf-8"))


def relative(path: Path) -> str:
    """Return a path as people write it."""
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    """Return the dotted name of a file under app/; a room's `__init__` is the room."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def strings(path: Path) -> Iterator[str]:
    """Return a file's strings without its docstrings; an f-string's values show as `{}`."""
    parsed = tree(path)
    passed = {id(docstring) for node in ast.walk(parsed) if (docstring := _docstring(node)) is not None}
    for node in ast.walk(parsed):
        if isinstance(node, ast.JoinedStr):
            passed |= {id(part) for part in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed:
            yield node.value


def _docstring(node: ast.AST) -> ast.expr | None:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
        return None
    first = node.body[0]
    return first.value if isinstance(first, ast.Expr) else None


def section(page: Path, heading: str) -> str:
    """Return the text below a heading of any level, as far as the next one of its level or above."""
    text = page.read_text(encoding="utf-8")
    match = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert match, f"{relative(page)} has no heading {heading!r}"
    rest = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    """Return the cells of the first table of a text, without its head; an escaped bar is part of its cell."""
    lines = iter(text.splitlines())
    table: list[str] = []
    for line in lines:
        if line.startswith("|"):
            table.append(line)
        elif table:
            break
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table[2:]]


def quoted(text: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def blocks(page: Path, language: str) -> list[str]:
    """Return a page's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
