"""The bug zoo: one mutant of our own code for each bug that the field has shipped.

A mutant is a text in a file, which stands there once, and what takes its place.  Its story says who
shipped the bug, by a repository's issue where we have read it; otherwise it is a common slip.
``seen_by`` is the law that should complain of it, or the test where no law can know: what a formula
of a paper says, what a message says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """One bug: ``edits`` are pairs of a text that stands once in ``file``, and its replacement."""

    name: str
    file: str
    story: str
    seen_by: str
    edits: tuple[tuple[str, str], ...]

    def applied(self, text: str) -> str:
        """The file's text with the bug in it."""
        for old, new in self.edits:
            assert text.count(old) == 1, f"{self.name}: {text.count(old)} times {old!r}"
            text = text.replace(old, new)
        return text

    def words(self, text: str) -> list[str]:
        """What a page says where the file of this text is used, if it is of blocks."""
        return re.findall(r'^@register\("(\w+)"', text, re.MULTILINE) or [Path(self.file).stem]


def bug(name: str, file: str, story: str, *edits: tuple[str, str], seen_by: str) -> Mutant:
    return Mutant(name, file, story, seen_by, edits)


UNCHANGED = bug(
    "unchanged", "blocks/mask.py", "our code as it is, which nothing may complain about", seen_by=""
)

MASKS = (
    bug(
        "future-leak",
        "blocks/attend.py",
        "the mask is left out where no cache is, as four classes of transformers did for months",
        ("weigh(q, k, v, causal=bool(length > 1))", "weigh(q, k, v)"),
        seen_by="is_causal_by_value",
    ),
    bug(
        "leak-of-one-token",
        "blocks/mask.py",
        "a common slip: the next token is seen, but only where a mask is written out",
        ("return j <= i", "return j <= i + 1"),
        seen_by="reach_is_what_the_masks_say",
    ),
    bug(
        "leak-beside-softcap",
        "blocks/attend.py",
        "a common slip: the diagonal of the path that writes its scores out",
        ("device=q.device).tril()", "device=q.device).tril(1)"),
        seen_by="is_causal_by_gradient",
    ),
    bug(
        "causal-from-the-top-left",
        "blocks/attend.py",
        "is_causal counts from the first key, with a cache too: pytorch#103082",
        ("if length == total:", "if length > 1:"),
        seen_by="cached_equals_full",
    ),
    bug(
        "window-one-wider",
        "blocks/mask.py",
        "the mask sees w + 1 and the cache keeps w: mlx-lm#390",
        ("(i - j < self.span)", "(i - j <= self.span)"),
        seen_by="cached_equals_full",
    ),
    bug(
        "window-one-narrower",
        "blocks/mask.py",
        "the mask sees w - 1 and the cache keeps w",
        ("(i - j < self.span)", "(i - j < self.span - 1)"),
        seen_by="cached_equals_full",
    ),
    bug(
        "window-without-itself",
        "blocks/mask.py",
        "mask and cache agree on w + 1: is the token itself one of the window? mlx-lm#390",
        ("self.span = window", "self.span = window + 1"),
        seen_by="test_attention.py::test_attention_is_its_formula",
    ),
    bug(
        "window-ignored",
        "blocks/mask.py",
        "one of two paths has no window: a common slip",
        ("(j <= i) & (i - j < self.span)", "j <= i"),
        seen_by="cached_equals_full",
    ),
    bug(
        "chunk-off-by-one",
        "blocks/mask.py",
        "a common slip: chunks that begin one position late",
        ("i // self.span == j // self.span", "(i + 1) // self.span == (j + 1) // self.span"),
        seen_by="cached_equals_full",
    ),
    bug(
        "mask-added-as-a-number",
        "blocks/attend.py",
        "a boolean mask is added as 0 and 1: a common slip",
        (
            'scores = scores.masked_fill(~seen, float("-inf"))',
            "scores = scores + seen.to(scores.dtype)",
        ),
        seen_by="is_causal_by_value",
    ),
    bug(
        "empty-row",
        "blocks/attend.py",
        "a row that sees nothing is not a number: pytorch#103749, OLMo#322",
        (
            "return seen | (i == j)",
            "return seen.expand(torch.broadcast_shapes(seen.shape, i.shape))",
        ),
        seen_by="padded_equals_unpadded",
    ),
    bug(
        "bands-off-by-one",
        "blocks/attend.py",
        "a common slip: the block of keys begins one late",
        ("first = S - T - (span - 1)", "first = S - T - span"),
        seen_by="cached_equals_full",
    ),
    bug(
        "bias-lost-in-bands",
        "blocks/attend.py",
        "a fast path that knows no bias takes those who have one: a common slip",
        ("out = weigh(q, band(k), band(v), seen, added)", "out = weigh(q, band(k), band(v), seen)"),
        seen_by="cached_equals_full",
    ),
)

