from __future__ import annotations

import ast
import errno
import json
import os
import re
import sys
import unicodedata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import builder
from builder import __main__ as program
from builder import load_recipe
from builder.errors import (
    Finding,
    InputError,
    Mark,
    RecipeError,
    Source,
    Stopped,
    applied,
    merged,
    raise_all,
    ranges,
    render,
    show,
)
from builder.read import read_file
from tests.shipped import RECIPES

ROOT = Path(__file__).resolve().parent.parent
FAULTS = sorted(path.relative_to(ROOT) for path in ROOT.glob("tests/faults/*.yaml"))
FINDINGS = {"Finding", "report", "_report", "_fault", "_fail", "_tell", "_warning", "find", "stop"}
ERRORS = {
    "BuilderError",
    "DamagedError",
    "InputError",
    "NotExportable",
    "NumbersError",
    "ResourceError",
    "Stopped",
}
ELSEWHERE = {  # codes that no small faulty file can show, and the tests that do
    "file-too-large": "test_read.py",
    "too-many-nodes": "test_read.py",
}
COMPUTED = {"no-data"}  # codes that are put together in builder/training/train.py


def finding(line, column=1, width=1, *, severity="error", **more):
    source = Source("page.yaml", line)
    return Finding(
        "unknown-word", "'x' is no word", Mark(source, 1, column, width), severity=severity, **more
    )


def columns(text):
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def test_a_message_shows_the_place_the_line_the_notes_and_the_help():
    source = Source("recipes/page.yaml", "a: 1\n" * 8 + "  local: {mask: slidng_window}\n")
    mark = Mark(source, 9, 17, 13)
    shown = render(
        Finding(
            "unknown-word",
            "'slidng_window' is not a mask",
            mark,
            "did you mean 'sliding_window'?",
            ("in block 'local'",),
        )
    )
    assert shown == (
        "recipes/page.yaml:9:17: error[unknown-word]: 'slidng_window' is not a mask\n"
        "   9 |   local: {mask: slidng_window}\n"
        "     |                 ^^^^^^^^^^^^^\n"
        "   in block 'local'\n"
        "   help: did you mean 'sliding_window'?"
    )


# Every code


def raised(by, *globs):
    """The codes that the sources give to the functions of these names."""
    codes = set()
    for path in (path for pattern in globs for path in ROOT.glob(pattern)):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(name) | ast.Attribute(attr=name),
                    args=[ast.Constant(str(code)), *_],
                ) if name in by:
                    codes.add(code)
    return codes


def findings_of(source, overrides=()):
    """What is told of a page: errors, or warnings alone."""
    try:
        return list(load_recipe(source, overrides).warnings)
    except RecipeError as error:
        return error.findings


def test_every_code_of_a_recipe_has_a_fault_file():
    codes = raised(FINDINGS, "builder/*.py")
    assert codes == {path.stem for path in FAULTS} | set(ELSEWHERE)
    for code, test in ELSEWHERE.items():
        assert code in (ROOT / "tests" / test).read_text()


def test_every_code_has_its_line_in_the_docs():
    codes = raised(FINDINGS | ERRORS, "builder/**/*.py", "hf_bridge/**/*.py") | COMPUTED
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(codes), "one line each"


@pytest.mark.parametrize("path", FAULTS, ids=lambda path: path.stem)
def test_a_fault_is_told_at_its_place_word_for_word(monkeypatch, path):
    """``UPDATE_SNAPSHOTS=1`` writes what is told beside the fault: read it before you keep it."""
    monkeypatch.chdir(ROOT)
    line, column = re.match(r"# expect (\d+):(\d+)\n", path.read_text(errors="replace")).groups()
    (finding,) = findings_of(path)
    place = finding.mark
    assert (finding.code, f"{place.line}:{place.column}") == (path.stem, f"{line}:{column}")
    snapshot = path.with_suffix(".txt")
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        snapshot.write_text(render(finding) + "\n")
    assert render(finding) + "\n" == snapshot.read_text()


def test_every_snapshot_has_its_fault():
    told = {path.stem for path in ROOT.glob("tests/faults/*.txt")}
    assert told == {path.stem for path in FAULTS}


def repairs(finding):
    """The texts that a help offers in place of what the carets mark."""
    help = finding.help
    numbers = re.findall(r"\w+=(\d+)(?= or| would do)", help)
    words = re.findall(r"did you mean '(.+?)'\?", help)
    written = re.findall(r"^write (\d+|true|false|\{[^.]*\}|\".*\")(?:$|,| or)", help)
    rounded = re.findall(r"((?:ceil|floor)\(.*?\)) is \d+", help)
    return numbers + words + written + rounded


