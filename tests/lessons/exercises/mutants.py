"""Small changes of the package's code, made by rule: what a check must not let pass.

An operator is swapped, an index or a constant is one more or one less, a call is dropped, two arguments are swapped, a
comparison or a condition is turned round, a sign is lost or added. Lines that the stub gives are left as they are.
"""

import ast
import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sdlearn.lessons.exercises import source
from sdlearn.lessons.exercises.exercise import Exercise

OPERATORS = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
}
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}


@dataclass(frozen=True)
class Mutant:
    """A change of the plain source: the line before and after it, and the text."""

    old: str
    new: str
    text: str

    def __str__(self) -> str:
        return f"{self.old}  →  {self.new}"


def mutants_of(exercise: Exercise) -> list[Mutant]:
    """All mutants of an exercise's reference, each text once."""
    plain = source.plain_source(exercise.reference)
    tree = ast.parse(plain)
    given = {id(node) for one in stub_s(tree) for node in ast.walk(one)}
    found: dict[str, Mutant] = {}
    for node in ast.walk(tree):
        if id(node) in given:
            continue
        for field, value in ast.iter_fields(node):
            for place in range(len(value)) if isinstance(value, list) else (None,):
                old = value if place is None else value[place]
                if (
                    not isinstance(old, ast.expr)
                    or id(old) in given
                    or isinstance(getattr(old, "ctx", None), ast.Store)
                ):
                    continue
                for new in changed(old):
                    text = with_change(tree, node, field, place, new)
                    if text != plain and text not in found:
                        found[text] = Mutant(*changed_lines(plain, text), text)
    return list(found.values())


def stub_s(tree: ast.AST) -> Iterator[ast.AST]:
    """What the stub gives: refusals at the beginning of a function, a network's `__init__`, annotations, defaults."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.args
            if node.returns:
                yield node.returns
            for one in node.body if node.name == "__init__" else []:
                yield one
            for one in node.body:
                if not source.stays(one):
                    break
                yield one


def with_change(tree: ast.AST, node: ast.AST, field: str, place: int | None, new: ast.expr) -> str:
    """The text of the tree where one expression is another one."""
    value = getattr(node, field)
    old = value if place is None else value[place]
    put(node, field, place, new)
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(tree)))
    put(node, field, place, old)
    return text


def put(node: ast.AST, field: str, place: int | None, value: ast.expr) -> None:
    if place is None:
        setattr(node, field, value)
    else:
        getattr(node, field)[place] = value


def changed_lines(before: str, after: str) -> tuple[str, str]:
    old, new = before.split("\n"), after.split("\n")
    pairs = [(a.strip(), b.strip()) for a, b in zip(old, new, strict=True) if a != b]
    return pairs[0]


def changed(node: ast.expr) -> Iterator[ast.expr]:
    """All small changes of an expression itself, not of what is inside it."""
    if isinstance(node, ast.BinOp):
        for operator in OPERATORS.get(type(node.op), ()):
            yield ast.BinOp(node.left, operator(), node.right)
        if isinstance(node.left, ast.Name) and not isinstance(node.op, ast.Pow):  # the square of -x is that of x
            yield ast.BinOp(ast.UnaryOp(ast.USub(), node.left), node.op, node.right)
        if isinstance(node.right, ast.Name):
            yield ast.BinOp(node.left, node.op, ast.UnaryOp(ast.USub(), node.right))
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Compare):
        for operator in COMPARISONS.get(type(node.ops[0]), ()):
            yield ast.Compare(node.left, [operator(), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.BoolOp):
        yield from node.values
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value - 1)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and type(node.value) is str:
        yield ast.Constant(node.value + "x")
    elif isinstance(node, ast.Subscript):
        yield from moved(node)
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and not isinstance(node.func.value, ast.Name):
            yield node.func.value  # (1 - beta).sqrt() -> 1 - beta
        elif isinstance(node.func, ast.Attribute) and not node.args:
            yield node.func.value
        yield from (one for one in node.args[:1] if not isinstance(one, ast.Starred))
        for i in range(len(node.args) - 1):
            swapped = list(node.args)
            swapped[i : i + 2] = reversed(swapped[i : i + 2])
            yield ast.Call(node.func, swapped, node.keywords)


def moved(node: ast.Subscript) -> Iterator[ast.expr]:
    """The same with each index, or each end of a slice, one more and one less."""

    def both(index: ast.expr) -> Iterator[ast.expr]:
        yield ast.BinOp(index, ast.Add(), ast.Constant(1))
        yield ast.BinOp(index, ast.Sub(), ast.Constant(1))

    if isinstance(node.slice, ast.Slice):
        for end in ("lower", "upper"):
            if getattr(node.slice, end) is not None:
                for index in both(getattr(node.slice, end)):
                    ends = {one: getattr(node.slice, one) for one in ("lower", "upper", "step")} | {end: index}
                    yield ast.Subscript(node.value, ast.Slice(**ends), node.ctx)
    elif not isinstance(node.slice, ast.Tuple) and not isinstance(getattr(node.slice, "value", 0), str):
        constant = isinstance(node.slice, ast.BinOp) and isinstance(node.slice.right, ast.Constant)
        for index in () if constant else both(node.slice):  # the constant in [i + 1] is changed as such
            yield ast.Subscript(node.value, index, node.ctx)


def run_mutant(exercise: Exercise, mutant: Mutant) -> Callable[..., Any] | type:
    """The mutant, in the module of its reference."""
    module = vars(sys.modules[exercise.reference.__module__])
    return source.run_source(mutant.text, f"<mutant of {exercise.id}>", dict(module))
