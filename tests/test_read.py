from __future__ import annotations

import random
import time
import tracemalloc

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import InputError, RecipeError, render
from builder.read import (
    MAX_DEPTH,
    MAX_NODES,
    Mapping,
    Scalar,
    Sequence,
    dump,
    from_python,
    read_file,
    read_text,
    read_value,
    to_python,
)

LLAMA = """\
# LLaMA
recipe: 1
name: llama
dims: {dim: 160, heads: 4, ff: "ceil_to(8 * dim / 3, 32)", vocab: 2048, context: 128}
blocks:
  decoder:
    - residual: [rmsnorm, {attention: {position: rope}}]
    - residual: [rmsnorm, {glu: {act: silu}}]
model:
  - token_embedding
  - {repeat: 4, block: decoder}
  - rmsnorm
  - lm_head
train: {steps: 600, lr: 1.0e-3}
"""

words = st.from_regex(r"[a-z_][a-z0-9_.]{0,8}", fullmatch=True).filter(
    lambda word: word not in ("null", "true", "false")
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12),
    st.text("-+*/(){}[],:#&!|>'\"%@` \t\nab0.~$", max_size=8),
    words,
)
pages = st.dictionaries(
    words,
    st.recursive(
        scalars,
        lambda child: st.lists(child, max_size=4) | st.dictionaries(words, child, max_size=4),
        max_leaves=20,
    ),
    min_size=1,
    max_size=5,
)


def codes(text):
    with pytest.raises(RecipeError) as caught:
        read_text(text, "page.yaml")
    return [finding.code for finding in caught.value.findings]


def refusal(text, read=read_text):
    with pytest.raises(RecipeError) as caught:
        read(text, "page.yaml")
    (finding,) = caught.value.findings
    return finding


def at(value):
    return value.mark.line, value.mark.column, value.mark.width


@settings(deadline=None, max_examples=300)
@given(page=pages, width=st.integers(20, 120))
def test_what_is_written_reads_back_equal(page, width):
    same_types = repr(page)
    assert repr(to_python(read_text(dump(page, width), "page"))) == same_types
    assert repr(to_python(from_python(page))) == same_types


@settings(deadline=None)
@given(page=pages)
def test_a_word_is_written_without_quotes(page):
    assert all(f'"{key}"' not in dump(page) for key in page)


@settings(deadline=None, max_examples=400)
@given(seed=st.integers(0, 10**6), edits=st.integers(1, 6))
def test_a_mutated_page_is_read_or_refused_inside_it(seed, edits):
    chance = random.Random(seed)
    text = LLAMA
    for _ in range(edits):
        start = chance.randrange(len(text) + 1)
        cut = chance.choice([0, 0, 1, 3, 20])
        piece = "".join(
            chance.choices(
                "{}[]:,-#&*!|>'\"%@`?~ \t\n\r\0\x85é日\ufeff\ud800a0.", k=chance.choice([0, 1, 2])
            )
        )
        text = text[:start] + piece + text[start + cut :]
    page, findings = None, []
    try:
        page = read_text(text, "page.yaml")
    except RecipeError as error:
        findings = error.findings
    if page:
        assert read_text(dump(page), "again") == page
    for finding in findings:
        assert render(finding)
        assert 1 <= finding.mark.line <= len(finding.mark.source.lines) + 1


def test_every_value_knows_its_place():
    page = read_text("a: {b: [1, é, x*5], c: 'q'}\n日本: &x\n  y: 1\nz: *x\n", "page.yaml")
    inner = page["a"]
    assert at(page["a"]) == (1, 4, 24)
    assert [at(item) for item in inner["b"]] == [(1, 9, 1), (1, 12, 1), (1, 15, 3)]
    assert at(inner["c"]) == (1, 24, 3)
    assert at(page.entries[1][0]) == (2, 1, 2)
    assert page["z"] == page["日本"]
    assert str(page["a"].mark) == "page.yaml:1:4"


