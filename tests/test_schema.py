"""The schema that editors use agrees with the checker, as far as one place of a page can tell."""

from __future__ import annotations

import copy
import json
import os
import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from builder import __main__ as program
from builder import load_recipe
from builder.errors import RecipeError
from builder.expand import STRUCTURE
from builder.expressions import ExpressionError, parse
from builder.index import load_index
from builder.laws.strategies import pages
from builder.read import read_file, read_value, to_python
from builder.recipe import ALONE
from builder.resolve import PAGE
from builder.schema import EXPRESSIONS, HOVER, recipe_schema
from builder.verbs.schema import schema_text
from tests.commands import python
from tests.language_server import LanguageServer
from tests.shipped import RECIPES

ROOT = Path(__file__).parent.parent
FAULTS = sorted((ROOT / "tests/faults").glob("*.yaml"))

# What the checker alone can refuse, by code; where the schema mostly can too, the message besides.
UNKNOWABLE = dict(
    re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", (ROOT / "docs/editor.md").read_text(), re.MULTILINE)
)
PARTLY = {
    "bad-expression": "",
    "bad-value": "nothing at all is not an expert",
    "missing-option": "dims",
    "not-a-list": "not a list to look up",
    "not-whole": " = ",
    "too-small": " = ",
    "unknown-word": "is not a block",
}


@cache
def validator():
    return Draft7Validator(recipe_schema(load_index()))


def fits(page):
    return validator().is_valid(page)


def faults(source):
    """What the checker finds: code and message of each error."""
    try:
        found = load_recipe(source).warnings
    except RecipeError as error:
        found = error.findings
    return {(f.code, f.message) for f in found if f.severity == "error" or f.code == "unused-block"}


def unknowable(code, message):
    """Whether the schema cannot know it; that nothing uses a block is a warning."""
    return code == "unused-block" or (code in UNKNOWABLE and PARTLY.get(code, "") in message)


def lively(page):
    """The page without the blocks that nothing uses; the checker does not look at their values."""
    page = copy.deepcopy(page)
    while found := faults(page):
        unused = " ".join(message for _, message in found)
        kept = {name: node for name, node in page["blocks"].items() if f"'{name}'" not in unused}
        assert kept.keys() < page["blocks"].keys(), found
        page["blocks"] = kept
    return page


# What a mutation writes: words of every kind in every place, and nodes that are nearly right.
JUNK = """
null, true, false, -1, 0, 1, 2.5, 1000000, none, nonsense, 3 +, 2 * dim, a b, "", it, skip(1)
residual, scale, lerp, glu, rope, silu, softmax, truncate, attention*2, glu*, [], {}, [1, 2], [[]]
[rmsnorm], {rmsnorm: {}}, {rope: {}}, {glu: 1}, {glu: {}, rmsnorm: {}}, {glu: {}, nonsense: 1}
{scale: 0.5}, {scale: {}}, {scale: {factor: 2}}, {scale: [1]}, {like: first}, {like: 3}
{causal: {}}, {sliding_window: 2}, {sliding_window: {}}, {sliding_window: 2, causal: {}}
{residual: none}, {residual: null}, {parallel: glu}, {parallel: []}, {parallel: [glu, rmsnorm]}
{repeat: 2}, {repeat: 1, block: glu}, {repeat: 1, block: glu, pattern: [glu]}, {repeat: x}
{repeat: 1, block: glu, share: []}, {layers: 2, pattern: [glu*2]}, {layers: 2, pattern: []}
{layers: 2}, {layers: -1, pattern: [glu]}, {layers: 3, pattern: [glu*2], remainder: cut}
{lerp: glu, initial: 0.1}, {lerp: glu, initials: 1}, {add: skip}, {mix: [skip]}, {mix: skip(1)}
{glu: {}, as: skip}, {glu: {}, as: 3}, {glu: {}, as: min}, {as: skip}
"""
KEYS = "nonsense bias as dim share block pattern set glu none layers initial rope extends train a-b"


def places(value, path=()):
    """Every place of a page, as the keys and numbers that lead there."""
    yield path
    if isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, step))


