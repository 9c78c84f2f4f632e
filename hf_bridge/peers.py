"""The same work as other libraries do it, as their examples write it: what `bench` compares with.

It is read by its path, in the environment of the library that it is about, and imports no more.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

Case = dict[str, Any]
Step = Callable[[], Any]
BETAS, DECAY, CLIP = (0.9, 0.95), 0.1, 1.0


def transformers(case: Case) -> Step:
    """Its classes as they are, attention by torch's kernels."""
    import torch

    library: Any = importlib.import_module("transformers")
    if case["kind"] == "gpt":
        sizes = {"n_layer": case["layers"], "n_embd": case["dim"], "n_head": case["heads"]}
        none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        config = library.GPT2Config(
            **sizes, vocab_size=case["vocab"], n_positions=case["context"], **none
        )
    else:
        kind = library.MistralConfig if case["window"] else library.LlamaConfig
        config = kind(
            num_hidden_layers=case["layers"],
            hidden_size=case["dim"],
            num_attention_heads=case["heads"],
            num_key_value_heads=case["kv_heads"] or case["heads"],
            intermediate_size=case["ff"],
            vocab_size=case["vocab"],
            max_position_embeddings=case["context"],
            **({"sliding_window": case["window"]} if case["window"] else {}),
        )
    model = library.AutoModelForCausalLM.from_config(config)
    ids = drawn(case)
    if case["work"] in ("train", "start"):
        return trained(model, lambda: model(input_ids=ids, labels=ids).loss)
    model.eval()
    if case["work"] == "prefill":
        return torch.no_grad()(lambda: model(ids, use_cache=True, logits_to_keep=1))
    given = {"max_new_tokens": case["new"], "min_new_tokens": case["new"], "do_sample": False}
    return lambda: model.generate(ids, **given, pad_token_id=0)


def litgpt(case: Case) -> Step:
    """Its model and loss in chunks, and its own generation."""
    import torch

    library: Any = importlib.import_module("litgpt")
    base: Any = importlib.import_module("litgpt.generate.base")
    cross_entropy: Any = importlib.import_module("litgpt.utils").chunked_cross_entropy
    gpt = case["kind"] == "gpt"
    window: Any = {}
    if case["window"]:
        indices = [1] * case["layers"]
        window = {"sliding_window_size": case["window"], "sliding_window_indices": indices}
    config = library.Config(
        n_layer=case["layers"],
        n_embd=case["dim"],
        n_head=case["heads"],
        n_query_groups=case["kv_heads"] or case["heads"],
        intermediate_size=case["ff"] or 4 * case["dim"],
        vocab_size=case["vocab"],
        padded_vocab_size=case["vocab"],
        block_size=case["context"],
        parallel_residual=False,
        bias=gpt,
        norm_class_name="LayerNorm" if gpt else "RMSNorm",
        mlp_class_name="GptNeoxMLP" if gpt else "LLaMAMLP",
        gelu_approximate="tanh",
        rotary_percentage=1.0,  # it has no learned positions
        **window,
    )
    model, ids = library.GPT(config), drawn(case)
    if case["work"] in ("train", "start"):
        labels = ids.roll(-1, 1)
        return trained(model, lambda: cross_entropy(model(ids), labels))
    model.eval()
    model.max_seq_length = case["context"]
    model.set_kv_cache(batch_size=case["batch"])
    if case["work"] == "prefill":
        chunk = case["window"] or case["length"]  # it reads no more than a window at once
        parts = [torch.arange(n, n + chunk) for n in range(0, case["length"], chunk)]
        return torch.no_grad()(lambda: [model(ids[:, part], part)[:, -1] for part in parts])
    greedy = {"temperature": 0.0, "top_p": 0.0}
    if case["batch"] == 1:
        return lambda: base.generate(model, ids[0], case["context"], **greedy)
    rest = {"sample_args": greedy, "include_prompt": False, "include_eos": True}
    return lambda: list(base.batched_generate_fn(model, ids, case["context"], **rest))


def x_transformers(case: Case) -> Step:
    """Its decoder with flash attention, and its wrapper for texts."""
    library: Any = importlib.import_module("x_transformers")
    if case["work"] == "prefill":
        raise SystemExit("its windows are of another kind")
    gpt = case["kind"] == "gpt"
    llama = {"rotary_pos_emb": True, "use_rmsnorm": True, "ff_glu": True, "ff_swish": True}
    layers = library.Decoder(
        dim=case["dim"],
        depth=case["layers"],
        heads=case["heads"],
        attn_dim_head=case["dim"] // case["heads"],
        attn_flash=True,
        attn_kv_heads=case["kv_heads"],
        ff_mult=(case["ff"] or 4 * case["dim"]) / case["dim"],
        ff_no_bias=not gpt,
        **({} if gpt else llama),
    )
    inner = library.TransformerWrapper(
        num_tokens=case["vocab"],
        max_seq_len=case["context"] + 1,  # in training it takes the labels from what it reads
        attn_layers=layers,
        use_abs_pos_emb=gpt,
        tie_embedding=gpt,
    )
    model, ids = library.AutoregressiveWrapper(inner), drawn(case)
    if case["work"] in ("train", "start"):
        longer = drawn(case | {"length": case["length"] + 1})
        return trained(model, lambda: model(longer))
    return lambda: model.generate(ids, case["new"], temperature=0.0, cache_kv=True)


def drawn(case: Case) -> Any:
    """The ids that all read, (batch, length)."""
    import torch

    dice = torch.Generator().manual_seed(0)
    return torch.randint(case["vocab"], (case["batch"], case["length"]), generator=dice)


def trained(model: Any, loss: Step) -> Step:
    """A step as each of them writes it in its examples."""
    import torch

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=BETAS, weight_decay=DECAY)

    def step() -> float:
        found = loss()
        found.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return float(found.detach())

    return step