def test_a_mapping_keeps_its_order_and_answers_by_key():
    page = read_text("b: 1\na: [x]\n", "page.yaml")
    assert [key.value for key, _ in page] == ["b", "a"]
    assert "a" in page
    assert "c" not in page
    assert page.get("c") is None
    assert isinstance(page["a"], Sequence)
    with pytest.raises(KeyError):
        page["c"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-3", 1e-3),
        (".5", 0.5),
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("-3", -3),
        ("no", "no"),
        ("on", "on"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2001-01-01", "2001-01-01"),
        ("true", True),
        ("~", None),
        ("'8'", "8"),
        ("local*3", "local*3"),
        ("8 * dim / 3", "8 * dim / 3"),
        ("min(2, 3)", "min(2, 3)"),
        ("$a.b[layer]", "$a.b[layer]"),
        ("[it,rmsnorm]", ["it", "rmsnorm"]),
        ("{a: 4}", {"a": 4}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    read = to_python(read_value(text))
    assert (read, type(read)) == (value, type(value))


def test_quotes_are_remembered():
    assert read_value("8").plain
    assert not read_value("'8'").plain


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: [1, 2\nb: 3", "yaml-syntax"),
        ("a: 'x", "yaml-syntax"),
        ("a: @x", "yaml-syntax"),
        ("a: \x07", "yaml-syntax"),
        ("a: 1\n---\nb: 2", "yaml-syntax"),
        ("a: *x", "yaml-syntax"),
        ("a:\n\t- b", "yaml-syntax"),
        ("a: b: c", "yaml-syntax"),
        ("a: 1\na: 2", "duplicate-key"),
        ("a: !!str x", "yaml-tag"),
        ("a: !!python/object/apply:os.system [x]", "yaml-tag"),
        ("%TAG ! tag:x,2000:\n---\na: 1", "yaml-tag"),
        ("a: &x [*x]", "alias-cycle"),
        ("a: " + "[" * 65 + "]" * 65, "too-deep"),
        ("a: " + "[" * 100_000, "too-deep"),
        ("a: " + "{a: " * 100_000, "too-deep"),
        ("- " * 100_000, "too-deep"),
        ("a: " + "x" * 1_000_001, "file-too-large"),
        ("a: [" + "1," * 10_001 + "]", "too-many-nodes"),
        ("", "not-a-mapping"),
        ("# nothing", "not-a-mapping"),
        ("- a", "not-a-mapping"),
        ("3: x", "key-not-a-word"),
        ("true: x", "key-not-a-word"),
        ("? [a]\n: x", "key-not-a-word"),
        ("a: &x {b: 1}\nc: {<<: *x}", "key-not-a-word"),
        ("a: .inf", "not-finite"),
        ("a: .nan", "not-finite"),
        ("a: 9223372036854775808", "number-too-large"),
        ("a: " + "9" * 10_000, "number-too-large"),
        ("a: 1e999", "number-too-large"),
        ("a: 1e-999", "number-too-small"),
        ("a: {b:4}", "missing-space"),
        ("a: {ff: ceil_to(8 * dim / 3, 32)}", "unquoted-comma"),
        ("a: [1, f(a, 2), 3]", "unquoted-comma"),
    ],
)
def test_each_fault_has_its_code(text, code):
    assert codes(text) == [code]


def test_all_faults_of_a_page_are_found_at_once():
    text = "a: {ff: min(1, 2, 3), b:4}\na: .inf\n3: x\nd: !x 1e999\n"
    expected = ["unquoted-comma", "missing-space", "duplicate-key", "not-finite"]
    assert sorted(codes(text)) == sorted(
        [*expected, "key-not-a-word", "yaml-tag", "number-too-large"]
    )


@pytest.mark.parametrize(
    ("text", "help"),
    [
        ("a: {b:4}", "write {b: 4}"),
        ("a: {ff: ceil_to(8 * dim / 3, 32)}", 'put it in quotes: "ceil_to(8 * dim / 3, 32)"'),
        ("a: {ff: min(1, max(2, 3)), b: 1}", 'put it in quotes: "min(1, max(2, 3))"'),
        ("a:\n\t- b", "indent with spaces"),
        ("a:\n  b: 1\n\tc: 1", "indent with spaces"),
    ],
)
def test_the_help_would_be_accepted(text, help):
    assert refusal(text).help == help


def test_a_map_without_its_space_is_refused_on_the_command_line():
    finding = refusal("{a:4}", read_value)
    assert (finding.code, finding.help) == ("missing-space", "write {a: 4}")
    assert refusal("", read_value).code == "missing-value"


def test_hostile_pages_cost_little():
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    chain = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 9000))
    flat = "".join(f"k{i}: v\n" for i in range(100_000))
    twice = "a: 1\n" * 4_000
    for text, code in [
        (bomb, "too-many-nodes"),
        (chain, "too-deep"),
        (flat, "too-many-nodes"),
        (twice, "duplicate-key"),
        ("a: [" + "{" * 60 + "?" * 500_000, "yaml-syntax"),
        ("a: '" + "x" * 999_000, "yaml-syntax"),
        ("a: " + "&a " * 300_000, "yaml-syntax"),
    ]:
        tracemalloc.start()
        start = time.perf_counter()
        found = codes(text)
        assert time.perf_counter() - start < 2  # a second, and as much for tracemalloc
        assert tracemalloc.get_traced_memory()[1] < 200e6
        tracemalloc.stop()
        assert set(found) == {code}


