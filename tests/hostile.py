"""Pages that mean harm, or look as if: what each costs is measured in a process of its own.

``python -m tests.hostile`` tells, one JSON object a line, what each page was answered with, the
seconds of processor time that it took and how many plain pages PyYAML reads meanwhile, and the most
memory that the process has held so far.  What seems dear is asked again: a busy machine only adds.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import yaml

T = TypeVar("T")

PLAIN = "a: [1, two, {b: c}]\n" * 500
TIMES = 30  # as many plain pages PyYAML may read while one page is answered; the dearest takes 19
DIMS = "dim: 8, heads: 2, ff: 12, vocab: 11, context: 16"
FEW = "dim: 8, vocab: 11, context: 16"  # without heads and ff


def page(node: str, *blocks: str, dims: str = DIMS) -> str:
    held = "".join(f"  {block}\n" for block in blocks)
    head = f"recipe: 1\ndims: {{{dims}}}\n" + (f"blocks:\n{held}" if held else "")
    return f"{head}model: [token_embedding, {node}, lm_head]\n"


def chain(count: int, link: str, end: str = "glu") -> list[str]:
    """Blocks ``b0`` to the last, each made of the next, which ``link`` calls NEXT."""
    links = [f"b{i}: {link.replace('NEXT', f'b{i + 1}')}" for i in range(count)]
    return [*links, f"b{count}: {end}"]


def nested(count: int, before: str, after: str, inside: str = "glu") -> str:
    return before * count + inside + after * count


def many(count: int, text: str) -> str:
    return ", ".join(text.replace("N", str(i)) for i in range(count))


def unfolding() -> Iterator[tuple[str, str]]:
    """Small pages that stand for large models, or for none, by way of very much."""
    doubled = "[NEXT, NEXT]"
    yield "doubling", page("b0", *chain(40, doubled))
    yield "doubling just within the depth", page("b0", *chain(30, doubled))
    yield "doubling nothing", page("b0", *chain(30, doubled, "none"))
    yield "doubling unused", page("glu", *chain(30, doubled))
    yield "doubling branches", page("b0", *chain(30, "{parallel: [NEXT, NEXT]}"))
    yield "doubling copies", page("b0", *chain(30, "[{like: NEXT}, {like: NEXT}]", "none"))
    changed = "[{like: NEXT, set: {glu.all.ff: 4}}, NEXT]"
    yield "doubling changed copies", page("b0", *chain(30, changed))
    yield "doubling by it", page("b0", *chain(30, "{like: NEXT, set: {glu.all: [it, it]}}"))
    yield "a long chain of names", page("b0", *chain(4000, "NEXT"))
    yield "a long chain of copies", page("b0", *chain(900, "{like: NEXT, set: {glu.ff: 4}}"))
    yield "a long chain of branches", page("b0", *chain(2000, "{residual: NEXT}"))
    yield (
        "a long chain of deep branches",
        page("b0", *chain(60, nested(20, "{residual: ", "}", "NEXT"))),
    )
    yield "a long chain of experts", page("b0", *chain(300, "{moe: {experts: 2, expert: NEXT}}"))
    yield "experts in experts", page(nested(28, "{moe: {experts: 2, expert: ", "}}"))
    yield "an expert of itself", page("b", "b: {moe: {experts: 2, expert: b}}")
    yield "copies of each other", page("a", "a: {like: b}", "b: {like: a}")
    yield "repeats in repeats", page(nested(28, "{repeat: 100, block: ", "}"))
    yield "repeats of nothing", page(nested(28, "{repeat: 100, block: ", "}", "none"))
    yield "repeats of much", page("{repeat: 10000, block: [attention, glu]}")
    yield "repeats of one leaf", page("{repeat: 9000, block: glu}")
    yield "repeats that share", page("{repeat: 10000, block: [attention, glu], share: true}")
    yield (
        "repeats that share a name",
        page("{repeat: 9999, pattern: [b, glu], share: b}", "b: [glu, glu]"),
    )
    yield "a long pattern", page("{repeat: 10000, pattern: ['none*10000', 'none*10000']}")
    yield "many long patterns", page(f"{{repeat: 2, pattern: [{many(4000, 'none*10000')}]}}")
    yield "layers of a long pattern", page("{layers: 10000, pattern: ['glu*5000', 'none*5000']}")
    yield "joiners in joiners", page(nested(25, "{hyper: ", "}"))
    yield "many labels", page(many(1100, "{glu: {}, as: s}, {mix: s}"))
    yield "labels in repeats", page("{repeat: 4000, block: [{glu: {}, as: s}, {mix: s}]}")
    settings = ", ".join(f"glu.{i + 1}.ff: {i + 1}" for i in range(1500))
    yield "many settings", page(f"{{like: b, set: {{{settings}}}}}", f"b: [{many(1500, 'glu')}]")


def faulty() -> Iterator[tuple[str, str]]:
    """Pages with a great many faults."""
    yield "unknown words", page(many(9900, "unknN"))
    yield "unknown words, many known", page(many(4000, "cN"), *(f"b{i}: glu" for i in range(2500)))
    yield "unknown options", page(f"{{glu: {{{many(4900, 'unknN: 1')}}}}}")
    yield "unknown keys", "recipe: 1\n" + "".join(f"k{i}: v\n" for i in range(4900))
    yield "unread dims", page("glu", dims=f"{DIMS}, {many(4900, 'dN: 1')}")
    yield "faulty dims", page("{glu: {ff: zz}}", dims=f"{FEW}, {many(4500, 'dN: zzN')}")
    for name, leaf in {
        "a check": "{attention: {heads: layer + 1, kv_heads: 7}}",
        "a default": "{attention: {heads: layer + 1}}",
        "a division": "{glu: {ff: 1 / (layer - layer)}}",
        "a name": "{glu: {ff: hiden}}",
        "a list": "{glu: {ff: ff(layer)}}",
    }.items():
        dims = f"{FEW}, ff: [4, 4]"
        yield f"{name} in every layer", page(f"{{repeat: 9000, block: {leaf}}}", dims=dims)
    yield "duplicate keys", "a: 1\n" * 4000
    yield "split expressions", page(f"{{glu: {{{many(3000, 'oN: min(1, 2)')}}}}}")


def numbers() -> Iterator[tuple[str, str]]:
    """Numbers without end, and expressions that make them."""
    for text in (
        *("9" * 5000, "0x" + "f" * 5000, "0o" + "7" * 5000, "-" + "9" * 5000, "1e999", "-1e999"),
        *(
            ".nan",
            "nan",
            "inf",
            "-.inf",
            "1e308",
            "1e-999",
            "9" * 190 + " + 1",
            "'" + "9" * 5000 + "'",
        ),
        *("9223372036854775807", "-9223372036854775808", "-1", "0", "-0.0", "2**2**2**9999"),
        *('"ceil_to(1, 1e300)"', "exp(exp(exp(9)))", "1e399*1e399*1e399", "log(0)", "0/0"),
        *(
            "(" * 90 + "1" + ")" * 90,
            "- " * 90 + "1",
            "1+" * 90 + "1",
            "1+" * 99_999 + "1",
            "sqrt(-1)",
        ),
    ):
        for place in ("{glu: {ff: X}}", "{scale: X}", "{repeat: X, block: glu}"):
            yield f"{text[:16]} in {place}", page(place.replace("X", text))
    yield "negative dims", page("glu", dims="dim: -8, heads: -2, ff: -12, vocab: -11, context: -16")
    huge = "dim: 9223372036854775806, heads: 1, vocab: 9223372036854775807, context: 9e18"
    yield "huge dims", page("{attention: {position: rope}}", dims=huge)
    for name, link, count in (
        ("squares", "dM * dM", 60),
        ("sums", "dM + dM", 60),
        ("a chain", "dM", 3000),
        ("a chain of sums", "dM" + "+1" * 90, 400),
    ):
        dims = ", ".join(f"d{i}: {link.replace('M', str(i + 1))}" for i in range(count))
        dims = f"{FEW}, {dims}, d{count}: 2"
        yield f"{name} of dims", page("{glu: {ff: d0}}", dims=dims)
    yield "a long list", page("{repeat: 5000, block: glu}", dims=f"{FEW}, ff: [{many(5000, '4')}]")


def texts() -> Iterator[tuple[str, str]]:
    """Text that is no YAML, or very much of it."""
    for name, piece in (
        *(("colons", ":"), ("stars", "*"), ("anchors", "&a "), ("braces", "{"), ("tags", "!")),
        *(("brackets", "["), ("questions", "? "), ("dashes", "-\n"), ("returns", "a: 1\r")),
        *(("percents", "%"), ("quotes", "'\n"), ("pipes", "a: |\n x\n"), ("merges", "<<: {}\n")),
        *(("tabs", "\t"), ("newlines", "\n"), ("spaces", " "), ("comments", "#\n")),
    ):
        yield f"a megabyte of {name}", ("\n" + piece * (999_000 // len(piece)))[:999_999]
    yield "a megabyte after the page", page("glu") + "#" + "x" * 999_000
    yield "more than a megabyte", page("glu") + " " * 1_000_001
    yield "a quoted megabyte", page("glu") + 'name: "' + "\\n" * 490_000 + '"\n'
    yield "a long word", page("x" * 500_000)
    yield "a long key", page("glu", f"? {'x' * 300_000}\n  : glu")
    yield "a long option", page(f"{{glu: {{? {'bias' * 20_000} : 1}}}}")
    yield "a long path", page(f"{{like: b, set: {{? {'residual.' * 9000} : 1}}}}", "b: glu")
    yield "ten thousand nodes", page("[" + many(9900, "glu") + "]")
    yield (
        "a bomb",
        "a0: &a0 [x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)),
    )
    yield "an anchor of itself", page("a", "a: &a [glu, *a]")
    for escape in (
        "\\0",
        "\\x07",
        "\\e[31m",
        "\\u202e",
        "\\u2028",
        "\\N",
        "\\ud800",
        "\\U0001F600",
    ):
        yield f"{escape} in a word", page(f'"gl{escape}u"')
        yield f"{escape} in a base", f'\nextends: "gl{escape}u.yaml"\nrecipe: 1\n'
    for character in "\0\x07\x1b\x7f\x85\u200b\u2028\u2029\u202e\ud800\ufeff\ufffe\U0001f600":
        yield f"U+{ord(character):04X}", page(f"gl{character}u")
    yield "a folder for a base", "recipe: 1\nextends: .\n"
    yield "a name too long for a base", f"recipe: 1\nextends: {'x' * 5000}\n"


PAGES = {name: text for part in (unfolding, faulty, numbers, texts) for name, text in part()}


def answer(text: str) -> str:
    """What a page is answered with: ``ok``, the code of its first fault, or what should not be."""
    from builder import load_recipe
    from builder.errors import BuilderError, show

    try:
        load_recipe(text)
    except BuilderError as error:
        show(error).encode()
        return error.code
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    return "ok"


def peak() -> float:
    """The most megabytes that this process has held; ``getrusage`` would count its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) / 1024


def timed(call: Callable[[str], T], text: str) -> tuple[T, float]:
    """What a call gives, and the seconds of processor time that it takes."""
    start = time.process_time()
    return call(text), time.process_time() - start


def main() -> None:
    answer(page("glu"))  # what the first page pays for, none pays for again
    plain = min(timed(yaml.compose, PLAIN)[1] for _ in range(5))
    for name, text in PAGES.items():
        for _ in range(3):
            told, seconds = timed(answer, text)
            if seconds < TIMES * plain:
                break
        row = {"name": name, "told": told, "seconds": seconds, "times": seconds / plain}
        print(json.dumps(row | {"megabytes": peak()}))


if __name__ == "__main__":
    main()
