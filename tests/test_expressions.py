from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from builder.expressions import (
    Binary,
    Call,
    ExpressionError,
    Hole,
    In,
    Name,
    Negate,
    Number,
    evaluate,
    holds,
    holes,
    is_expression,
    names,
    parse,
    unparse,
    value_of,
)

DIMS = {"dim": 160, "heads": 4, "layer": 2, "rate": 0.1}
LISTS = {"ffs": [64, 96, 128]}


def lookup(name, args):
    if args:
        (index,) = args
        return LISTS[name][index]
    return DIMS[name]


def number(text):
    return evaluate(parse(text), lookup)


def refusal(text, **options):
    with pytest.raises(ExpressionError) as caught:
        evaluate(parse(text, **options), lookup)
    return caught.value


leaf = st.one_of(
    st.integers(0, 999).map(lambda n: Number(Fraction(n))),
    st.integers(1, 9999).map(lambda n: Number(Fraction(n, 1000))),
    st.sampled_from(["dim", "heads", "layer", "rate"]).map(Name),
)


def inner(child):
    return st.one_of(
        st.builds(Binary, st.sampled_from(["+", "-", "*", "/", "//"]), child, child),
        st.builds(Negate, child),
        st.builds(lambda *args: Call("min", args), child, child),
        st.builds(lambda *args: Call("max", args), child, child, child),
        st.builds(lambda arg: Call("ceil", (arg,)), child),
        st.builds(lambda arg: Call("floor", (arg,)), child),
    )


trees = st.recursive(leaf, inner, max_leaves=8)
powers = st.recursive(
    leaf,
    lambda child: st.one_of(
        inner(child),
        st.builds(Binary, st.sampled_from(["%", "**"]), child, child),
        child.map(lambda index: Hole("a.b", index)),
        st.builds(In, child, st.just(Hole("list"))),
    ),
    max_leaves=8,
)


def by_python(tree, text):
    """The same text by Python's own parser, every literal and name exact."""
    import ast

    class Exact(ast.NodeTransformer):
        def visit_Constant(self, node):
            return ast.parse(f"F('{ast.get_source_segment(text, node)}')", mode="eval").body

    exact = {name: Fraction(repr(value)) for name, value in DIMS.items()}
    scope = {"F": Fraction, "min": min, "max": max, "ceil": math.ceil, "floor": math.floor} | exact
    code = ast.fix_missing_locations(Exact().visit(ast.parse(text, mode="eval")))
    return Fraction(eval(compile(code, "oracle", "eval"), scope))


@settings(deadline=None)
@given(tree=trees)
def test_an_expression_is_what_python_says_in_exact_fractions(tree):
    text = unparse(tree)
    assume(len(text) <= 200)
    try:
        expected = by_python(tree, text)
    except ZeroDivisionError:
        assert "divides by zero" in refusal(text).message
        return
    whole = expected.denominator == 1
    assert number(text) == (int(expected) if whole else float(expected))
    assert isinstance(number(text), int) == whole


@settings(deadline=None)
@given(tree=powers)
def test_unparsing_and_parsing_give_the_same_tree(tree):
    text = unparse(tree)
    assume(len(text) <= 200)
    assert parse(text, template=True) == tree


@settings(deadline=None)
@given(value=st.floats(0, allow_infinity=False))
def test_a_decimal_gives_back_the_same_double(value):
    assert float(number(repr(value))) == value


@settings(deadline=None, max_examples=300)
@given(text=st.text("+-*/()%,.$[]'0123456789e ab_layer<=>!", max_size=210), template=st.booleans())
def test_any_text_parses_or_is_refused_inside_it(text, template):
    refused = None
    try:
        value_of(parse(text, template=template), lambda name, args: 3)
    except ExpressionError as error:
        refused = error
    if refused:
        assert refused.message
        assert 0 <= refused.offset <= len(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("ceil_to(8 * dim / 3, 32)", 448),
        ("1 / sqrt(2 * 8)", 0.25),
        ("sqrt(2)", math.sqrt(2)),
        ("exp(log(2))", math.exp(math.log(2))),
        ("dim // 3 * 3", 159),
        ("-layer - -layer", 0),
        ("ffs(layer)", 128),
        ("ffs(layer - 1) + 1", 97),
        ("0.1 + 0.2", 0.3),
        ("rate * 3", 0.3),
        ("1e-4", 1e-4),
        (".5", 0.5),
    ],
)
def test_the_language_means_what_its_page_says(text, value):
    assert number(text) == value


