"""The recipe's arithmetic: a parser of our own, exact until a root, and never ``eval``.

An expression stands wherever a number does: ``ceil_to(8 * dim / 3, 32)``, ``1 / sqrt(2 * layers)``.
Checks of blocks also compare (``heads % kv_heads == 0``), and templates of the bridge have holes
besides (``$a.b[layer]``).  The trees are small frozen dataclasses, to be walked and inverted.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from typing import Any, TypeAlias

MAX_LENGTH = 200
MAX_DEPTH = 32
MAX_BITS = 4096  # of an exact number's numerator or denominator


class ExpressionError(Exception):
    """What is wrong, how far into the text (if that is known), and what would be accepted."""

    def __init__(self, message: str, offset: int | None = None, help: str = "") -> None:
        self.message, self.offset, self.help = message, offset, help
        super().__init__(message)


@dataclass(frozen=True)
class _Tree:
    at: int = field(default=0, compare=False, repr=False, kw_only=True)  # the offset in the text


@dataclass(frozen=True)
class Number(_Tree):
    """A literal, exact: ``0.22`` is 11/50."""

    value: Fraction


@dataclass(frozen=True)
class Name(_Tree):
    name: str


@dataclass(frozen=True)
class Call(_Tree):
    """A function, or a dim that is a list: ``ffs(layer)``."""

    function: str
    args: tuple[Expression, ...]


@dataclass(frozen=True)
class Binary(_Tree):
    """``op`` is one of ``+ - * / // % **``."""

    op: str
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Negate(_Tree):
    operand: Expression


@dataclass(frozen=True)
class Constant(_Tree):
    """``true``, ``false``, ``null`` or a quoted word."""

    value: bool | str | None


@dataclass(frozen=True)
class Hole(_Tree):
    """``$a.b``, of path ``a.b``; ``$.x`` lies below the place of use, and ``$.`` is that place."""

    path: str
    index: Expression | None = None


@dataclass(frozen=True)
class Compare(_Tree):
    """``op`` is one of ``== != < <= > >=``."""

    op: str
    left: Expression
    right: Expression


@dataclass(frozen=True)
class In(_Tree):
    item: Expression
    items: Expression


@dataclass(frozen=True)
class And(_Tree):
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Not(_Tree):
    operand: Expression


Expression: TypeAlias = (
    Number | Name | Call | Binary | Negate | Constant | Hole | Compare | In | And | Not
)
Lookup: TypeAlias = Callable[[str, tuple[Any, ...]], Any]

TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<hole>\$(?:\.?[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*|\.))
  | (?P<quoted>'[^']*')
  | (?P<op>//|\*\*|==|!=|<=|>=|[-+*/%<>(),\[\]])
  | (?P<end>$))""",
    re.VERBOSE,
)
CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ARITHMETIC = ("+", "-", "*", "/", "//")
CHECKING = ("%", "**", "in", "and", *COMPARISONS)
POWER = (
    {"and": 1, "in": 3}
    | dict.fromkeys(COMPARISONS, 3)
    | {"+": 4, "-": 4, "*": 5, "/": 5, "//": 5, "%": 5, "**": 7}
)
NOT, MINUS = 2, 6  # how strongly these hold what follows
ARITY = {
    "ceil": 1,
    "floor": 1,
    "sqrt": 1,
    "exp": 1,
    "log": 1,
    "min": None,
    "max": None,
    "ceil_to": 2,
}


@cache  # a block's checks and defaults are asked again for each leaf
def parse(text: str, template: bool = False, checks: bool = False) -> Expression:
    """The tree of a text; ``checks`` may compare, and a ``template`` may have holes besides."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"an expression of {len(text)} characters is too long", MAX_LENGTH, "make it a dim"
        )
    return _Parser(text, template, template or checks).whole()


def is_expression(text: str) -> bool:
    """Whether a text looks like an expression rather than a word."""
    return bool(re.search(r"[-+*/%<>=$(]", text))


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


