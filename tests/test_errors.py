from __future__ import annotations

import errno
import json
import sys
import unicodedata
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import builder
from builder import __main__ as program
from builder.errors import (
    Finding,
    InputError,
    Mark,
    RecipeError,
    Source,
    Stopped,
    raise_all,
    render,
    show,
)
from builder.read import read_file


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
    assert set(rows[1]) == {"file", "line", "column", "code", "message", "help", "severity"}
    assert [rows[1][key] for key in ("file", "line", "column")] == [paths[2], 2, 1]
    assert program.main(["validate", *paths[:2]]) == 0