def mended(finding, repair):
    """The text with the marked part replaced."""
    lines, mark = finding.mark.source.text.split("\n"), finding.mark
    line, start, stop = lines[mark.line - 1], mark.column - 1, mark.column - 1 + mark.width
    if line[start - 1 : start] == "{" and repair[:1] == "{":  # the help writes out the whole map
        start, stop = start - 1, stop + 1
    lines[mark.line - 1] = line[:start] + repair + line[stop:]
    return "\n".join(lines).replace("../../recipes", "recipes") + "\n"


def test_what_a_help_offers_is_accepted(monkeypatch):
    monkeypatch.chdir(ROOT)
    tried = set()
    for path in FAULTS:
        for finding in findings_of(path):
            for repair in repairs(finding):
                tried.add(path.stem)
                codes = [other.code for other in findings_of(mended(finding, repair))]
                assert finding.code not in codes, (path, repair)
    assert {"bad-value", "check-failed", "missing-space", "not-whole", "unknown-word"} <= tried
    assert len(tried) >= 12


@pytest.mark.parametrize("name", ["llama", "mistral", "gallery/unet", "gallery/shortcut_moe"])
def test_the_word_that_is_offered_for_a_misspelt_one_is_right(monkeypatch, name):
    monkeypatch.chdir(ROOT)
    text = Path(f"recipes/{name}.yaml").read_text()
    assert not findings_of(text)
    offered = 0
    for word in re.finditer(r"\b[a-z_]{5,}\b", text):
        if "#" in text[text.rfind("\n", 0, word.start()) + 1 : word.start()]:
            continue
        wrong = text[: word.start() + 2] + text[word.start() + 3 :]
        for finding in findings_of(wrong):
            for repair in repairs(finding):
                offered += 1
                assert not findings_of(mended(finding, repair)), (word[0], repair)
                break
            break
    assert offered > 10


def test_a_misspelt_dim_is_named_where_it_is_missed():
    finding = only(PAGE.replace("heads: 4", "headz: 4").replace("heads / 2", "2"))
    assert finding.message == "'attention' is not given its heads, and dims has none"
    assert finding.notes[0] == "dims has 'headz', at <text>:2:17"


# Where numbers come from


PAGE = """\
recipe: 1
dims: {dim: 12, heads: 4, ff: 24, vocab: 11, context: 16}
blocks:
  full: [{attention: {kv_heads: heads / 2}}, glu]
  local: {like: full, set: {attention.mask: {sliding_window: 4}}}
model: [token_embedding, {repeat: 2, pattern: ["local*3", full]}, lm_head]
"""


def only(source, *overrides):
    (finding,) = findings_of(source, overrides)
    return finding


def told(source, *overrides):
    finding = only(source, *overrides)
    return str(finding.mark), finding.mark.text, list(finding.notes)


def test_the_caret_stands_under_the_number_that_came_last():
    place, text, notes = told(PAGE, "dims.heads=3")
    assert (place, text) == ("<command line>:1:12", "3")
    assert notes == [
        "kv_heads = heads / 2 = 1.5 is set at <text>:4:33",
        "heads is set here, in place of 4 at <text>:2:24",
        "read by 'attention' at <text>:4:11",
        "in blocks 'local' and 'full', used by layers 0-7",
        "applied to <text>",
    ]
    place, text, notes = told(PAGE, "blocks.full.attention.kv_heads=3")
    assert (place, text) == ("<command line>:1:32", "3")
    assert notes == [
        "heads=4 is set at <text>:2:24",
        "kv_heads is set here, in place of heads / 2 at <text>:4:33",
        "read by 'attention' at <text>:4:11",
        "in blocks 'local' and 'full', used by layers 0-7",
        "applied to <text>",
    ]


def test_a_number_in_the_leaf_is_suspected_before_a_dim():
    assert told(PAGE.replace("heads / 2", "3"))[:2] == ("<text>:4:33", "3")


def test_a_dim_is_suspected_where_the_leaf_says_nothing():
    page = PAGE.replace("{attention: {kv_heads: heads / 2}}", "attention")
    place, text, notes = told(page.replace("heads: 4", "heads: 5"))
    assert (place, text) == ("<text>:2:24", "5")
    assert notes[0] == "dim=12 is the width that reaches 'attention'"
    assert notes[1] == "read by 'attention' at <text>:4:10"


def test_a_default_says_which_file_it_stands_in():
    finding = only(PAGE.replace("kv_heads: heads / 2", "position: rope"), "dims.heads=12")
    assert finding.notes[0].startswith(
        "head_dim = dim / heads = 1 is the default of 'attention' (bl"
    )
    assert finding.message.endswith("head_dim=1 * fraction=1 has no rotary pair")
    assert finding.help == "heads=6 would do"