class _Parser:
    def __init__(self, text: str, template: bool, checks: bool) -> None:
        self.template, self.checks = template, checks
        self.tokens = list(_tokens(text))
        self.next = 0
        self.depth = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.next]

    def take(self, text: str | None = None) -> _Token:
        token = self.token
        if text is not None and token.text != text:
            raise ExpressionError(f"{text!r} is missing {_before(token)}", token.at)
        self.next += 1
        return token

    def whole(self) -> Expression:
        tree = self.expression(0)
        if self.token.kind != "end":
            hint = f"write {tree.name} * ..." if isinstance(tree, Name) else ""
            raise ExpressionError(f"{self.token.text!r} is not expected here", self.token.at, hint)
        return tree

    def expression(self, power: int) -> Expression:
        """What stands here, with every operator that holds more strongly than ``power``."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError(f"brackets are nested more than {MAX_DEPTH} deep", self.token.at)
        left = self.operand()
        while (
            (op := self.token).text in POWER
            and op.kind in ("op", "name")
            and POWER[op.text] > power
        ):
            left = self.operation(self.allowed(self.take()), left)
        self.depth -= 1
        return left

    def allowed(self, op: _Token) -> _Token:
        if op.text not in ARITHMETIC and not self.checks:
            known = "+ - * / // min max ceil floor ceil_to sqrt exp log"
            raise ExpressionError(
                f"{op.text!r} is not part of a recipe's expressions", op.at, f"these are: {known}"
            )
        return op

    def operation(self, op: _Token, left: Expression) -> Expression:
        power = POWER[op.text]
        right = self.expression(power - 1 if op.text == "**" else power)
        if op.text == "and":
            return And(left, right, at=op.at)
        if op.text != "in" and op.text not in COMPARISONS:
            return Binary(op.text, left, right, at=op.at)
        if POWER.get(self.token.text) == power:
            raise ExpressionError("comparisons do not chain", self.token.at, "join them with 'and'")
        return (
            In(left, right, at=op.at)
            if op.text == "in"
            else Compare(op.text, left, right, at=op.at)
        )

    def operand(self) -> Expression:
        token = self.take()
        match token.kind, token.text:
            case "number", text:
                return Number(_literal(text, token.at), at=token.at)
            case "op", "(":
                inner = self.expression(0)
                self.take(")")
                return inner
            case "op", "-":
                return Negate(self.expression(MINUS), at=token.at)
            case "name", "not" if self.checks:
                return Not(self.expression(NOT), at=token.at)
            case "name", word if self.template and word in CONSTANTS:
                return Constant(CONSTANTS[word], at=token.at)
            case "name", word if word not in ("and", "in", "not"):
                return self.name(word, token.at)
            case "hole", text if self.template:
                return self.hole(text, token.at)
            case "quoted", text if self.checks:
                return Constant(text[1:-1], at=token.at)
        if token.kind in ("hole", "quoted"):
            raise ExpressionError(f"{token.text!r} has no meaning in a recipe", token.at)
        raise ExpressionError(f"a number is missing {_before(token)}", token.at)

    def name(self, word: str, at: int) -> Expression:
        if self.token.text != "(":
            if word in ARITY:
                raise ExpressionError(f"{word!r} is a function", at, f"write {word}(...)")
            return Name(word, at=at)
        self.take("(")
        args = [self.expression(0)]
        while self.token.text == ",":
            self.take()
            args.append(self.expression(0))
        self.take(")")
        if (arity := ARITY.get(word)) is not None and len(args) != arity:
            raise ExpressionError(
                f"{word} takes {arity} argument{'s'[: arity > 1]}, not {len(args)}", at
            )
        return Call(word, tuple(args), at=at)

    def hole(self, text: str, at: int) -> Expression:
        if self.token.text != "[":
            return Hole(text[1:], at=at)
        self.take("[")
        index = self.expression(0)
        self.take("]")
        return Hole(text[1:], index, at=at)


def _tokens(text: str) -> Iterator[_Token]:
    at, kind = 0, ""
    while kind != "end":
        match = TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise ExpressionError(f"{text[at]!r} is not part of an expression", at)
        previous, kind, at = kind, match.lastgroup, match.end()
        token = _Token(kind, match[kind], match.start(kind))
        if previous == "number" and kind == "name" and token.text not in ("and", "in"):
            raise ExpressionError(
                f"an operator is missing before {token.text!r}", token.at, f"write * {token.text}"
            )
        yield token


def _before(token: _Token) -> str:
    return "at the end" if token.kind == "end" else f"before {token.text!r}"


def _literal(text: str, at: int) -> Fraction:
    exponent = re.search("[eE](.*)", text)
    if exponent and abs(int(exponent[1])) > 400:
        raise ExpressionError(f"{text} is out of range", at)
    return Fraction(text)


def evaluate(expression: Expression, lookup: Lookup) -> int | float:
    """The number: whole if it is exactly so, else the nearest float."""
    value = value_of(expression, lookup)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ExpressionError(f"{unparse(expression)} is {value!r}, not a number", expression.at)
    return value


def holds(expression: Expression, lookup: Lookup) -> bool:
    """Whether a condition is true."""
    value = value_of(expression, lookup)
    if not isinstance(value, bool):
        raise ExpressionError(
            f"{unparse(expression)} is {value!r}, neither true nor false", expression.at
        )
    return value


def value_of(expression: Expression, lookup: Lookup) -> Any:
    """Whatever a template's expression stands for: a number, a truth, or what a hole holds.

    ``lookup(name, args)`` gives what is not the language's own: a dim or ``layer`` (no args), a dim
    that is a list (the args of its call), a hole by its path after ``$`` (its index, if any).
    """
    return _plain(_Evaluation(lookup).value(expression), expression.at)


class _Evaluation:
    """Walks a tree; numbers inside are fractions until they must be floats."""

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup

    def value(self, tree: Expression) -> Any:
        match tree:
            case Number(value) | Constant(value):
                return value
            case Name(name):
                return self.found(tree, name, ())
            case Hole(path, index):
                return self.found(tree, f"${path}", () if index is None else (index,))
            case Call(function, args) if function in ARITY:
                return _guarded(tree, FUNCTIONS[function], *(self.number(arg) for arg in args))
            case Call(function, args):
                return self.found(tree, function, args)
            case Negate(operand):
                return -self.number(operand)
            case Binary(op, left, right):
                return _guarded(tree, BINARY[op], self.number(left), self.number(right))
            case _:
                return self.truth(tree)

    def truth(self, tree: Compare | In | And | Not) -> bool:
        match tree:
            case Compare(("==" | "!=") as op, left, right):
                return COMPARISONS[op](*_comparable(self.value(left), self.value(right)))
            case Compare(op, left, right):
                return COMPARISONS[op](self.number(left), self.number(right))
            case In(item, items):
                held = self.value(items)
                if not isinstance(held, list | tuple):
                    raise ExpressionError(f"{unparse(items)} is {held!r}, not a list", items.at)
                return self.value(item) in [_exact(value) for value in held]
            case And(left, right):
                return self.condition(left) and self.condition(right)
            case Not(operand):
                return not self.condition(operand)

    def found(self, tree: Expression, name: str, args: tuple[Expression, ...]) -> Any:
        given = tuple(_plain(self.value(arg), arg.at) for arg in args)
        try:
            return _exact(self.lookup(name, given))
        except ExpressionError as error:
            offset = tree.at if error.offset is None else error.offset
            raise ExpressionError(error.message, offset, error.help) from None
        except LookupError:
            raise ExpressionError(f"{name!r} is not known here", tree.at) from None

    def number(self, tree: Expression) -> Any:
        value = self.value(tree)
        if isinstance(value, bool) or not isinstance(value, Fraction | float):
            raise ExpressionError(f"{unparse(tree)} is {value!r}, not a number", tree.at)
        return value

    def condition(self, tree: Expression) -> bool:
        value = self.value(tree)
        if not isinstance(value, bool):
            raise ExpressionError(
                f"{unparse(tree)} is {_plain(value, tree.at)!r}, neither true nor false", tree.at
            )
        return value


def _guarded(tree: Expression, compute: Callable[..., Any], *args: Any) -> Any:
    """A result within bounds, or the error that names what was computed."""
    try:
        value = compute(*args)
        float(value)
    except ZeroDivisionError:
        raise ExpressionError(f"{unparse(tree)} divides by zero", tree.at) from None
    except OverflowError:
        raise ExpressionError(f"{unparse(tree)} is too large", tree.at) from None
    except ValueError:
        shown = ", ".join(str(_plain(arg, tree.at)) for arg in args)
        raise ExpressionError(f"{unparse(tree)} is not a number at {shown}", tree.at) from None
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ExpressionError(f"{unparse(tree)} is too large", tree.at)
        return value
    value = Fraction(value)
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise ExpressionError(f"{unparse(tree)} needs too many digits", tree.at)
    return value


def _exact(value: Any) -> Any:
    """A number as the fraction that its shortest decimal says, so that 0.1 is one tenth."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


