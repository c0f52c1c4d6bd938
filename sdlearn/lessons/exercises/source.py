"""Source texts: the package's, turned into stubs and solutions, and the learner's.

A stub's text is changed only at the places found by `ast`, so that comments and line breaks are preserved.
"""

import ast
import builtins
import inspect
import io
import linecache
import re
import symtable
import sys
import textwrap
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from types import FunctionType, ModuleType
from typing import Any

import sdlearn
from sdlearn.lessons.exercises.exercise import Exercise
from sdlearn.lessons.show import whole_source

DIMENSION = r"(?:\d*[A-Za-z]\w?|\d+|in|out|\.\.\.)(?: ?[*/+·−-] ?\w+)*"
SHAPE = re.compile(rf"\({DIMENSION},(?: {DIMENSION})?(?:, {DIMENSION})*\)")  # (B, C, H, W), (B,), (2B, H*W, C)
WIDTH = 100  # of a stub's lines, in columns

Edit = tuple[int, int, str]  # start and end, in bytes, and the replacement


def plain_source(reference: Callable[..., Any] | type) -> str:
    """The source text as `ast.unparse` writes it, without docstrings and comments: what hints are matched against."""
    tree = ast.parse(whole_source(reference))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def changed_source(reference: Callable[..., Any] | type, changes: Sequence[tuple[str, str]]) -> str:
    """The plain source with some changes. Raises ValueError unless each old text occurs in it exactly once."""
    text = plain_source(reference)
    for old, new in changes:
        if text.count(old) != 1:
            raise ValueError(
                f"{old!r} occurs {text.count(old)} times in {reference.__qualname__}, but it must occur once"
            )
        text = text.replace(old, new)
    return text


def run_source(text: str, file: str = "<passport>", namespace: dict[str, Any] | None = None) -> Any:
    """Run a text by itself, or in a namespace, and return the last function or class that it defines.

    Raises ValueError if it defines none.
    """
    defined = [one.name for one in ast.parse(text).body if isinstance(one, ast.FunctionDef | ast.ClassDef)]
    if not defined:
        raise ValueError("it defines no function and no class")
    namespace = {"__name__": "__main__"} if namespace is None else namespace
    exec(compile(text, file, "exec", dont_inherit=True), namespace)
    return namespace[defined[-1]]


def stub(exercise: Exercise) -> str:
    """The cell in which the learner writes: the package's source without type hints and without its answer.

    It keeps the signature, the docstring, what refuses bad input at the beginning, a class's `__init__` and shape
    comments. Its last line is the check.
    """
    return cell(exercise, definition(exercise, emptied=True))


def solution(exercise: Exercise) -> str:
    """The package's code as an answer, in the same cell."""
    return cell(exercise, definition(exercise, emptied=False))


def cell(exercise: Exercise, text: str) -> str:
    return f'# {exercise.id}\n{text}\n\n\nex.check("{exercise.id}", {exercise.name})'


def definition(exercise: Exercise, emptied: bool) -> str:
    """What the learner defines, below the imports that it needs."""
    text = rewritten(exercise, emptied)
    lines = import_lines(free_names(text), sys.modules[exercise.reference.__module__])
    return "".join(line + "\n" for line in lines) + ("\n\n" if lines else "") + text


def rewritten(exercise: Exercise, emptied: bool) -> str:
    """The source under the learner's names, without type hints and, if emptied, without the answer.

    Raises ValueError if the new name for `self` is in use already.
    """
    text = whole_source(exercise.reference) + "\n"
    tree = ast.parse(text)
    names = {exercise.reference.__name__: exercise.name}
    if exercise.owner is not None:
        names["self"] = new = exercise.object_name
        if any(new in (getattr(node, "id", None), getattr(node, "arg", None)) for node in ast.walk(tree)):
            raise ValueError(f"{exercise.id}: {new} can't stand for self, it is the name of something else there")
    return changed(text, list(edits(Text(text), tree.body[0], names, emptied))).rstrip()


class Text:
    """A text whose positions are counted in bytes, as in `ast`."""

    def __init__(self, text: str) -> None:
        self.data = text.encode()
        self.lines = [0]
        for line in self.data.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        self.comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}

    def start(self, node: ast.AST) -> int:
        return self.lines[node.lineno - 1] + node.col_offset

    def end(self, node: ast.AST) -> int:
        return self.lines[node.end_lineno - 1] + node.end_col_offset