def test_a_base_says_who_extends_it_and_a_setting_what_it_replaced(tmp_path):
    (tmp_path / "base.yaml").write_text(PAGE)
    child = tmp_path / "child.yaml"
    child.write_text("recipe: 1\nextends: base.yaml\nset: {dims.heads: 3}\n")
    place, _, notes = told(child)
    assert place == f"{child}:3:19"
    assert f"heads is set here, in place of 4 at {tmp_path}/base.yaml:2:24" in notes
    child.write_text("recipe: 1\nextends: base.yaml\nset: {dims.ff: 7}\n")
    (tmp_path / "base.yaml").write_text(PAGE.replace("glu]", "{glu: {biass: true}}]"))
    finding = only(child)
    assert finding.notes[-1] == f"which {child} extends"


def test_a_fault_behind_an_expression_names_the_dims_that_it_reads():
    finding = only(PAGE.replace("ff: 24", "ff: wide / 5, wide: 12"))
    assert finding.message == "dim 'ff' is wide / 5 = 2.4, which is no size"
    finding = only(PAGE.replace("glu]", "{glu: {ff: hidden / 5}}]").replace("ff: 24", "hidden: 12"))
    assert finding.message == "ff = hidden / 5 = 2.4 is not a whole number"
    assert finding.notes[0] == "hidden=12 is set at <text>:2:35"
    assert finding.help == "ceil(hidden / 5) is 3, floor(hidden / 5) is 2"


def test_a_fault_of_each_layer_is_told_once_with_its_layers():
    finding = only(PAGE.replace("sliding_window", "slidng_window"))
    assert finding.notes == ("in block 'local', used by layers 0-2, 4-6",)


def test_a_list_that_is_too_short_is_told_once():
    finding = only(PAGE.replace("ff: 24", "ff: [24, 12]"))
    assert finding.message == "dim 'ff' holds 2 numbers, and the model has 8 layers"
    assert finding.help == "write 8 numbers, one a layer"
    assert finding.notes[-1] == "in blocks 'local' and 'full', used by layers 2-7"


@given(st.sets(st.integers(0, 40)))
def test_ranges_say_what_they_hold(numbers):
    held = []
    for part in filter(None, ranges(sorted(numbers)).split(", ")):
        first, _, last = part.partition("-")
        held += range(int(first), int(last or first) + 1)
    assert held == sorted(numbers)


def test_merging_keeps_every_layer_and_bounds_the_notes():
    found = [finding("a", notes=(f"note {n}",), layers=(n % 3,)) for n in range(9)]
    (whole,) = merged([*found, found[0]])
    assert whole.notes == (
        *(f"note {n}" for n in range(4)),
        "and 5 more like these",
        "in layers 0-2",
    )
    assert merged([found[0], finding("b")]) == [found[0], finding("b")]


def test_only_a_place_in_another_file_says_which_recipe_is_meant():
    assert applied([finding("a")], "page.yaml") == [finding("a")]
    assert applied([finding("a")], "child.yaml")[0].notes == ("which child.yaml extends",)


def test_a_path_is_marked_at_the_word_that_finds_nothing():
    for path, column, text in (
        ("blocks.full.atention.bias", 13, "atention"),
        ("blocks.full.attention.biass", 23, "biass"),
        (".full", 1, ".full"),
        ("blokcs.full", 1, "blokcs"),
    ):
        place, marked, _ = told(PAGE, f"{path}=1")
        assert (place, marked) == (f"<command line>:1:{column}", text)


# Lints


def warned(*model, **dims):
    page = {
        "recipe": 1,
        "dims": {"dim": 8, "heads": 2, "ff": 12, "vocab": 11, "context": 16} | dims,
        "model": ["token_embedding", *model, "lm_head"],
    }
    return [w.code for w in load_recipe(page).warnings if w.code not in ("unread-dim",)]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_no_recipe_of_ours_is_warned_of(path):
    assert not load_recipe(path).warnings


