from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import Finding, InputError, Mark, RecipeError, Source, raise_all, render, show


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
