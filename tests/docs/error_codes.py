"""The error codes that the code can answer, read from its source by ast. `python -m tests.docs.error_codes` lists them.

It writes the tables of docs/errors.md and keeps the meanings that are there. A new code has none, which the test notices.
"""

import ast
import os
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import django
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from deployments.states import REFUSALS  # noqa: E402 - needs the settings
from portal.errors import MFA_REQUIRED  # noqa: E402 - the same
from tests.test_imports import PACKAGES, ROOT, source_files  # noqa: E402 - the same

PAGE = ROOT / "docs" / "errors.md"
ROW = re.compile(r"^\| `(\w+)` \| ([\d, ]+) \| (.*) \|$", re.M)
# What REST framework raises with the portal's settings.
FRAMEWORK = {
    ("parse_error", 400),
    ("method_not_allowed", 405),
    ("not_acceptable", 406),
    ("unsupported_media_type", 415),
}
# Middleware whose errors only pages show: what they import is not what the API answers.
OF_PAGES = {"portal.elevation.ElevationMiddleware", "portal.web.forms.FormBodyMiddleware"}


# A function, class or constant of a module.
Symbol = tuple[str, str]


class Code(NamedTuple):
    """A code with one of its statuses. `symbol`: what answers it."""

    name: str
    status: int
    symbol: Symbol


def find_codes() -> list[Code]:
    """Return every code that the portal's code answers. Raises AssertionError for one that cannot be read."""
    found = [Code(name, 400, ("deployments.states", "REFUSALS")) for name, _ in REFUSALS.values()]
    found += [Code(name, status, ("portal.errors", "")) for name, status in FRAMEWORK]
    for module, tree in read_modules().items():
        for statement in tree.body:
            found += find_in((module, get_name(statement)), statement, read_constants(tree))
    return found


@cache
def read_modules() -> dict[str, ast.Module]:
    """Return the source of each module of the portal, without the local AWS."""
    paths = [path for package in PACKAGES for path in source_files(package) if "sandbox" not in path.parts]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return {name: ast.parse(path.read_text()) for name, path in zip(names, paths, strict=True)}


def get_name(statement: ast.stmt) -> str:
    """Return the name that the statement of a module defines; empty for an import and the like."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return statement.name
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return next((target.id for target in targets if isinstance(target, ast.Name)), "")


def read_constants(tree: ast.Module) -> dict[str, object]:
    values = [each for each in tree.body if isinstance(each, ast.Assign) and isinstance(each.value, ast.Constant)]
    constants = {get_name(each): each.value.value for each in values if isinstance(each.value, ast.Constant)}
    return constants | {"MFA_REQUIRED": MFA_REQUIRED}


def find_in(symbol: Symbol, tree: ast.stmt, constants: dict[str, object]) -> Iterator[Code]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any("PortalError" in ast.unparse(base) for base in node.bases):
            yield from (read_call(symbol, call, constants) for call in find_calls(node, "super().__init__"))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Response", "JsonResponse"):
            yield from read_body(symbol, node)
        # deployments.states.REFUSALS has what `refusal.code` may be.
        is_error = isinstance(node, ast.Call) and ast.unparse(node.func) == "PortalError"
        if is_error and ast.unparse(node.args[0]) != "refusal.code":
            yield read_call(symbol, node, constants)


def find_calls(tree: ast.AST, name: str) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == name]


def read_call(symbol: Symbol, call: ast.Call, constants: dict[str, object]) -> Code:
    """Return the code of `PortalError(code, message, status)`."""
    code, status = call.args[0], call.args[2]
    name = constants.get(code.id) if isinstance(code, ast.Name) else getattr(code, "value", None)
    assert isinstance(name, str), f"{symbol}: {ast.unparse(code)} is no constant"
    assert isinstance(status, ast.Constant), f"{symbol}: {ast.unparse(status)} is no constant"
    return Code(name, int(str(status.value)), symbol)


def read_body(symbol: Symbol, call: ast.Call) -> Iterator[Code]:
    """Yield the code of `Response(error_body(code, ..), status=..)`. Others pass on an error that was read elsewhere."""
    status = next((each.value for each in call.keywords if each.arg == "status"), None)
    for body in [*find_calls(call, "error_body"), *find_calls(call, "validation_body")]:
        name = "invalid" if ast.unparse(body.func) == "validation_body" else getattr(body.args[0], "value", None)
        if isinstance(name, str) and isinstance(status, ast.Constant):
            yield Code(name, int(str(status.value)), symbol)


# --- what the API may answer ------------------------------------------------------------------------------------------


def find_symbols_of_api() -> set[Symbol]:
    """Return what a request to the API may run: the API's modules, the middleware, and all that these use by name."""
    modules = read_modules()
    of_api = [name for name in modules if name == "portal.accounts.api" or name.split(".")[1:2] == ["api"]]
    waiting = [(module, get_name(each)) for module in [*of_api, "portal.errors"] for each in modules[module].body]
    named = [each for each in (*settings.MIDDLEWARE, settings.MFA_ADAPTER) if each not in OF_PAGES]
    waiting += [(module, name) for module, _, name in (each.rpartition(".") for each in named) if module in modules]
    found: set[Symbol] = set()
    while waiting:
        symbol = waiting.pop()
        if symbol not in found:
            found.add(symbol)
            waiting += find_used(*symbol)
    return found