@pytest.mark.parametrize(
    ("model", "codes"),
    [
        ([{"residual": ["rmsnorm", "glu"]}], []),
        ([{"residual": ["rmsnorm", {"scale": 2.0}]}], ["idle-branch"]),
        ([{"residual": {"parallel": ["rmsnorm", "attention"]}}], []),
        ([{"residual": {"residual": "glu"}}], []),
        ([{"lerp": "rmsnorm"}, "glu"], ["idle-branch"]),
        ([{"glu": {}, "as": "s"}, {"residual": {"add": "s"}}], []),
        ([{"repeat": 3, "block": {"residual": "rmsnorm"}}, "glu"], ["idle-branch"]),
        (["layernorm", {"residual": ["rmsnorm", "glu"]}], []),
        ([{"residual": "glu"}, "rmsnorm", {"residual": "glu"}, "rmsnorm"], []),
        (["glu", "rmsnorm", "rmsnorm", "layernorm"], ["double-norm", "double-norm"]),
        ([{"residual": ["glu", "rmsnorm", "rmsnorm"]}], ["double-norm"]),
        ([{"repeat": 2, "block": ["rmsnorm", "glu", "rmsnorm"]}], ["double-norm"]),
        (["glu", {"rmsnorm": {}, "as": "s"}, "rmsnorm", {"add": "s"}], []),
        ([{"attention": {"mask": {"sliding_window": 16}}}], []),
        ([{"attention": {"mask": {"sliding_window": 17}}}], ["wide-window"]),
    ],
)
def test_a_lint_tells_what_is_probably_not_meant_and_nothing_else(model, codes):
    assert warned(*model) == codes


def test_a_window_is_measured_against_the_context_in_every_layer():
    window = {"attention": {"mask": {"sliding_window": "8 * (layer + 1)"}}}
    (warning,) = findings_of(
        {
            "recipe": 1,
            "dims": {"dim": 8, "heads": 2, "vocab": 11, "context": 16},
            "model": ["token_embedding", {"repeat": 3, "block": window}, "lm_head"],
        }
    )
    assert warning.message == "a sliding_window of 24 is wider than context=16"
    assert warning.layers == (2,)


# How it is shown


@settings(deadline=None)
@given(before=st.text("ab\té日́ "), fault=st.text("x語", min_size=1), after=st.text("ab\t日 "))
def test_the_carets_stand_under_the_fault(before, fault, after):
    _, line, carets = render(finding(f"{before}{fault}{after}", len(before) + 1, len(fault))).split(
        "\n"
    )
    start = carets.index("^")
    assert columns(line[: line.index(fault)]) == start
    assert carets.count("^") == columns(fault)


@settings(deadline=None)
@given(start=st.integers(0, 500), width=st.integers(1, 300))
def test_a_long_line_is_cut_round_the_caret(start, width):
    text = "".join(chr(ord("a") + i % 26) for i in range(500))
    _, line, carets = render(finding(text, start + 1, width)).split("\n")
    assert len(line) <= 110
    at = carets.index("^")
    assert len(carets) <= len(line) + 1
    if start < 500:
        assert line[at] == text[start]


def test_what_a_terminal_would_obey_is_shown_as_a_dot():
    assert "\x1b" not in render(finding("a: \x1b[31m \u202e", 4))


def test_a_place_past_the_text_shows_no_line():
    assert render(finding("", 1)) == "page.yaml:1:1: error[unknown-word]: 'x' is no word"


def test_colour_comes_only_when_asked():
    assert "\x1b" not in render(finding("abc", help="write y"))
    assert "\x1b[1;31merror[unknown-word]\x1b[0m" in render(
        finding("abc", help="write y"), colour=True
    )


def test_findings_are_sorted_by_place_and_twenty_are_shown():
    source = Source("page.yaml", "a\n" * 30)
    error = RecipeError([Finding("x", f"fault {n}", Mark(source, n, 1)) for n in range(30, 0, -1)])
    assert [f.mark.line for f in error.findings] == list(range(1, 31))
    assert "fault 20\n" in str(error)
    assert "fault 21\n" not in str(error)
    assert str(error).endswith("... and 10 more")


def test_errors_are_shown_before_warnings_if_there_are_too_many():
    source = Source("page.yaml", "a\n" * 40)
    warnings = [Finding("w", "w", Mark(source, n, 1), severity="warning") for n in range(1, 31)]
    shown = show(RecipeError([*warnings, Finding("x", "fault", Mark(source, 40, 1))]))
    assert "error[x]: fault" in shown
    assert shown.count("warning[w]") == 19


def test_warnings_alone_raise_nothing():
    raise_all([])
    raise_all([finding("a", severity="warning")])
    with pytest.raises(RecipeError) as caught:
        raise_all([finding("a"), finding("a", severity="warning")])
    assert len(caught.value.findings) == 2
    assert caught.value.code == "unknown-word"


def test_an_error_without_a_place_shows_its_help():
    error = InputError("file-exists", "'a.yaml' exists", "choose another name")
    assert show(error) == "error[file-exists]: 'a.yaml' exists\n   help: choose another name"