SCORES = (
    bug(
        "softcap-lost-in-the-cache",
        "blocks/attend.py",
        "capped in one of the two, scoring and generating: keras-hub#1712",
        ("    if softcap is not None:", "    if softcap is not None and q.shape[2] > 1:"),
        seen_by="cached_equals_full",
    ),
    bug(
        "softcap-never",
        "blocks/attend.py",
        "the option is read and passed to nobody: vllm-metal#665",
        ("if softcap is None and sinks is None:", "if sinks is None:"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "softcap-after-the-mask",
        "blocks/attend.py",
        "tanh makes -inf a number, and all is seen: a common slip",
        (
            "weights = scores.softmax(",
            "weights = (softcap * torch.tanh(scores / softcap)).softmax(",
        ),
        seen_by="is_causal_by_value",
    ),
    bug(
        "groups-interleaved",
        "blocks/attend.py",
        "keys are repeated as 0 1 0 1 where 0 0 1 1 is meant: a common slip",
        (
            "x.repeat_interleave(q.shape[1] // x.shape[1], 1)",
            "x.repeat(1, q.shape[1] // x.shape[1], 1, 1)",
        ),
        seen_by="identities_hold",
    ),
    bug(
        "scale-of-the-whole-width",
        "blocks/attention.py",
        "1 / sqrt(dim) where 1 / sqrt(head_dim) is meant: a common slip",
        ("self.scale = head_dim**-0.5", "self.scale = dim**-0.5"),
        seen_by="test_attention.py::test_attention_is_its_formula",
    ),
    bug(
        "scale-ignored",
        "blocks/attention.py",
        "a dead option",
        ("head_dim**-0.5 if scale is None else scale", "head_dim**-0.5"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "attention-dropout-in-eval",
        "blocks/attention.py",
        "scaled_dot_product_attention drops always: nanoGPT#240, timm#1978, pytorch#124464",
        ("self.dropout if self.training else 0.0", "self.dropout"),
        seen_by="dropout_is_off_in_eval",
    ),
    bug(
        "norm-behind-the-rotation",
        "blocks/attention.py",
        "qk_norm has gains, so that it is not the same on rotated keys: a common slip",
        (
            "x = self._normed(x, norm) if self.norm_first else x\n"
            "        x = x if self.position is None else self.position.rotate(x, call)\n"
            "        return x if self.norm_first else self._normed(x, norm)",
            "x = x if self.position is None else self.position.rotate(x, call)\n"
            "        return self._normed(x, norm)",
        ),
        seen_by="test_attention.py::test_attention_is_its_formula",
    ),
    bug(
        "value-from-itself",
        "blocks/attention.py",
        "what is read across depth is read at home: a common slip",
        ("self.value_mix[1] * other", "self.value_mix[1] * v"),
        seen_by="test_wiring.py::test_a_value_residual_weighs_the_two_values_and_caches_its_own",
    ),
    bug(
        "sinks-lost-in-the-cache",
        "blocks/attend.py",
        "one of two paths knows no sinks: a common slip",
        ("    if sinks is None:\n", "    if sinks is None or q.shape[2] == 1:\n"),
        seen_by="cached_equals_full",
    ),
    bug(
        "sink-first",
        "blocks/attend.py",
        "the sink stands behind the keys, and the first column is thrown away: a common slip",
        ("[..., :-1]", "[..., 1:]"),
        seen_by="is_causal_by_value",
    ),
    bug(
        "clip-never",
        "blocks/attention.py",
        "clip_qkv is read and passed to nobody: a common slip",
        ("x if self.clip is None else x.clamp(-self.clip, self.clip)", "x"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "temperature-of-the-chunk",
        "blocks/attention.py",
        "a query's factor counts from where the cache ends: a common slip",
        ("factor(call.positions)", "factor(call.positions - call.positions[:, :1])"),
        seen_by="cached_equals_full",
    ),
    bug(
        "one-norm-for-each-head",
        "blocks/attention.py",
        "heads have norms of their own, and the first one's is used: a common slip",
        ("call_row(norm, h, x[:, h])", "call_row(norm, 0, x[:, h])"),
        seen_by="test_attention.py::test_attention_is_its_formula",
    ),
    bug(
        "norm-always-before",
        "blocks/attention.py",
        "a dead option: Hunyuan's norms behind the rotation are put before it",
        (
            'self.norm_over, self.norm_first = qk_norm_over, qk_norm_at == "before"',
            "self.norm_over, self.norm_first = qk_norm_over, True",
        ),
        seen_by="no_option_is_dead",
    ),
    bug(
        "gate-ignored",
        "blocks/attention.py",
        "the gate is there, saved and loaded, and gates nothing",
        ("out if self.gate is None else out * self.gate(x)", "out"),
        seen_by="every_parameter_learns",
    ),
    bug(
        "gate-without-its-function",
        "blocks/gate.py",
        "what is linear is no gate: a dead option",
        ("return self.act(F.linear(x, self.weight)).mT", "return F.linear(x, self.weight).mT"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "gate-bias-ignored",
        "blocks/gate.py",
        "a bias that is made and never added",
        ("y if self.bias is None else y + self.bias[:, None, None]", "y"),
        seen_by="every_parameter_learns",
    ),
    bug(
        "sinks-of-zero",
        "blocks/attend.py",
        "a sink is a score of 0, whatever was learned: softmax_one in the place of sinks",
        ("sunk = sinks.to(q.dtype)", "sunk = (0 * sinks).to(q.dtype)"),
        seen_by="every_parameter_learns",
    ),
    bug(
        "clip-above-alone",
        "blocks/attention.py",
        "what is far below 0 is not cut off: a common slip",
        ("x.clamp(-self.clip, self.clip)", "x.clamp(max=self.clip)"),
        seen_by="test_attention.py::test_attention_is_its_formula",
    ),
    bug(
        "temperature-one-step-late",
        "blocks/temperature.py",
        "positions are counted from 1: a common slip",
        ("(positions + self.offset).div(", "(positions + self.offset + 1).div("),
        seen_by="test_attention.py::test_log_floor_steps_up_after_every_length_positions",
    ),
    bug(
        "norm-of-heads-in-another-order",
        "blocks/attention.py",
        "one norm over all heads, whose gains meet other channels: a layout of whoever ports",
        (
            "flat = norm(x.transpose(1, 2).flatten(2))\n"
            "                return flat.unflatten(-1, (x.shape[1], -1)).transpose(1, 2)",
            "flat = norm(x.permute(0, 2, 3, 1).flatten(2))\n"
            "                return flat.unflatten(-1, (-1, x.shape[1])).permute(0, 3, 1, 2)",
        ),
        seen_by="test_attention.py::test_attention_is_its_formula",
    ),
    bug(
        "latent-cached-for-each-head",
        "blocks/latent_attention.py",
        "the one key that heads share is kept once for each of them: a cache as large as any",
        (
            "cache.append(latent, shared)\n",
            "cache.append(latent, shared.expand(-1, self.heads, -1, -1))\n",
        ),
        seen_by="test_latent_attention.py::test_its_cache_is_the_latent_and_one_key_for_all_heads",
    ),
    bug(
        "latent-not-normed-in-the-cache",
        "blocks/latent_attention.py",
        "what is new is normed, what is read back is not: a common slip",
        (
            "latent, shared = cache.append(latent, shared)\n",
            "raw = self.kv_down(x)[:, None, :, : self.kv_rank]\n"
            "            before, shared = cache.append(raw, shared)\n"
            "            latent = torch.cat([before[:, :, : -x.shape[1]], latent], 2)\n",
        ),
        seen_by="cached_equals_full",
    ),
    bug(
        "latent-key-not-turned",
        "blocks/latent_attention.py",
        "queries turn and the shared key does not: a common slip",
        ("self._rotated(shared, call)  #", "shared  #"),
        seen_by="test_latent_attention.py::test_it_is_attention_over_the_latent",
    ),
    bug(
        "latent-scale-of-one-part",
        "blocks/latent_attention.py",
        "1 / sqrt(head_dim), where a key has rope_dim more components: a common slip",
        ("self.scale = width**-0.5", "self.scale = head_dim**-0.5"),
        seen_by="test_latent_attention.py::test_it_is_attention_over_the_latent",
    ),
)

POSITIONS = (
    bug(
        "offset-lost-in-the-cache",
        "blocks/call.py",
        "each chunk's positions begin at 0: a common slip",
        ("torch.arange(start, total, device", "torch.arange(0, total - start, device"),
        seen_by="cached_equals_full",
    ),
    bug(
        "offset-lost-beside-padding",
        "blocks/call.py",
        "the same, but only where rows differ",
        ("before[:, start:], before,", "before[:, : ids.shape[1]], before,"),
        seen_by="cached_equals_full",
    ),
    bug(
        "pairs-mixed-up",
        "blocks/rope.py",
        "halves are rotated as neighbours: TinyLlama#24, nanotron#427",
        ('if self.pairs == "half":', 'if self.pairs != "half":'),
        seen_by="test_blocks.py::test_block_is_its_formula",
    ),
    bug(
        "pairs-ignored",
        "blocks/rope.py",
        "neighbours are taken as halves, and laid out as neighbours: the option is dead",
        ("turning[..., 0::2], turning[..., 1::2]", "turning.chunk(2, -1)"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "rotary-tables-in-bf16",
        "blocks/rope.py",
        "angles in the model's own precision: transformers#29285, gpt-neox#1003",
        (
            "angles = self.sense * positions[..., None] * turn\n",
            "angles = (self.sense * positions[..., None] * turn).to(dtype)\n",
        ),
        seen_by="test_positions.py::test_rotary_angles_are_exact_to_one_ulp",
    ),
    bug(
        "rotary-frequencies-in-bf16",
        "blocks/rope.py",
        "the frequencies are a buffer, which a change of type rounds: transformers#29496",
        (
            "lengths)\n        angles",
            "lengths).to(dtype).double()\n        angles",
        ),
        seen_by="test_positions.py::test_rotary_angles_are_exact_to_one_ulp",
    ),
    bug(
        "fraction-ignored",
        "blocks/rope.py",
        "a dead option: all of a head is rotated",
        ("int(head_dim * fraction)", "head_dim"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "one-table-for-all-layers",
        "blocks/rope.py",
        "local and global layers of another theta share a table: a common slip",
        ('("rope", self.theta, self.rotated,', '("rope", self.rotated,'),
        seen_by="test_blocks.py::test_rotary_tables_of_one_call_are_each_layer_s_own",
    ),
    bug(
        "rotation-backwards-for-one-half",
        "blocks/rope.py",
        "a sign is wrong, so that lengths change: a common slip",
        (
            "turned = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)",
            "turned = torch.cat([a * cos + b * sin, b * cos + a * sin], -1)",
        ),
        seen_by="positions_may_shift",
    ),
    bug(
        "alibi-sign",
        "blocks/alibi.py",
        "the far is favoured: a common slip",
        ("* (j - i)  #", "* (i - j)  #"),
        seen_by="test_blocks.py::test_block_is_its_formula",
    ),
    bug(
        "alibi-slopes-off-by-one",
        "blocks/alibi.py",
        "the first slope is 1: a common slip",
        ("2.0 ** (-8 * (h + 1) / power)", "2.0 ** (-8 * h / power)"),
        seen_by="test_blocks.py::test_block_is_its_formula",
    ),
    bug(
        "alibi-for-odd-heads",
        "blocks/alibi.py",
        "slopes where heads is no power of two, which the paper leaves to its code",
        ("slopes(2 * power)[0::2]", "slopes(2 * power)[1::2]"),
        seen_by="test_blocks.py::test_block_is_its_formula",
    ),
    bug(
        "alibi-only-without-padding",
        "blocks/attend.py",
        "the path of a boolean mask forgets the bias: a common slip",
        ("return weigh(q, k, v, seen, _added(call, bias, i, j))", "return weigh(q, k, v, seen)"),
        seen_by="cached_equals_full",
    ),
    bug(
        "learned-positions-clamped",
        "blocks/learned_positions.py",
        "past the table the last row is used, and nobody is told",
        ("call.end > self.limit and (last", "False and (last"),
        ("F.embedding(call.positions +", "F.embedding(call.positions.clamp(max=self.limit - 1) +"),
        seen_by="test_blocks.py::test_block_is_its_formula",
    ),
    bug(
        "sines-and-cosines-swapped",
        "blocks/sinusoidal_positions.py",
        "a common slip: another table than the paper's",
        ("[angles.sin(), angles.cos()]", "[angles.cos(), angles.sin()]"),
        seen_by="test_blocks.py::test_block_is_its_formula",
    ),
    bug(
        "scaling-never",
        "blocks/rope.py",
        "rope_scaling is read and passed to nobody: a common slip",
        ("Unscaled() if scaling is None else scaling()", "Unscaled()"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "one-table-for-all-scalings",
        "blocks/rope.py",
        "layers of another scaling share a table: a common slip",
        ("self.rotated, self.scaling, self.sense", "self.rotated, self.sense"),
        seen_by="test_blocks.py::test_rotary_tables_of_one_call_are_each_layer_s_own",
    ),
    bug(
        "attention-factor-forgotten",
        "blocks/rope.py",
        "YaRN's factor on cosines and sines is left out: a common slip",
        ("gain = self.scaling.gain(lengths)", "gain = 1.0"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "llama3-without-the-blend",
        "blocks/scaling.py",
        "frequencies between the two bounds are taken as fast ones: a common slip",
        ("(self.high - self.low)).clamp(0, 1)", "(self.high - self.low)).clamp(0, 1).ceil()"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "yarn-ramp-upside-down",
        "blocks/scaling.py",
        "fast pairs are slowed and slow ones kept: a common slip",
        ("1 - slowed + slowed / self.factor", "slowed + (1 - slowed) / self.factor"),
        seen_by="test_scaling.py::test_a_scaling_is_its_formula",
    ),
    bug(
        "longrope-always-short",
        "blocks/scaling.py",
        "the long divisors are never used: transformers' PhiMoE",
        ("[..., None], long, short)", "[..., None], short, short)"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "dynamic-never",
        "blocks/scaling.py",
        "dynamic angles that a text's length never changes: a common slip",
        ("length.clamp(min=self.original)", "length.clamp(max=self.original, min=self.original)"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "dynamic-without-its-exponent",
        "blocks/scaling.py",
        "the base grows by the ratio itself: a common slip",
        ("- (self.factor - 1)) ** (rotated / (rotated - 2))", "- (self.factor - 1))"),
        seen_by="test_scaling.py::test_a_scaling_is_its_formula",
    ),
    bug(
        "yarn-mscale-ignored",
        "blocks/scaling.py",
        "DeepSeek's mscale is read, and YaRN's own factor used: a common slip",
        ("self._grown(self.mscale) / self._grown(self.mscale_all_dim)", "self._grown(1.0)"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "longrope-gain-of-the-short",
        "blocks/scaling.py",
        "a long text has the short one's factor: a dead option",
        ("gains[(length > self.original).long()]", "gains[(length < 0).long()]"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "longrope-one-early",
        "blocks/scaling.py",
        "a text of the original length is taken for a long one: a common slip",
        ("torch.where((length > self.original)", "torch.where((length >= self.original)"),
        seen_by="test_scaling.py::test_a_scaling_is_its_formula",
    ),
    bug(
        "positions-begin-without-offset",
        "blocks/learned_positions.py",
        "OPT's table begins two rows late: a dead option",
        ("call.positions + self.offset", "call.positions"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "alibi-not-rounded",
        "blocks/alibi.py",
        "Falcon's products are of bfloat16: in float64 a model of theirs is another",
        ("place.to(torch.bfloat16)\n", "place.double()\n"),
        seen_by="test_blocks.py::test_block_is_its_formula",
    ),
    bug(
        "length-of-the-batch",
        "blocks/call.py",
        "the longest row of a batch scales the angles of all",
        ("return read.amax(1, keepdim=True)", "return read.amax()[None, None]"),
        seen_by="test_scaling.py::test_a_longer_row_changes_no_other_row_s_angles",
    ),
    bug(
        "length-of-the-chunk",
        "blocks/call.py",
        "dynamic angles by the tokens that are new, and not by those that are cached too",
        ("(1, 1), self.end, device", "(1, 1), self.end - self.start, device"),
        seen_by="test_scaling.py::test_long_texts_are_cached_as_long_ones_and_short_ones_as_short",
    ),
)

PADDING_AND_PACKING = (
    bug(
        "padding-counts-as-positions",
        "blocks/call.py",
        "one count for every row: a common slip",
        ("real = (~padding).long()", "real = torch.ones_like(padding, dtype=torch.long)"),
        seen_by="padded_equals_unpadded",
    ),
    bug(
        "padding-is-seen",
        "blocks/attend.py",
        "a common slip: the mask of padding is lost",
        (
            "seen = seen & ~call.padding[:, j.clamp(0, last)]",
            "seen = seen & (call.padding[:, :1] == 0)[..., None] | seen",
        ),
        seen_by="padded_equals_unpadded",
    ),
    bug(
        "padding-is-summed-up",
        "blocks/recurrent.py",
        "a recurrent mixer reads padding as tokens: a common slip",
        ("    if padding is None:\n        return x\n", "    if True:\n        return x\n"),
        seen_by="padded_equals_unpadded",
    ),
    bug(
        "documents-see-each-other",
        "blocks/call.py",
        "packed without a mask of documents: nanoVLM#204",
        ("segments = starts.cumsum(1)", "segments = torch.ones_like(documents)"),
        seen_by="documents_do_not_see_each_other",
    ),
    bug(
        "documents-by-their-number",
        "blocks/call.py",
        "A B A: two documents of one number are taken for one; a common slip",
        ("segments = starts.cumsum(1)", "segments = documents + 1"),
        seen_by="packed_equals_separate",
    ),
    bug(
        "positions-go-on-in-a-document",
        "blocks/call.py",
        "positions are not reset where a document begins: nanoVLM#201",
        ("before = before - (before * starts).cummax(1).values", "pass"),
        seen_by="packed_equals_separate",
    ),
    bug(
        "state-passes-into-a-document",
        "blocks/recurrent.py",
        "the recurrent state is not reset: torchtitan#3892",
        ("seen = seen & (own[..., 1:, None] == own[..., None, :])", "pass"),
        seen_by="documents_do_not_see_each_other",
    ),
    bug(
        "convolution-reads-across-documents",
        "blocks/recurrent.py",
        "the short convolution is forgotten where the state is reset: torchtitan#3892",
        ("taps = [tap * same[..., None] for tap, same in zip(taps, own, strict=True)]", "pass"),
        seen_by="documents_do_not_see_each_other",
    ),
)

CACHES = (
    bug(
        "cache-keeps-too-little",
        "blocks/cache.py",
        "the cache keeps w - 2 where the mask sees w - 1 before the token",
        (
            "else min(self.length, self.span - 1)\n\n",
            "else min(self.length, max(self.span - 2, 0))\n\n",
        ),
        seen_by="cached_equals_full",
    ),
    bug(
        "cache-keeps-too-much",
        "blocks/cache.py",
        "one position more than any mask can see: a waste that is told as none",
        ("else min(self.length, self.span - 1)\n\n", "else min(self.length, self.span)\n\n"),
        seen_by="cache_size_is_known",
    ),
    bug(
        "owner-not-widened",
        "blocks/attention.py",
        "who reads another's keys sees further than its owner keeps: a common slip",
        ("for attention in (self, *readers)]", "for attention in (self,)]"),
        seen_by="test_wiring.py::test_the_owner_keeps_the_widest_span_that_any_reader_needs",
    ),
    bug(
        "crop-keeps-garbage",
        "blocks/cache.py",
        "the count goes down and the end of what is written stays: a common slip",
        ("self.end, self.length = self.end - dropped, length", "self.length = length"),
        seen_by="caches_can_be_edited",
    ),
    bug(
        "crop-past-what-is-kept",
        "blocks/cache.py",
        "a window that has dropped what it needs is cropped all the same",
        ("if self.end - dropped < needed:", "if self.end - dropped < 0:"),
        seen_by="test_cache.py::"
        "test_a_window_is_cropped_exactly_where_it_still_holds_what_it_needs",
    ),
    bug(
        "crop-forgets-documents",
        "blocks/cache.py",
        "tokens are cropped, their documents are not: a common slip",
        ("self.documents = None if self.documents is None else self.documents[:, :length]", "pass"),
        seen_by="caches_can_be_edited",
    ),
    bug(
        "reorder-forgets-one-state",
        "blocks/cache.py",
        "some states keep the order of before: transformers#46612",
        (
            "for state in self.states.values():\n            state.reorder(rows)",
            "for state in list(self.states.values())[1:]:\n            state.reorder(rows)",
        ),
        seen_by="caches_can_be_edited",
    ),
    bug(
        "reorder-forgets-the-tokens",
        "blocks/cache.py",
        "the states follow, the ids do not: wrong only where they are read again",
        ("self.ids = None if self.ids is None else self.ids[rows]", "pass"),
        seen_by="caches_can_be_edited",
    ),
    bug(
        "fork-shares-tensors",
        "blocks/cache.py",
        "a shallow copy: a common slip",
        ("return copy.deepcopy(self)", "return copy.copy(self)"),
        seen_by="caches_can_be_edited",
    ),
    bug(
        "reset-leaves-the-length",
        "blocks/cache.py",
        "what was read is forgotten, but not how much: a common slip",
        ("self.length = 0  # positions seen", 'self.length = getattr(self, "length", 0)'),
        seen_by="caches_can_be_edited",
    ),
    bug(
        "buffer-grows-and-shifts",
        "blocks/cache.py",
        "what is kept is copied from the wrong place when the buffer moves",
        (
            "buffer[:, :, self.end - kept : self.end]\n        self.end = kept",
            "buffer[:, :, :kept]\n        self.end = kept",
        ),
        seen_by="cached_equals_full",
    ),
    bug(
        "convolution-window-off-by-one",
        "blocks/recurrent.py",
        "the next call gets the window of the place before: a common slip",
        ("return y, x[:, length:].clone()", "return y, x[:, length - 1 : -1].clone()"),
        seen_by="cached_equals_full",
    ),
    bug(
        "shared-layers-share-a-cache",
        "builder/assemble.py",
        "one cache for all places that share weights: a common slip",
        ("self.sites += 1", "self.sites = len(self.made)"),
        seen_by="cached_equals_full",
    ),
    bug(
        "failed-call-stays-in-the-cache",
        "builder/model.py",
        "tokens of a call that raised are taken for read: a common slip",
        ("            cache.crop(before)\n            raise", "            raise"),
        seen_by="test_cache.py::test_a_call_that_fails_leaves_the_cache_as_it_was",
    ),
)

LEAVES = (
    bug(
        "dropout-in-eval",
        "blocks/dropout.py",
        "the functional dropout needs to be told: a common slip",
        ("F.dropout(x, self.p, self.training)", "F.dropout(x, self.p)"),
        seen_by="dropout_is_off_in_eval",
    ),
    bug(
        "dropout-never",
        "blocks/dropout.py",
        "after one evaluation it is off for good: a common slip",
        ("F.dropout(x, self.p, self.training)", "x"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "eps-outside-the-root",
        "blocks/rmsnorm.py",
        "x / (rms + eps): a common slip",
        (
            "return F.rms_norm(x, (self.dim,), gain, self.eps)",
            "y = x / (x.square().mean(-1, keepdim=True).sqrt() + self.eps)\n"
            "        return y if gain is None else y * gain",
        ),
        seen_by="identities_hold",
    ),
    bug(
        "eps-ignored",
        "blocks/rmsnorm.py",
        "a dead option",
        ("gain, self.eps)", "gain, 1e-6)"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "gain-missing",
        "blocks/rmsnorm.py",
        "the weight is there, saved and loaded, and multiplies nothing",
        ("(self.dim,), gain, self.eps)", "(self.dim,), None, self.eps)"),
        seen_by="every_parameter_learns",
    ),
    bug(
        "variance-unbiased",
        "blocks/layernorm.py",
        "torch.var divides by n - 1 unless it is told: a common slip",
        (
            "return F.layer_norm(x, (self.dim,), gain, self.bias, self.eps)",
            "y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + self.eps).sqrt()\n"
            "        y = y if gain is None else y * gain\n"
            "        return y if self.bias is None else y + self.bias",
        ),
        seen_by="identities_hold",
    ),
    bug(
        "scale-twice",
        "blocks/scale.py",
        "sqrt(dim) is in the weights and in the forward (Gemma's embedding): a common slip",
        ("return self.factor * x", "return self.factor * (self.factor * x)"),
        seen_by="identities_hold",
    ),
    bug(
        "gelu-of-another-kind",
        "blocks/act.py",
        "tanh where erf is meant: the two differ in the fourth digit",
        ("return F.gelu(x)\n", 'return F.gelu(x, approximate="tanh")\n'),
        seen_by="test_blocks.py::test_block_is_its_formula",
    ),
    bug(
        "gate-and-up-swapped",
        "blocks/glu.py",
        "w1 and w3 of another code: a common slip of who ports weights",
        ("self.act(self.gate(x)) * self.up(x)", "self.act(self.up(x)) * self.gate(x)"),
        seen_by="identities_hold",
    ),
    bug(
        "kernel-reversed",
        "blocks/recurrent.py",
        "a convolution where a correlation is meant: a common slip",
        (
            "taps = [x[:, i : i + length] for i in range(kernel)]",
            "taps = [x[:, i : i + length] for i in range(kernel)][::-1]",
        ),
        seen_by="test_mixers.py::test_short_conv_is_its_sum_over_the_last_places",
    ),
    bug(
        "delta-rule-forgets-to-decay",
        "blocks/gated_delta.py",
        "what is corrected is the state before the chunk, not decayed",
        ("found = bs * (vs - far * (ks @ state))", "found = bs * (vs - ks @ state)"),
        seen_by="cached_equals_full",
    ),
    bug(
        "delta-rule-keeps-all",
        "blocks/gated_delta.py",
        "the state passes from chunk to chunk without decay",
        ("state = far[:, :, -1:] * state", "state = state"),
        seen_by="cached_equals_full",
    ),
    bug(
        "decay-of-the-wrong-sign",
        "blocks/gated_delta.py",
        "exp(A) where -exp(A) is meant",
        ("beta = -self.A_log", "beta = self.A_log"),
        seen_by="test_mixers.py::test_gated_delta_is_its_recurrence",
    ),
    bug(
        "normaliser-does-not-decay",
        "blocks/linear_attention.py",
        "decay is a dead option",
        (
            "torch.log1p(-(2.0 ** (-5 - head))) if self.decay",
            "torch.zeros_like(head) if self.decay",
        ),
        seen_by="no_option_is_dead",
    ),
    bug(
        "features-cancel",
        "blocks/linear_attention.py",
        "elu(x) + 1 far below zero, normalised: chunks differ by 1e-3 (a law found it in ours)",
        ("F.relu(x) + x.clamp(max=0).exp()", "F.elu(x) + 1"),
        seen_by="test_laws.py::test_law_holds_for_what_once_broke_one",
    ),
    bug(
        "hyper-mix-transposed",
        "blocks/hyper.py",
        "rows and columns of the mixing matrix: a common slip",
        ("mix.transpose(-1, -2) @ h", "mix @ h"),
        seen_by="test_wiring.py::test_hyper_reads_and_writes_the_streams_by_its_weights",
    ),
    bug(
        "lerp-adds",
        "blocks/lerp.py",
        "a residual where a step towards is meant",
        ("x + self.rate * (body(x) - x)", "x + self.rate * body(x)"),
        seen_by="identities_hold",
    ),
    bug(
        "head-bias-ignored",
        "blocks/lm_head.py",
        "a bias that is made and never added",
        ("F.linear(x, self.weight, self.bias)", "F.linear(x, self.weight)"),
        seen_by="every_parameter_learns",
    ),
    bug(
        "clamped-on-one-side",
        "blocks/clamped_glu.py",
        "what is multiplied is cut off above alone, as the gate is: a common slip",
        ("clamp(-self.bound, self.bound)", "clamp(max=self.bound)"),
        seen_by="test_blocks.py::test_block_is_its_formula",
    ),
    bug(
        "limit-ignored",
        "blocks/clamped_glu.py",
        "swiglu_limit is read and passed to nobody: a common slip",
        ("clamp(max=self.bound)", "clamp(max=float('inf'))"),
        ("clamp(-self.bound, self.bound)", "clamp(max=float('inf'))"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "xielu-of-raw-weights",
        "blocks/xielu.py",
        "what is learned is taken as it is, where its softplus is meant: a common slip",
        ("F.softplus(self.alpha_p) * x", "self.alpha_p * x"),
        seen_by="test_blocks.py::test_block_is_its_formula",
    ),
    bug(
        "one-plus-forgotten",
        "blocks/clamped_glu.py",
        "u where 1 + u is meant: a common slip",
        ("* (1 + up)", "* up"),
        seen_by="test_blocks.py::test_block_is_its_formula",
    ),
)

EXPERTS = (
    bug(
        "router-not-normalised",
        "blocks/router.py",
        "weights of the chosen do not sum to one where they should: HabanaAI/vllm-fork#73",
        (
            "self.top_groups).topk(self.top_k, -1)\n        if self.normalise:",
            "self.top_groups).topk(self.top_k, -1)\n        if False:",
        ),
        seen_by="no_option_is_dead",
    ),
    bug(
        "router-softmax-behind-the-choice",
        "blocks/router.py",
        "softmax of the chosen scores where that of all is asked: Fast-LLM#83",
        (
            "weights, chosen = among(scores, best, self.top_groups).topk(self.top_k, -1)",
            "weights, chosen = among(self.score(x), best, self.top_groups).topk(self.top_k, -1)\n"
            "        weights = weights.softmax(-1)",
        ),
        seen_by="no_option_is_dead",
    ),
    bug(
        "router-softmax-over-tokens",
        "blocks/router.py",
        "scores depend on the other tokens, later ones too: a common slip",
        ("self.score(x).softmax(-1)", "self.score(x).softmax(0)"),
        seen_by="is_causal_by_gradient",
    ),
    bug(
        "expert-weight-of-another-choice",
        "blocks/moe.py",
        "the first choice's weight for every choice: a common slip",
        ("weights[rows, slots, None]", "weights[rows, 0, None]"),
        seen_by="test_blocks.py::test_block_is_its_formula",
    ),
    bug(
        "experts-drop-tokens",
        "blocks/moe.py",
        "an expert takes no more than its share, and who else is in the batch decides",
        ("torch.where(chosen == e) if", "(t[:5] for t in torch.where(chosen == e)) if"),
        seen_by="rows_are_independent",
    ),
    bug(
        "balance-of-the-wrong-sign",
        "blocks/moe.py",
        "the loss rewards an uneven load",
        ("losses.append(self.balance *", "losses.append(-self.balance *"),
        seen_by="test_moe.py::test_the_balance_loss_is_one_when_experts_are_chosen_alike",
    ),
    bug(
        "balance-softmax-twice",
        "blocks/router.py",
        "scores pass a softmax again on their way into the loss: transformers#45120",
        (
            "return weights * self.scale, chosen, scores\n\n    def nulls",
            "return weights * self.scale, chosen, scores.softmax(-1)\n\n    def nulls",
        ),
        seen_by="test_moe.py::test_the_balance_loss_is_one_when_experts_are_chosen_alike",
    ),
    bug(
        "balance-counts-each-choice",
        "blocks/moe.py",
        "shares of tokens sum to top_k and not to 1: a common slip",
        ("scatter(1, chosen, 1.0 / chosen.shape[1])", "scatter(1, chosen, 1.0)"),
        seen_by="test_moe.py::test_the_balance_loss_is_its_formula",
    ),
    bug(
        "balance-counts-padding",
        "blocks/moe.py",
        "padding is balanced too: a common slip",
        ("if padding is None\n            else", "if True\n            else"),
        seen_by="test_moe.py::test_the_balance_loss_is_its_formula",
    ),
    bug(
        "selection-bias-in-the-weights",
        "blocks/router.py",
        "the bias that chooses experts weighs them too: a common slip",
        ("weights = scores.gather(-1, chosen)", "weights = ranks.gather(-1, chosen)"),
        seen_by="every_parameter_learns",
    ),
    bug(
        "selection-bias-never",
        "blocks/router.py",
        "the bias is there, saved and loaded, and chooses nothing",
        ("ranks if self.selection_bias is None else ranks + self.selection_bias", "ranks"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "groups-by-their-best",
        "blocks/router.py",
        "DeepSeek-V3 ranks groups by their two best experts, not by the best as V2 does",
        (".topk(2, -1).values.sum(-1)", ".amax(-1)"),
        seen_by="test_moe.py::test_sigmoid_chooses_by_its_bias_and_weighs_without_it",
    ),
    bug(
        "routed-scale-forgotten",
        "blocks/router.py",
        "routed_scaling_factor is read and passed to nobody: a common slip",
        (
            "return weights * self.scale, chosen, scores\n\n    def pull",
            "return weights, chosen, scores\n\n    def pull",
        ),
        seen_by="no_option_is_dead",
    ),
    bug(
        "sigmoid-not-normalised",
        "blocks/router.py",
        "norm_topk_prob is read and passed to nobody, where scores sum to anything",
        (
            "weights = scores.gather(-1, chosen)\n        if self.normalise:",
            "weights = scores.gather(-1, chosen)\n        if False:",
        ),
        seen_by="no_option_is_dead",
    ),
    bug(
        "second-beside-the-first",
        "blocks/router.py",
        "the second expert's weight is its share beside the first: a common slip",
        ("near = left.masked_fill(far", "near = logits.masked_fill(far"),
        seen_by="test_moe.py::test_sparsemixer_weighs_the_best_two_among_those_close_to_each",
    ),
    bug(
        "groups-dealt-round",
        "blocks/router.py",
        "groups are of every n-th expert where they are of experts on end: a common slip",
        (
            "~kept.repeat_interleave(ranks.shape[-1] // groups, -1)",
            "~kept.repeat(1, ranks.shape[-1] // groups)",
        ),
        seen_by="test_moe.py::test_softmax_looks_into_the_groups_of_the_best_experts_alone",
    ),
    bug(
        "pulled-away",
        "blocks/router.py",
        "experts that are chosen more are chosen still more: a sign",
        ("(picked - picked.mean()).sign()", "(picked.mean() - picked).sign()"),
        seen_by="test_moe.py::test_a_selection_bias_is_pulled_towards_experts_that_are_chosen_less",
    ),
    bug(
        "weighed-behind-the-expert",
        "blocks/moe.py",
        "Llama 4 weighs what an expert reads: a dead option",
        ('if self.weigh == "input":', "if False:"),
        seen_by="no_option_is_dead",
    ),
)

WIRING = (
    bug(
        "branch-dropped",
        "builder/assemble.py",
        "the second of two parallel branches, such as a shared expert, is not added",
        ("for branch in self.branches[1:]:", "for branch in self.branches[2:]:"),
        seen_by="every_parameter_learns",
    ),
    bug(
        "residual-forgotten",
        "builder/assemble.py",
        "a YAML-driven peer reads the word and changes nothing",
        ("return x + self.body(x, call, cache)", "return self.body(x, call, cache)"),
        seen_by="identities_hold",
    ),
    bug(
        "label-means-the-first",
        "builder/wiring.py",
        "kv_from reads another layer than the nearest: a common slip",
        ("return found if many else found[-1:]", "return found if many else found[:1]"),
        seen_by="test_wiring.py::test_a_label_means_its_nearest_earlier_place",
    ),
    bug(
        "source-weighed-away",
        "blocks/mix.py",
        "a source is read and not added",
        ("mixed = mixed + weight * source", "mixed = mixed + weight * mixed"),
        seen_by="identities_hold",
    ),
    bug(
        "head-never-tied",
        "builder/assemble.py",
        "a dead option: tie is read, and two matrices are trained",
        ('if getattr(module, "tie", False):', "if False:"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "tie-lost-when-materialised",
        "builder/initial.py",
        "built on meta, tied, and untied when storage comes: modalities#357",
        ("if id(parameter) not in made:", "if True:"),
        seen_by="tied_stays_tied",
    ),
    bug(
        "tie-lost-on-loading",
        "builder/training/runs.py",
        "what is loaded takes the place of a weight, and whoever was tied to it keeps the old one",
        (
            "        put(parameter, value)\n    for name in sorted(left):",
            '        owner, _, own = name.rpartition(".")\n'
            "        setattr(model.get_submodule(owner), own, nn.Parameter(value))\n"
            "    for name in sorted(left):",
        ),
        seen_by="saved_equals_loaded",
    ),
    bug(
        "shared-weights-are-copies",
        "builder/assemble.py",
        "layers that share begin alike and part: a common slip",
        ("if first is not None and first[0].options == leaf.options:", "if False:"),
        ("            share(module, first[1])", "            pass"),
        seen_by="names_are_unique",
    ),
    bug(
        "option-by-name",
        "builder/compose.py",
        "an option that only blocks of one name get: a test on a name in the code",
        (
            "        self.arguments.check(word)\n",
            "        self.arguments.check(word)\n"
            '        known |= {"eps": 0.01} if "eps" in known and "first" in item.blocks else {}\n',
        ),
        seen_by="spelling_changes_nothing",
    ),
    bug(
        "weights-by-nesting",
        "builder/compose.py",
        "parameters are named by where they stand in the YAML: renaming loses weights",
        (
            "        first = self.firsts.get(item)\n",
            '        name += "".join(f"_{block}" for block in item.blocks[:1])\n'
            "        first = self.firsts.get(item)\n",
        ),
        seen_by="spelling_changes_nothing",
    ),
)

TRAINING = (
    bug(
        "ignored-labels-count",
        "builder/model.py",
        "the sum over labels is divided by all of them: a common slip",
        ("(labels != IGNORED).sum().clamp(min=1)", "labels.numel()"),
        seen_by="loss_is_the_mean_over_its_labels",
    ),
    bug(
        "no-labels-at-all",
        "builder/model.py",
        "a batch whose labels are all ignored has a loss that is not a number",
        ("(labels != IGNORED).sum().clamp(min=1)", "(labels != IGNORED).sum()"),
        seen_by="loss_is_the_mean_over_its_labels",
    ),
    bug(
        "loss-in-bf16",
        "builder/loss.py",
        "cross entropy in the model's own precision: transformers#29285 (logits.float())",
        ("flat, labels = logits.to(wide).flatten", "flat, labels = logits.flatten"),
        seen_by="test_assemble.py::test_a_loss_of_half_precision_is_summed_in_float32",
    ),
    bug(
        "z-loss-of-padding",
        "builder/loss.py",
        "what is ignored is still pulled at: a common slip",
        ("flat.logsumexp(-1)[labels != IGNORED].square()", "flat.logsumexp(-1).square()"),
        seen_by="test_loss.py::test_z_loss_is_the_squared_logarithm_of_the_denominator_over_the_same_labels",
    ),
    bug(
        "chunks-of-loss-unscaled",
        "builder/loss.py",
        "a loss in chunks whose backward ignores what it is multiplied with: a common slip",
        ("None if g is None else g * gradient", "None if g is None else g"),
        seen_by="any_chunk_gives_the_same_loss",
    ),
    bug(
        "blocks-losses-forgotten",
        "builder/model.py",
        "the balance of a mixture is computed and not trained on",
        ("sum(call.losses, total /", "sum([], total /"),
        seen_by="no_option_is_dead",
    ),
    bug(
        "parts-count-alike",
        "builder/training/step.py",
        "unequal parts of a batch are averaged: torchtune#1875, mlx-lm#1413",
        ("loss * (part.learnt / max(total, 1))", "loss / settings.accumulate"),
        seen_by="unequal_parts_make_one_batch",
    ),
    bug(
        "parts-are-summed",
        "builder/training/step.py",
        "a gradient that grows with the number of parts: a common slip",
        ("loss * (part.learnt / max(total, 1))", "loss"),
        seen_by="unequal_parts_make_one_batch",
    ),
    bug(
        "dropout-drawn-anew",
        "builder/training/layers.py",
        "a layer that is computed again draws another dropout: a checkpoint without its state",
        ("self.dropout.draw(self.index)", "pass"),
        seen_by="recomputed_layers_change_no_gradient",
    ),
    bug(
        "norms-decay",
        "builder/training/optimizers.py",
        "gains and biases decay: transformers#35927, Fast-LLM#542",
        ("parameter.dim() - stacked >= 2 and not", "not"),
        (
            'leaf.kind in ("embedding", "positions", "norm")',
            'leaf.kind in ("embedding", "positions")',
        ),
        seen_by="each_is_moved_by_one_group",
    ),
    bug(
        "embeddings-decay",
        "builder/training/optimizers.py",
        "a table is taken for a matrix that mixes: minGPT#24",
        ('leaf.kind in ("embedding", "positions", "norm")', 'leaf.kind in ("positions", "norm")'),
        seen_by="each_is_moved_by_one_group",
    ),
    bug(
        "gains-of-experts-decay",
        "builder/training/optimizers.py",
        "a stacked gain has two dimensions: a common slip",
        ("parameter.dim() - stacked >= 2", "parameter.dim() >= 2"),
        seen_by="each_is_moved_by_one_group",
    ),
    bug(
        "shared-weights-move-twice",
        "builder/training/optimizers.py",
        "a tied weight is in two groups, or twice in one",
        (
            "in model.named_parameters():\n        stacked",
            "in model.named_parameters(remove_duplicate=False):\n        stacked",
        ),
        seen_by="each_is_moved_by_one_group",
    ),
    bug(
        "weights-not-in-any-group",
        "builder/training/optimizers.py",
        "what is in no group does not learn: a common slip",
        (
            "found.append(Learner(name, parameter, mixes))",
            "if mixes or name.startswith(lookups):\n"
            "            found.append(Learner(name, parameter, mixes))",
        ),
        seen_by="each_is_moved_by_one_group",
    ),
    bug(
        "weights-by-order",
        "builder/initial.py",
        "one generator for all: a block that is swapped changes every weight behind it",
        (
            "    return lambda name, parameter: _first_value(",
            "    torch.manual_seed(seed)\n    return lambda name, parameter: _first_value(",
        ),
        (
            "_noise(parameter.shape, seed, name) * std",
            "torch.randn(parameter.shape) * std",
        ),
        seen_by="initial_weights_are_keyed",
    ),
    bug(
        "weights-by-shape",
        "builder/initial.py",
        "each weight from the same seed: two of one shape begin alike",
        ("_noise(parameter.shape, seed, name)", "_noise(parameter.shape, seed)"),
        seen_by="initial_weights_are_keyed",
    ),
    bug(
        "experts-begin-alike",
        "builder/initial.py",
        "stacked experts are drawn as one and copied: a common slip",
        ("seed, name, e)", "seed, name)"),
        seen_by="test_assemble.py::test_each_expert_is_drawn_by_its_own_number",
    ),
    bug(
        "depth-scaled-by-layers",
        "builder/assemble.py",
        "1 / sqrt(layers) where the additions to the stream are meant (GPT-2: two a layer)",
        (
            "        case Layer():\n            return count_adds(node.body)",
            "        case Layer():\n            return 1",
        ),
        seen_by="test_assemble.py::test_depth_is_the_number_of_additions_to_the_residual_stream",
    ),
    bug(
        "depth-never-scaled",
        "builder/assemble.py",
        "a dead option: no matrix is known to write into the stream",
        ("getattr(module.get_submodule(parent), name).output = True", "pass"),
        seen_by="test_assemble.py::"
        "test_matrices_that_write_into_the_stream_shrink_with_depth_and_no_others",
    ),
)

MUTANTS = (
    UNCHANGED,
    *MASKS,
    *SCORES,
    *POSITIONS,
    *PADDING_AND_PACKING,
    *CACHES,
    *LEAVES,
    *EXPERTS,
    *WIRING,
    *TRAINING,
)