def find_used(module: str, name: str) -> set[Symbol]:
    """Return what the symbol uses, of all modules of the portal. What a package only imports stands for itself there."""
    modules = read_modules()
    own = {get_name(each): (module, get_name(each)) for each in modules[module].body}
    imported = read_imported(module).get(name) if name not in own else None
    if imported:
        return {imported} if imported[0] in modules else set()
    known: dict[str, Symbol] = own | read_imported(module)
    used: set[Symbol] = set()
    for node in (
        each for statement in modules[module].body if get_name(statement) == name for each in ast.walk(statement)
    ):
        if isinstance(node, ast.Name) and node.id in known:
            used.add(known[node.id])
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            outer = ".".join(known[node.value.id]).rstrip(".")
            if outer in modules:
                used.add((outer, node.attr))
    return {each for each in used if each[0] in modules} - {(module, "")}


@cache
def read_imported(module: str) -> dict[str, Symbol]:
    """Return what each imported name stands for: a symbol of a module, or `(package, module)` for a module."""
    imported: dict[str, Symbol] = {}
    for node in ast.walk(read_modules()[module]):
        if isinstance(node, ast.ImportFrom):
            imported |= {alias.asname or alias.name: (str(node.module), alias.name) for alias in node.names}
    return imported


def make_tables() -> dict[str, dict[str, str]]:
    """Return the two tables `api` and `pages`: for each code its statuses, as text."""
    of_api, codes = find_symbols_of_api(), find_codes()
    answered = {code.name for code in codes if code.symbol in of_api}
    tables: dict[str, dict[str, set[int]]] = {"api": {}, "pages": {}}
    for code in codes:
        if code.symbol in of_api or code.name not in answered:
            tables["api" if code.symbol in of_api else "pages"].setdefault(code.name, set()).add(code.status)
    return {
        table: {name: ", ".join(map(str, sorted(statuses))) for name, statuses in sorted(rows.items())}
        for table, rows in tables.items()
    }


def read_meanings(text: str) -> dict[str, str]:
    return {name: meaning for name, _, meaning in ROW.findall(text)}


def write() -> None:
    text = PAGE.read_text()
    meanings = read_meanings(text)
    for table, rows in make_tables().items():
        lines = [f"| `{name}` | {statuses} | {meanings.get(name, '')} |" for name, statuses in rows.items()]
        made = "\n".join(["| code | status | meaning |", "|---|---|---|", *lines, ""])
        text = re.sub(
            rf"(?<=<!-- {table} -->\n).*?(?=<!-- end -->)", lambda _, made=made: made, text, count=1, flags=re.S
        )
    PAGE.write_text(text)


if __name__ == "__main__":
    write()