def verb(monkeypatch, run):
    """A verb of this moment, that does as it is told."""
    module = ModuleType("moment")
    module.__doc__, module.run = "A moment.", run
    module.configure = lambda parser: parser.add_argument("--flag")
    monkeypatch.setitem(sys.modules, "moment", module)
    monkeypatch.setattr(program, "verb_module", lambda name: "moment")


def raising(error):
    def run(args):
        raise error

    return run


class OutOfMemoryError(RuntimeError):
    """As torch calls its own."""


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (InputError("no-prompt", "no prompt"), 2, "error[no-prompt]: no prompt"),
        (RecipeError([finding("a: x", 4)]), 2, "page.yaml:1:4: error[unknown-word]"),
        (Stopped("stopped", "stopped at step 3"), 75, "error[stopped]"),
        (MemoryError(), 3, "error[out-of-memory]: memory ran out"),
        (OutOfMemoryError("tried to allocate"), 3, "error[out-of-memory]: tried to allocate"),
        (OSError(errno.ENOSPC, "No space left"), 3, "error[disk-full]: No space left"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_expected_error_is_told_without_a_traceback(monkeypatch, capsys, error, code, told):
    verb(monkeypatch, raising(error))
    assert program.main(["moment"]) == code
    shown = capsys.readouterr().err
    assert told in shown
    assert "Traceback" not in shown


def test_our_own_mistake_shows_its_traceback(monkeypatch, capsys):
    verb(monkeypatch, raising(RuntimeError("oh")))
    assert program.main(["moment"]) == 70
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "this is our fault" in shown


@pytest.mark.parametrize(("given", "code"), [(None, 0), (0, 0), (1, 1)])
def test_the_exit_code_is_the_verbs_own(monkeypatch, given, code):
    verb(monkeypatch, lambda args: given)
    assert program.main(["moment"]) == code


@pytest.mark.parametrize(
    ("argv", "help"),
    [
        (["lst"], "did you mean 'list'?"),
        (["list", "--plugn", "x"], "did you mean '--plugin'?"),
        (["validate"], "usage: python -m builder validate"),
        (["list", "a", "b"], "usage: python -m builder list"),
    ],
)
def test_wrong_arguments_exit_2_with_a_help(capsys, argv, help):
    assert program.main(argv) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error[")
    assert help in shown


def test_help_names_every_verb_with_its_line(capsys):
    assert program.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "validate  " in shown
    assert "Check recipes and report everything" in shown
    assert program.main([]) == 2


def test_a_trailing_underscore_is_no_part_of_a_verb(monkeypatch, tmp_path):
    (tmp_path / "hf_bridge/verbs").mkdir(parents=True)
    (tmp_path / "hf_bridge/verbs/import_.py").write_text('"""Bring a model in."""')
    monkeypatch.setattr(program, "ROOT", tmp_path)
    assert program.verb_module("import") == "hf_bridge.verbs.import_"
    assert "import" in program.overview()


def test_init_writes_a_readable_recipe_once(tmp_path, capsys):
    out = tmp_path / "page.yaml"
    assert program.main(["init", str(out)]) == 0
    assert read_file(out)["name"].value == "llama"
    assert program.main(["init", str(out)]) == 2
    assert "error[file-exists]" in capsys.readouterr().err
    assert program.main(["init", str(tmp_path / "no/page.yaml")]) == 2


def test_validate_reports_every_file(monkeypatch, capsys, tmp_path):
    def load_recipe(source, overrides=(), plugins=()):
        page = read_file(source)
        return SimpleNamespace(
            page=page, warnings=[finding("a", severity="warning")] if "w" in page else []
        )

    monkeypatch.setattr(builder, "load_recipe", load_recipe, raising=False)
    pages = {"good": "a: 1", "warned": "w: 1", "bad": "a: 1\na: .inf"}
    for name, text in pages.items():
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name) for name in [*pages, "absent"]]
    assert program.main(["validate", *paths]) == 2
    shown = capsys.readouterr().out
    assert [f"{path}: ok" in shown for path in paths] == [True, True, False, False]
    assert program.main(["validate", *paths, "--format", "json"]) == 2
    rows = json.loads(capsys.readouterr().out)
    assert {row["code"] for row in rows} == {
        "unknown-word",
        "duplicate-key",
        "not-finite",
        "cannot-read",
    }
    told = {"code", "message", "notes", "help", "severity"}
    assert set(rows[1]) == set(rows[3]) == {"file", "line", "column"} | told
    assert rows[1]["notes"] == ["the first is at line 1, column 1"]
    assert [rows[1][key] for key in ("file", "line", "column")] == [paths[2], 2, 1]
    assert program.main(["validate", *paths[:2]]) == 0