def test_aliases_within_the_limits_are_copies():
    half = MAX_NODES // 2 - 10
    page = read_text("a: &a [" + "1, " * half + "1]\nb: *a\n", "page.yaml")
    assert page["a"] == page["b"]
    deep = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert read_text(f"a: {deep}", "page.yaml")


def test_a_template_may_have_keys_that_are_no_words():
    page = read_text(
        "{0: a, true: b, 0.0: c, [true, false]: d, _: e}", "family.yaml", template=True
    )
    assert [key.value for key, _ in page] == [0, True, 0.0, "[true, false]", "_"]


def test_a_file_is_read_with_or_without_its_byte_order_mark(tmp_path):
    path = tmp_path / "page.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert at(read_file(path)["a"]) == (1, 4, 1)


def test_bytes_that_are_not_utf_8_are_pointed_at(tmp_path):
    path = tmp_path / "page.yaml"
    path.write_bytes("a: é\nb: ".encode() + b"\xff\n")
    with pytest.raises(RecipeError, match="byte 0xff is not UTF-8") as caught:
        read_file(path)
    assert at(caught.value.findings[0])[:2] == (2, 4)


def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path):
    for path in (tmp_path, tmp_path / "absent.yaml"):
        with pytest.raises(InputError) as caught:
            read_file(path)
        assert caught.value.code == "cannot-read"


def test_python_values_are_quoted_in_messages():
    value = from_python({"dims": {"dim": 160}, "model": ["token_embedding", ("a", None)]})
    line = value.mark.source.lines[0]
    assert line == "{dims: {dim: 160}, model: [token_embedding, [a, null]]}"
    dim = value["dims"]["dim"]
    assert line[dim.mark.column - 1 :][: dim.mark.width] == "160"


@pytest.mark.parametrize(
    ("obj", "code"),
    [
        ({"a": object()}, "not-a-value"),
        ({"a": {1, 2}}, "not-a-value"),
        ({("a",): 1}, "not-a-value"),
        ({3: 1}, "key-not-a-word"),
        ({"a": float("nan")}, "not-finite"),
        ({"a": 2**70}, "number-too-large"),
        ({"a": -(10**5000)}, "number-too-large"),
    ],
)
def test_a_python_value_that_yaml_cannot_hold_is_refused(obj, code):
    with pytest.raises((InputError, RecipeError)) as caught:
        from_python(obj)
    assert caught.value.code == code


def test_half_an_expression_is_quoted_so_that_its_comma_is_no_fault():
    assert to_python(from_python(["f(a", "b)"])) == ["f(a", "b)"]


def test_a_number_is_one_to_readers_of_yaml_1_1_too():
    page = {"lr": 1e-05, "eps": 1e-16, "far": -1e300}
    assert yaml.safe_load(dump(page)) == page


def test_a_python_list_inside_itself_is_too_deep():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(InputError) as caught:
        from_python({"a": loop})
    assert caught.value.code == "too-deep"


def test_a_recipe_is_written_as_people_write_it():
    body = LLAMA.removeprefix("# LLaMA\n").replace("1.0e-3", "0.001")
    assert dump(read_text(LLAMA, "llama.yaml")) == body


def test_marks_take_no_part_in_equality():
    assert read_text("a: {b: 1}", "x") == read_text("a:\n  b:   1", "y")
    assert read_value("1") != read_value("2")
    assert isinstance(read_value("{}"), Mapping)
    assert isinstance(read_value("x"), Scalar)