def changed(text: str, changes: list[Edit]) -> str:
    data = text.encode()
    for start, end, new in sorted(changes, reverse=True):
        data = data[:start] + new.encode() + data[end:]
    return data.decode()


def edits(text: Text, node: ast.AST, names: Mapping[str, str], emptied: bool) -> Iterator[Edit]:
    """The edits that remove type hints, rename by `names` and, if emptied, remove the bodies of functions."""
    children: Iterable[ast.AST]
    if isinstance(node, ast.FunctionDef):
        yield header(text, node, names)
        children = node.body
        if emptied and node.name != "__init__":
            yield body(text, node, names)
            children = takewhile(stays, node.body)
    elif isinstance(node, ast.ClassDef):
        start = text.start(node) + len("class ")
        yield start, start + len(node.name), names.get(node.name, node.name)
        for child in node.body:
            yield from edits(text, child, names, emptied)
        return
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        yield text.end(node.target), text.end(node.annotation), ""
        children = (node.target, node.value)
    else:
        if isinstance(node, ast.Name) and node.id in names:
            yield text.start(node), text.end(node), names[node.id]
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from edits(text, child, names, emptied=False)


def header(text: Text, node: ast.FunctionDef, names: Mapping[str, str]) -> Edit:
    """The line `def name(arguments):`, without type hints."""
    everything = node.args
    arguments = [*everything.posonlyargs, *everything.args, *everything.kwonlyargs]
    arguments += [one for one in (everything.vararg, everything.kwarg) if one is not None]
    defaults = [one for one in (*everything.defaults, *everything.kw_defaults) if one is not None]
    last = max([text.end(one) for one in [*arguments, *defaults]], default=text.start(node))
    last = text.data.index(b")", last) if node.returns is None else text.end(node.returns)
    end = text.data.index(b":", last) + 1

    def plain(one: ast.expr | None) -> ast.Name | None:  # a default just as it is written
        return None if one is None else ast.Name(text.data[text.start(one) : text.end(one)].decode())

    def named(one: ast.arg) -> ast.arg:
        return ast.arg(names.get(one.arg, one.arg))

    bare = ast.arguments(
        posonlyargs=[named(one) for one in everything.posonlyargs],
        args=[named(one) for one in everything.args],
        vararg=everything.vararg and named(everything.vararg),
        kwonlyargs=[named(one) for one in everything.kwonlyargs],
        kw_defaults=[plain(one) for one in everything.kw_defaults],
        kwarg=everything.kwarg and named(everything.kwarg),
        defaults=[plain(one) for one in everything.defaults],
    )
    name = names.get(node.name, node.name)
    line = f"def {name}({ast.unparse(bare)}):"
    if node.col_offset + len(line) > WIDTH:
        margin = " " * (node.col_offset + 4)
        listed = textwrap.fill(ast.unparse(bare), WIDTH, initial_indent=margin, subsequent_indent=margin)
        line = f"def {name}(\n{listed}\n{margin[4:]}):"
    return text.start(node), end, line


def body(text: Text, node: ast.FunctionDef, names: Mapping[str, str]) -> Edit:
    """Replaces a function's body: its beginning, its shape comments, and `raise NotImplementedError`."""
    given = list(takewhile(stays, node.body))
    start = text.end(given[-1]) if given else header(text, node, names)[1]
    kept = [
        comment
        for number, comment in text.comments.items()
        if start <= text.lines[number - 1] and number <= node.end_lineno and SHAPE.search(comment)
    ]
    margin = "\n" + " " * node.body[0].col_offset
    new = "".join(margin + line for line in [*kept, "raise NotImplementedError"])
    return start, text.lines[node.end_lineno] - 1, new


def stays(statement: ast.stmt) -> bool:
    """Whether a stub keeps a statement at the beginning of a function: a docstring, or a check of the input."""
    match statement:
        case ast.Expr(ast.Constant(str())) | ast.If(body=[ast.Raise()], orelse=[]):
            return True
    return False