def _plain(value: Any, at: int) -> Any:
    if not isinstance(value, Fraction):
        return value
    if value.denominator == 1:
        return value.numerator
    return float(value)


def _comparable(left: Any, right: Any) -> tuple[Any, Any]:
    """``true`` is not 1: what differs in kind differs."""
    if isinstance(left, bool) != isinstance(right, bool):
        return str(left), right
    return left, right


def _sqrt(x: Fraction | float) -> Fraction | float:
    """Exact where the root is: ``sqrt(16)`` is a whole number."""
    if isinstance(x, Fraction) and x >= 0:
        root = Fraction(math.isqrt(x.numerator), math.isqrt(x.denominator))
        if root * root == x:
            return root
    return math.sqrt(x)


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, float) or isinstance(exponent, float) or exponent.denominator != 1:
        return math.pow(base, exponent)  # of a negative number to a broken power: a ValueError
    if (
        max(base.numerator.bit_length(), base.denominator.bit_length(), 2) * abs(exponent)
        > 2 * MAX_BITS
    ):
        if abs(base) not in (0, 1):
            raise OverflowError
        exponent = exponent % 2 + 2 * (exponent > 0)
    return base ** int(exponent)


def _ceil_to(x: Any, multiple: Any) -> Any:
    if multiple <= 0:
        raise ValueError
    return math.ceil(x / multiple) * multiple


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": _power,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ceil": math.ceil,
    "floor": math.floor,
    "sqrt": _sqrt,
    "exp": math.exp,
    "log": math.log,
    "min": lambda *args: min(args),
    "max": lambda *args: max(args),
    "ceil_to": _ceil_to,
}