def mutated(page, random):
    """A copy of a page with one thing wrong, or perhaps not."""
    page = copy.deepcopy(page)
    *path, step = random.choice([path for path in places(page) if path])
    holder = page
    for outer in path:
        holder = holder[outer]
    change = random.choice(["replace", "replace", "replace", "drop", "add", "rename"])
    junk = copy.deepcopy(random.choice(nodes(JUNK)))
    if change == "replace":
        holder[step] = junk
    elif change == "drop":
        del holder[step]
    elif isinstance(holder, list):
        holder.insert(step, junk)
    elif change == "add":
        holder[random.choice(KEYS.split())] = junk
    else:
        holder[random.choice([*KEYS.split(), f"{step}s"])] = holder.pop(step)
    return page


def shown(page):
    return json.dumps(page)


def test_the_schema_is_a_schema():
    Draft7Validator.check_schema(recipe_schema(load_index()))


@pytest.mark.slow
@given(page=pages())
def test_every_drawn_page_fits(page):
    assert fits(page), shown(page)


@pytest.mark.slow
@given(page=pages().map(lively), random=st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_schema_and_checker_agree_on_mutated_pages(page, random):
    for _ in range(20):
        mutant = mutated(page, random)
        found = faults(mutant)
        if not fits(mutant):
            assert found, f"the schema alone refuses {shown(mutant)}"
        else:
            known = {fault for fault in found if not unknowable(*fault)}
            assert not known, f"the checker alone refuses {shown(mutant)}: {known}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_fits(path):
    assert fits(to_python(read_file(path)))


@pytest.mark.parametrize("path", FAULTS, ids=lambda path: path.stem)
def test_a_faulty_recipe_is_refused_or_its_code_is_listed(path):
    try:
        page = to_python(read_file(path))
    except RecipeError:
        return  # it is no page
    if fits(page):
        assert {fault for fault in faults(path) if not unknowable(*fault)} == set()


def test_no_code_is_listed_that_the_schema_knows():
    listed = [path for path in FAULTS if path.stem in UNKNOWABLE]
    assert {path.stem for path in listed if not fits(to_python(read_file(path)))} <= set(PARTLY)
    assert set(PARTLY) <= set(UNKNOWABLE)


LEGAL = """
glu, none, [glu, [none]], {glu: {}}, {glu: {ff: 3}}, {glu: {ff: 2 * dim}}, {glu: {act: {silu: {}}}}
{glu: {ff: "ceil_to(dim / 3, 4)"}}, {glu: {ff: -(1 - layers) + 1}}, {attention: {position: none}}
{attention: {mask: {sliding_window: 3}}}, {attention: {mask: {sliding_window: {window: 3}}}}
{attention: {qk_norm: {rmsnorm: {eps: 1e-5}}}}, {attention: {softcap: none}}
{scale: 0.5}, {scale: {factor: 1 / dim}}, {linear: {out: 8, bias: true}}, {moe: {experts: 2}}
{moe: {experts: 2, expert: [rmsnorm, {mlp: {ff: 3}}], router: {softmax: {top_k: 1}}}}
{residual: glu}, {residual: [rmsnorm, glu]}, {residual: none}, {parallel: [glu, [rmsnorm, glu]]}
{repeat: 2, block: glu}, {repeat: 2, pattern: ["b*2", glu, {glu: {}}], share: b}
{repeat: 2, pattern: ["b * (1 + 1)"], share: [b]}, {repeat: 1 + 1, block: glu, share: true}
{layers: 4, pattern: [glu, b]}, {layers: 3, pattern: [glu, b], remainder: truncate}
{like: b}, {like: b, set: {glu.ff: 3, glu: [it, rmsnorm]}}, {like: b, as: skip}
{lerp: glu}, {lerp: [rmsnorm, glu], initial: 0.1, as: skip}
[{glu: {}, as: skip}, {add: skip}, {mix: skip}, {add: skip(0)}, {add: {source: skip}}]
[{attention: {}, as: a}, {attention: {kv_from: a}}, {attention: {value_from: a(0)}}]
"""
ILLEGAL = """
null, 3, true, [], {}, "", it, a b, glu*2, residual, parallel, lerp, scale, {glu: null}
{glu: 3}, {glu: [glu]}, {glu: {dim: 8}}, {glu: {nonsense: 3}}, {glu: {ff: 0}}, {glu: {ff: [3]}}
{glu: {ff: 3 $ 4}}, {glu: {ff: 2.5}}, {glu: {ff: true}}, {glu: {bias: 1}}, {glu: {bias: none}}
{glu: {act: rope}}, {glu: {act: none}}, {glu: {act: {silu: 3}}}, {glu: {act: [silu]}}
{attention: {mask: {sliding_window: 3, causal: {}}}}, {attention: {mask: {}}}
{attention: {mask: sliding_window}}, {attention: {mask: {sliding_window: {}}}}
{attention: {position: {rope: {head_dim: 4}}}}, {attention: {position: {rope: {pairs: both}}}}
{attention: {position: {rope: {}, as: a}}}, {attention: {softcap: {}}}, {attention: {qk_norm: glu}}
{scale: {}}, {scale: [3]}, {scale: {half: 0.5}}, {linear: 0.5}, {moe: {experts: 2, expert: 3}}
{moe: {experts: 2, router: causal}}, {residual: null}, {residual: glu, rmsnorm: {}}
{residual: glu, block: glu}, {residual: glu, as: 3}, {residual: glu, as: min}, {as: skip}
{parallel: glu}, {parallel: []}, {parallel: {glu: {}}}, {repeat: 2}, {repeat: -1, block: glu}
{repeat: 2, block: glu, pattern: [glu]}, {repeat: 2, pattern: glu}, {repeat: 2, pattern: []}
{repeat: 2, pattern: ["b*"]}, {repeat: 2, pattern: ["b*(1,"]}, {repeat: 20000, block: glu}
{repeat: 2, block: glu, share: []}, {repeat: 2, block: glu, share: 3}, {repeat: [2], block: glu}
{layers: 2}, {layers: 2, block: glu}, {layers: 2, pattern: [glu], remainder: cut}
{like: 3}, {like: glu}, {like: b, set: [glu]}, {like: b, block: glu}, {b: {}}, {nonsense: 3}
{lerp: null}, {lerp: glu, initials: 3}, {lerp: glu, dim: 8}, {lerp: glu, initial: x y}
{add: 3}, {add: [b]}, {add: 3 + 4}, {mix: [b]}, {mix: b(0)}, {attention: {kv_from: {}}}
"""


def nodes(text):
    lines = text.strip().split("\n")
    return [item for line in lines for item in to_python(read_value(f"[{line}]"))]


@pytest.mark.parametrize(
    ("node", "legal"),
    [(node, True) for node in nodes(LEGAL)] + [(node, False) for node in nodes(ILLEGAL)],
    ids=str,
)
def test_schema_and_checker_agree_on_a_node(node, legal):
    dims = {"dim": 8, "heads": 2, "ff": 12, "vocab": 11, "context": 16}
    model = ["token_embedding", "attention", "b", node, "glu", "lm_head"]
    page = {"recipe": 1, "dims": dims, "blocks": {"b": "glu"}, "model": model}
    assert fits(page) == legal
    assert (not faults(page)) == legal, faults(page)


PARTS = [
    ("dims", {"dim": 8, "ff": [4, "2 * dim"], "vocab": "10 + 1", "context": 16}, True),
    ("dims", {"dim": 8, "ff": 4, "vocab": 11}, False),
    ("dims", {"dim": 8, "ff": 4, "vocab": [11], "context": 16}, False),
    ("dims", {"dim": 8, "ff": 4, "vocab": 0, "context": 16}, False),
    ("dims", {"dim": 8, "ff": 4, "vocab": 11, "context": 16, "layers": 4}, False),
    ("dims", {"dim": 8, "ff": [4, [5]], "vocab": 11, "context": 16}, False),
    ("dims", {"dim": 8, "ff": [4, None], "vocab": 11, "context": 16}, False),
    ("dims", [8], False),
    ("blocks", {}, True),
    ("blocks", ["glu"], False),
    ("blocks", {"glu": "mlp"}, False),
    ("blocks", {"repeat": "mlp"}, False),
    ("blocks", {"a-b": "mlp"}, False),
    ("model", ["token_embedding", {"repeat": 1, "block": {"glu": {}}}, {"lm_head": {}}], True),
    ("model", [{"token_embedding": {"dim": 8, "vocab": 11}}, "glu", "lm_head"], True),
    ("model", None, False),
    ("recipe", 2, False),
    ("recipe", True, False),
    ("name", "a", True),
    ("name", 3, False),
    ("tokenizer", "bytes", True),
    ("tokenizer", {"bpe": {"vocab": 11}}, True),
    ("tokenizer", "file", False),
    ("tokenizer", {"file": "tokenizer.json"}, True),
    ("tokenizer", "none", True),
    ("data", {"text": {"path": "a.txt", "key": "body"}}, True),
    ("data", "a.txt", False),
    ("train", {"steps": 3, "lr": "1 / dim", "clip": "none", "optimizer": {"adamw": {}}}, True),
    ("train", {"optimizer": "cosine"}, False),
    ("train", {"dtype": "fp8"}, False),
    ("train", {"steps": "many times"}, False),
    ("train", 3, False),
    ("training", {}, False),
    ("set", {}, False),
]


@pytest.mark.parametrize(("part", "value", "legal"), PARTS, ids=str)
def test_schema_and_checker_agree_on_a_part_of_the_page(part, value, legal):
    dims = {"dim": 8, "ff": 12, "vocab": 11, "context": 16}
    page = {"recipe": 1, "dims": dims, "model": ["token_embedding", "glu", "lm_head"], part: value}
    assert fits(page) == legal
    assert (not {fault for fault in faults(page) if fault[0] != "unused-block"}) == legal


VARIANTS = [
    ("{recipe: 1, extends: base.yaml}", True),
    ("{recipe: 1, extends: base.yaml, name: other, set: {}}", True),
    ("{recipe: 1, extends: base.yaml, set: {dims.ff: 2 * dim, blocks.decoder: [it, glu]}}", True),
    ("{extends: base.yaml}", False),
    ("{recipe: 2, extends: base.yaml}", False),
    ("{recipe: true, extends: base.yaml}", False),
    ("{recipe: 1, extends: base.yaml, dims: {ff: 8}}", False),
    ("{recipe: 1, extends: base.yaml, set: [dims.ff]}", False),
    ("{recipe: 1, extends: base.yaml, set: {dims.ff: null}}", False),
    ("{recipe: 1, extends: [base.yaml]}", False),
    ("{recipe: 1, extends: base.yaml, name: 3}", False),
]


@pytest.mark.parametrize(("text", "legal"), VARIANTS)
def test_schema_and_checker_agree_on_a_page_that_extends(text, legal, tmp_path):
    (tmp_path / "base.yaml").write_text((ROOT / "recipes/llama.yaml").read_text())
    page = tmp_path / "page.yaml"
    page.write_text(text)
    assert fits(to_python(read_file(page))) == legal
    assert (not faults(page)) == legal


@given(text=st.text("ab1.+-*/(), e", max_size=12))
@settings(max_examples=400)
def test_no_expression_is_refused(text):
    try:
        parse(text)
    except ExpressionError:
        return
    assert re.search(EXPRESSIONS["pattern"], text)


def test_every_word_of_the_language_has_its_hover():
    beside = {name for names in STRUCTURE.values() for name in names}
    assert set(HOVER) == {*PAGE, *ALONE, *STRUCTURE, *beside, "none", "as"}


def test_a_plug_in_s_words_are_in_its_schema(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from blocks.registry import register\n"
        '@register("twirl", kind="map")\n'
        "class Twirl:\n"
        '    """A twirl."""\n'
        "    def __init__(self, turns: int, /) -> None: ...\n"
    )
    schema = json.loads(schema_text([plugin]))
    assert schema["definitions"]["node.twirl"]["description"] == "A twirl."
    page = to_python(read_file(ROOT / "recipes/llama.yaml"))
    for under, legal in [(3, True), ({"turns": "2 * dim"}, True), ({}, False), ([3], False)]:
        twirled = page | {"model": ["token_embedding", {"twirl": under}, "lm_head"]}
        assert Draft7Validator(schema).is_valid(twirled) == legal
        assert not fits(twirled)


# The verbs


def test_schema_writes_and_rewrites_its_own_file_and_no_other(tmp_path, capsys):
    out = tmp_path / "mine.json"
    assert program.main(["schema", str(out)]) == 0
    assert "$schema=mine.json" in capsys.readouterr().out
    text = out.read_text()
    out.write_text(text.replace("rmsnorm", "old"))
    assert program.main(["schema", str(out)]) == 0
    assert out.read_text() == text
    assert program.main(["schema"]) == 0
    assert "\n".join(capsys.readouterr().out.splitlines()[2:]) + "\n" == text
    for other in ("recipe: 1", "[]", "{}"):
        out.write_text(other)
        assert program.main(["schema", str(out)]) == 2
        assert out.read_text() == other
    assert program.main(["schema", str(tmp_path / "no/mine.json")]) == 2


def test_schema_does_not_load_torch(tmp_path):
    code = "import sys; from builder.__main__ import main; main(['schema', 'mine.json']);"
    done = python(tmp_path, "-c", code + "sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_init_writes_the_schema_that_its_recipe_names(tmp_path):
    page, schema = tmp_path / "mine.yaml", tmp_path / "recipe.schema.json"
    assert program.main(["init", str(page)]) == 0
    assert page.read_text().splitlines()[0] == f"# yaml-language-server: $schema={schema.name}"
    assert schema.read_text() == schema_text()
    assert fits(to_python(read_file(page)))
    assert not load_recipe(page).warnings
    schema.write_text("the user's own")
    assert program.main(["init", str(tmp_path / "other.yaml")]) == 0
    assert schema.read_text() == "the user's own"


# A real editor's server

HEAD = """\
# A model.
# yaml-language-server: $schema=recipe.schema.json
recipe: 1
dims: {dim: 8, heads: 2, ff: 12, vocab: 11, context: 16}
model:
  - token_embedding
  - attention:
      """


@pytest.fixture
def server(tmp_path):
    script = os.environ.get("RECIPE_YAML_LS")
    if not script:
        pytest.skip("set RECIPE_YAML_LS to yaml-language-server's script: see docs/editor.md")
    (tmp_path / "recipe.schema.json").write_text(schema_text())
    with LanguageServer(Path(script), tmp_path) as server:
        yield server


def page_of(folder, rest):
    """A page that ends as given; and the place of its cursor, a ``|``."""
    text = HEAD + rest
    before = text.partition("|")[0].split("\n")
    page = folder / "page.yaml"
    page.write_text(text.replace("|", "") + "\n  - lm_head\n")
    return page, (len(before) - 1, len(before[-1]))


def test_an_editor_completes_options_fillers_and_nodes(server, tmp_path):
    page, place = page_of(tmp_path, "|")
    server.open(page)
    offered = server.completions(*place)
    wanted = {p.name for p in load_index().node("attention").parameters} - {"dim"}
    assert set(offered) == wanted
    assert "`<mask>`, by default `causal`" in offered["mask"]["documentation"]["value"]
    page, place = page_of(tmp_path, "bias: true\n  - {|}")
    server.open(page)
    written = server.completions(*place)["attention"]["insertText"]
    assert "kv_heads" not in written  # nor any other option at its default


@pytest.mark.parametrize(
    ("rest", "offered"),
    [
        ("mask: |", {"causal", "sliding_window"}),
        ("mask:\n        |", {"causal", "sliding_window"}),
        ("position: |", {"rope", "alibi", "none"}),
        ("bias: |", {"true", "false"}),
        ("bias: true\n  - residual: |", {"rmsnorm", "glu", "none"}),
        ("bias: true\n  - |", {"rmsnorm", "residual", "lerp", "scale", "repeat a block"}),
        ("bias: true\n  - repeat: 2\n    |", {"block", "pattern", "share", "as"}),
    ],
)
def test_an_editor_offers_what_may_stand_at_a_place(server, tmp_path, rest, offered):
    page, place = page_of(tmp_path, rest)
    server.open(page)
    assert offered <= set(server.completions(*place))


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ("position: ro|pe", "arXiv:2104.09864"),
        ("position: {ro|pe: {theta: 500}}", "arXiv:2104.09864"),
        ("position: {rope: {th|eta: 500}}", "`float`, by default `10000.0`"),
        ("bias: true\n  - resi|dual: [glu]", "x + f(x)"),
    ],
)
def test_an_editor_explains_a_word(server, tmp_path, rest, told):
    page, place = page_of(tmp_path, rest)
    assert server.open(page) == []
    assert told in server.hover(*place)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("mask: |slidng_window", "this is no mask: causal, {sliding_window: ...}"),
        ("mask: {|slidng_window: 4}", "Property slidng_window is not allowed."),
        ("|postion: rope", "Property postion is not allowed."),
        ("heads: |-1", "Value is below the minimum of 1."),
        ("heads: |3 $ 4", "this is neither a number nor an expression"),
        ("bias: true\n  - |residual", "this is neither a block nor a word that stands alone"),
        ("bias: true\n  - |null", "Incorrect type. Expected one of string, object, array."),
        ("bias: true\n  - {repeat: 2, block: glu, |patern: 3}", "Property patern is not allowed."),
    ],
)
def test_an_editor_marks_a_fault_once_and_where_it_is(server, tmp_path, rest, message):
    page, (line, column) = page_of(tmp_path, rest)
    assert server.open(page) == [f"{line}:{column}: {message}"]