def free_names(text: str) -> set[str]:
    """The names that a text uses but doesn't define, without builtins."""
    top = symtable.symtable(text, "<cell>", "exec")
    defined = {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported()}

    def used(table: symtable.SymbolTable) -> set[str]:
        names = {one.get_name() for one in table.get_symbols() if one.is_referenced() and one.is_global()}
        return names.union(*(used(child) for child in table.get_children()))

    return used(top) - defined - set(vars(builtins))


def bound_names(statement: ast.stmt) -> set[str]:
    """The names that a statement at the top of a cell defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.split(".")[0] for alias in statement.names}
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        return {one.id for one in ast.walk(statement) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    return set()


def import_lines(names: set[str], module: ModuleType) -> list[str]:
    """Import statements for names that a module of the package uses, written as a notebook would."""
    plain: set[str] = set()
    gathered: dict[str, set[str]] = {}
    imported = {
        alias.asname or alias.name: (statement, alias)
        for statement in ast.parse(inspect.getsource(module)).body
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for alias in statement.names
    }
    for name in names & vars(module).keys():
        statement, alias = imported.get(name, (None, ast.alias(name)))
        if isinstance(statement, ast.Import):
            plain.add(f"import {ast.unparse(alias)}")
        elif name in sdlearn.__all__ and getattr(sdlearn, name) is vars(module)[name]:
            gathered.setdefault("sdlearn", set()).add(name)
        else:
            gathered.setdefault(statement.module if statement else module.__name__, set()).add(ast.unparse(alias))
    ordered = sorted(gathered, key=lambda source: (source.startswith("sdlearn"), source))
    return sorted(plain) + [f"from {source} import {', '.join(sorted(gathered[source]))}" for source in ordered]


def own_source(mine: Any) -> tuple[str, set[str]] | None:
    """The source text of what a learner wrote, with everything that it needs, and the names that couldn't be found.

    `mine` is a function or a class, made in a notebook or in a file. The text holds the imports, functions and values
    of the same cell or file that are used, and imports for those of other cells. It ends with the definition. None if
    there is no source text, as for a lambda.
    """
    functions = [inspect.unwrap(one) for one in (vars(mine).values() if isinstance(mine, type) else (mine,))]
    functions = [one for one in functions if isinstance(one, FunctionType)]
    if not functions:
        return None
    code, namespace = functions[0].__code__, functions[0].__globals__
    whole = "".join(linecache.getlines(code.co_filename, namespace))
    try:
        tree = ast.parse(whole)
    except SyntaxError:
        return None
    kind = ast.ClassDef if isinstance(mine, type) else ast.FunctionDef
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, kind)
        and node.name == mine.__name__
        and first_line(node) <= code.co_firstlineno <= node.end_lineno
    ]
    if not found:
        return None
    definition = lines_of(whole, found[-1])

    names, chosen = free_names(definition), []
    others = [statement for statement in tree.body if statement is not found[-1]]
    while more := [one for one in others if one not in chosen and bound_names(one) & names]:
        chosen += more
        names |= free_names("".join(lines_of(whole, one) for one in more))
    names -= set().union(*map(bound_names, chosen)) | {mine.__name__}
    lines = {name: import_line(name, namespace[name]) for name in sorted(names) if name in namespace}
    missing = {name for name in names if not lines.get(name)}
    above = sorted(line + "\n" for line in lines.values() if line)
    above += [lines_of(whole, one) for one in sorted(chosen, key=lambda one: one.lineno)]
    return "".join(above) + definition, missing


def first_line(node: ast.AST) -> int:
    return min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])


def lines_of(text: str, node: ast.AST) -> str:
    """The lines of a statement, without its outer indentation."""
    lines = text.splitlines(keepends=True)[first_line(node) - 1 : node.end_lineno]
    return textwrap.dedent("".join(lines)).rstrip() + "\n"


def import_line(name: str, value: Any) -> str:
    """The import that gives a name this value, or nothing if none does."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__} as {name}" if value.__name__ != name else f"import {name}"
    module, original = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if module in (None, "__main__") or getattr(sys.modules.get(module), str(original), None) is not value:
        return ""
    return f"from {module} import {original}" + (f" as {name}" if name != original else "")