def test_a_hole_is_looked_up_with_its_index():
    config = {"$a.kinds": ["full", "local"], "$.x": 3, "$none": None}

    def fields(name, args):
        return config[name][args[0]] if args else config[name]

    assert (
        value_of(
            parse("$a.kinds[layer % 2]", template=True),
            lambda n, a: 3 if n == "layer" else fields(n, a),
        )
        == "local"
    )
    assert value_of(parse("$.x ** 2", template=True), fields) == 9
    assert value_of(parse("$none == null", template=True), fields) is True
    assert value_of(parse("$a.kinds[0] == 'full' and not $.x < 3", template=True), fields) is True
    assert value_of(parse("'local' in $a.kinds", template=True), fields) is True
    assert holes(parse("$a.kinds[$.x]", template=True)) == {"a.kinds", ".x"}


def test_a_check_compares_and_a_recipe_does_not():
    assert holds(parse("dim % heads == 0", checks=True), lookup)
    assert not holds(parse("not dim % heads == 0", checks=True), lookup)
    assert refusal("dim % heads").message == "'%' is not part of a recipe's expressions"
    assert refusal("$a", checks=True).message == "'$a' has no meaning in a recipe"


def test_names_are_all_that_lookup_is_asked_for():
    tree = parse("ffs(layer) + min(dim, 3)")
    asked = set()
    evaluate(tree, lambda name, args: asked.add(name) or lookup(name, args))
    assert asked == names(tree) == {"ffs", "layer", "dim"}


@pytest.mark.parametrize(
    ("text", "message", "offset"),
    [
        ("1 / (dim - 160)", "1 / (dim - 160) divides by zero", 2),
        ("sqrt(-1)", "sqrt(-1) is not a number at -1", 0),
        ("exp(1000)", "exp(1000) is too large", 0),
        ("1e300 * 1e300", "1e+300 * 1e+300 is too large", 6),
        ("1e-99999999", "1e-99999999 is out of range", 0),
        ("log(0)", "log(0) is not a number at 0", 0),
        ("ceil_to(3, 0)", "ceil_to(3, 0) is not a number at 3, 0", 0),
        ("dim +", "a number is missing at the end", 5),
        ("(dim", "')' is missing at the end", 4),
        ("dim dim", "'dim' is not expected here", 4),
        ("2 dim", "an operator is missing before 'dim'", 2),
        ("width * 2", "'width' is not known here", 0),
        ("min", "'min' is a function", 0),
        ("ceil(1, 2)", "ceil takes 1 argument, not 2", 0),
        ("dim ^ 2", "'^' is not part of an expression", 4),
        ("1 +" * 80 + "1", "an expression of 241 characters is too long", 200),
        ("(" * 99 + "1" + ")" * 99, "brackets are nested more than 32 deep", 32),
        ("-" * 199 + "1", "brackets are nested more than 32 deep", 32),
    ],
)
def test_a_fault_is_named_at_its_place(text, message, offset):
    error = refusal(text)
    assert (error.message, error.offset) == (message, offset)


@pytest.mark.parametrize(
    ("text", "value"), [("2 ** 3 ** 2", 512), ("-2 ** 2", -4), ("7 - 2 % 4", 5)]
)
def test_operators_hold_as_strongly_as_in_python(text, value):
    assert evaluate(parse(text, template=True), lookup) == value == eval(text)


def test_a_power_never_runs_away():
    assert "too large" in refusal("9 ** 9 ** 9 ** 9", template=True).message
    assert evaluate(parse("(0 - 1) ** (10 ** 9 + 1)", template=True), lookup) == -1
    assert evaluate(parse("2 ** -1", template=True), lookup) == 0.5


def test_a_word_is_no_expression():
    assert not any(map(is_expression, ["rope", "dim", "normal_002"]))
    assert all(map(is_expression, ["2*dim", "ffs(layer)", "-dim", "$a"]))
