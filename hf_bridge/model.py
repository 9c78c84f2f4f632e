"""Our model as one of the library's: ``RecipeForCausalLM``, for generate, pipelines and Trainer.

The config carries the resolved recipe; the weights keep our names.  The library's cache is a thin
cover over ours, and its attention mask becomes our padding, from which positions are counted.
"""

# The library is typed in parts only.
# mypy: allow-untyped-calls
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from builder.loss import IGNORED
from builder.model import Model, redraw

if TYPE_CHECKING:
    from blocks.cache import Cache as Memory


class RecipeConfig(PreTrainedConfig):
    """A resolved recipe, and what the library asks every config."""

    model_type = "recipe_page"

    recipe: str = ""
    vocab_size: int = 0
    hidden_size: int = 0
    num_hidden_layers: int = 0
    max_position_embeddings: int = 0
    use_cache: bool = True
    tie_word_embeddings: bool = False
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None


class RecipeCache(Cache):
    """The library's interface to our cache, made at the first call, when the batch is known."""

    def __init__(self, memory: Memory | None = None) -> None:
        super().__init__(layers=[])
        self.memory = memory

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0 if self.memory is None else len(self.memory)

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    @property
    def batch_size(self) -> int:
        return -1 if self.memory is None else self.memory.batch_size

    @property
    def is_linear(self) -> list[bool]:
        return [False]

    @property
    def is_sliding(self) -> list[bool]:
        return [False]

    @property
    def is_croppable(self) -> bool:
        return True

    @property
    def is_initialized(self) -> bool:
        return self.memory is not None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        if self.memory is not None:
            self.memory.reorder(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.memory is not None:
            self.memory.reorder(torch.arange(self.memory.batch_size).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        if self.memory is not None:
            self.memory.crop(len(self.memory) - abs(tokens_to_remove))

    def reset(self) -> None:
        if self.memory is not None:
            self.memory.reset()


class RecipeForCausalLM(PreTrainedModel, GenerationMixin):
    """A model built from the recipe in its config; ``model`` is ours."""

    config_class = RecipeConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = False
    _supports_sdpa = True
    _no_split_modules: list[str] = []

    def __init__(self, config: RecipeConfig, model: Model | None = None) -> None:
        super().__init__(config)
        if model is None:
            from builder import build, load_recipe

            model = build(load_recipe(config.recipe))  # on meta, where a folder is about to be read
        self.model = model
        self._tied_weights_keys = tied_names(model)
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Ours are drawn when they are built; what a folder lacks is drawn as it was then."""
        if module is self.model and isinstance(module, Model):
            redraw(module, lambda one: not getattr(one, "_is_hf_initialized", False))

    def get_input_embeddings(self) -> torch.nn.Module:
        return self._leaf("embedding")

    def get_output_embeddings(self) -> torch.nn.Module:
        return self._leaf("head")

    def _leaf(self, kind: str) -> torch.nn.Module:
        from builder.graph import leaves

        name = next(leaf.name for leaf in leaves(self.model.recipe.graph) if leaf.kind == kind)
        module: torch.nn.Module = self.model.get_submodule(name)
        return module

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        cache: RecipeCache | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> Any:
        """Logits, and with ``labels`` (the ids themselves: they are shifted here) the mean loss.

        Hidden states are what each layer reads, and what the head does, each ``(B, T, dim)``.
        """
        if output_attentions:
            raise ValueError("attentions are not kept: no kernel that computes them gives them")
        if input_ids is None or inputs_embeds is not None:
            raise ValueError("the model reads input_ids, and no embeddings")
        if use_cache and cache is None:
            cache = RecipeCache()
        if output_hidden_states is None:
            output_hidden_states = getattr(self.config, "output_hidden_states", False)
        padding = padding_of(attention_mask)
        with self._hidden_states(keep=bool(output_hidden_states)) as states:
            if labels is not None:
                expected = F.pad(labels[:, 1:], (0, 1), value=IGNORED).to(input_ids.device)
                logits, loss = self.model.logits_and_loss(input_ids, expected, padding)
            else:
                memory = None if cache is None else self._memory(cache, len(input_ids))
                logits, loss = self.model(input_ids, cache=memory, padding=padding), None
        if cache is not None:  # if it was cropped, some tokens may have been read again
            states = [x[:, -input_ids.shape[1] :] for x in states]
        kept = tuple(states) if output_hidden_states else None
        out = CausalLMOutputWithPast(loss=loss, logits=logits, cache=cache, hidden_states=kept)
        return out.to_tuple() if return_dict is False else out

    @contextmanager
    def _hidden_states(self, keep: bool) -> Iterator[list[Tensor]]:
        """A list to which each layer, and the head, add what they read meanwhile."""
        states: list[Tensor] = []
        layers = getattr(self.model, "layers", ())
        hooks = [
            part.register_forward_pre_hook(lambda _, read: states.append(read[0]))
            for part in ((*layers, self.get_output_embeddings()) if keep else ())
        ]
        try:
            yield states
        finally:
            for hook in hooks:
                hook.remove()

    def _memory(self, cache: RecipeCache, batch_size: int) -> Memory:
        if not isinstance(cache, RecipeCache):
            held = type(cache).__name__
            raise ValueError(f"a {held} holds another kind of state than this model's cache")
        if cache.memory is None:
            cache.memory = self.model.new_cache(batch_size)
        return cache.memory

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """Generation begins with an empty cache of ours."""
        if generation_config.cache_implementation is not None:
            raise ValueError(
                f"cache_implementation={generation_config.cache_implementation!r} is not supported"
            )
        if generation_config.use_cache and model_kwargs.get("cache") is None:
            model_kwargs["cache"] = RecipeCache()


def padding_of(attention_mask: Tensor | None) -> Tensor | None:
    """True where there is no token; None where all are tokens."""
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2:
        raise ValueError(
            f"an attention mask of shape {tuple(attention_mask.shape)}: (B, S) is read"
        )
    padding = attention_mask == 0
    return padding if bool(padding.any()) else None


def tied_names(model: Model) -> dict[str, str]:
    """Each parameter that is another one, and that one."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {f"model.{name}": f"model.{first[id(p)]}" for name, p in every if first[id(p)] != name}


def config_of(model: Model) -> RecipeConfig:
    """The config that a model's recipe is."""
    recipe = model.recipe
    graph = recipe.graph
    return RecipeConfig(
        recipe=recipe.resolved,
        vocab_size=graph.vocab,
        hidden_size=recipe.dims.dim,
        num_hidden_layers=len(graph.layers),
        max_position_embeddings=graph.context,
        tie_word_embeddings=bool(tied_names(model)),
        architectures=[RecipeForCausalLM.__name__],
        dtype=next(model.parameters()).dtype,
    )


def as_transformers(model: Model) -> RecipeForCausalLM:
    """Our model under the library's interface; the weights are shared, not copied."""
    wrapped = RecipeForCausalLM(config_of(model), model)
    wrapped.train(model.training)
    return wrapped


AutoConfig.register(RecipeConfig.model_type, RecipeConfig)
AutoModelForCausalLM.register(RecipeConfig, RecipeForCausalLM)