def children(expression: Expression) -> Iterator[Expression]:
    """The trees directly inside a tree, in the written order."""
    for part in fields(expression):
        value = getattr(expression, part.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, _Tree):
                yield item  # type: ignore[misc]  # every tree is an Expression


def walk(expression: Expression) -> Iterator[Expression]:
    """A tree and everything inside it."""
    yield expression
    for child in children(expression):
        yield from walk(child)


@cache
def names(expression: Expression) -> frozenset[str]:
    """The names that ``lookup`` will be asked for, apart from holes."""
    found = {tree.name for tree in walk(expression) if isinstance(tree, Name)}
    return frozenset(found) | {
        tree.function
        for tree in walk(expression)
        if isinstance(tree, Call) and tree.function not in ARITY
    }


def holes(expression: Expression) -> set[str]:
    """The paths of a template's holes."""
    return {tree.path for tree in walk(expression) if isinstance(tree, Hole)}


def unparse(expression: Expression) -> str:
    """Text that parses to an equal tree, with no bracket more than it needs."""
    return _text(expression, 0)


def _text(tree: Expression, power: int) -> str:
    """``power`` is how strongly the operator outside holds."""
    match tree:
        case Number(value):
            return _bracketed(_digits(value), MINUS if value < 0 else 9, power)
        case Name(name):
            return name
        case Constant(str(value)):
            return f"'{value}'"
        case Constant(value):
            return next(word for word, known in CONSTANTS.items() if known is value)
        case Hole(path, index):
            return f"${path}" if index is None else f"${path}[{_text(index, 0)}]"
        case Call(function, args):
            return f"{function}({', '.join(_text(arg, 0) for arg in args)})"
        case Negate(operand):
            return _bracketed(f"-{_text(operand, MINUS)}", MINUS, power)
        case Not(operand):
            return _bracketed(f"not {_text(operand, NOT)}", NOT, power)
        case Binary("**", left, right):
            return _bracketed(f"{_text(left, 8)} ** {_text(right, MINUS)}", POWER["**"], power)
        case And(left, right):
            return _infix("and", left, right, power)
        case In(item, items):
            return _infix("in", item, items, power)
        case Binary(op, left, right) | Compare(op, left, right):
            return _infix(op, left, right, power)


def _infix(op: str, left: Expression, right: Expression, power: int) -> str:
    own = POWER[op]
    chains = own != POWER["=="]
    return _bracketed(
        f"{_text(left, own if chains else own + 1)} {op} {_text(right, own + 1)}", own, power
    )


def _bracketed(text: str, own: int, power: int) -> str:
    return f"({text})" if own < power else text


def _digits(value: Fraction) -> str:
    if value.denominator == 1 and value < 10**16:
        return str(value.numerator)
    with suppress(OverflowError):
        if Fraction(repr(float(value))) == value:
            return repr(float(value))
    with localcontext(prec=1000):
        return str((Decimal(value.numerator) / value.denominator).normalize())
