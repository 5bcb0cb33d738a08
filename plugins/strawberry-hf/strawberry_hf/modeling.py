"""A model of any recipe as a model of transformers, with its cache, loss and generation."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

import strawberry
from strawberry.contracts import components
from strawberry.generation import as_trained
from strawberry_hf.caching import StrawberryCache, left_padding
from strawberry_hf.configuration import StrawberryConfig

IGNORED = -100
"""The label of a position without a target."""
CACHE = (
    "cache"
    if "cache" in {each.name for each in fields(CausalLMOutputWithPast)}
    else "past_key_values"
)
"""The name of the cache in this version of transformers."""


class StrawberryForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """`model(input_ids).logits` are the recipe's model's, bit for bit.

    Trained by transformers' Trainer, the loss is the recipe's: its objective, and the auxiliary
    losses of its components. Sequences may be padded: on the right, where no output depends on it,
    and on the left, where each sequence is then computed by itself.
    """

    config_class = StrawberryConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    accepts_loss_kwargs = True
    _is_stateful = True  # a cache can't be cut back, so there is no assisted decoding

    def __init__(self, config: StrawberryConfig) -> None:
        super().__init__(config)
        recipe = config.strawberry_recipe()
        self.model = strawberry.build(recipe)
        self.model.separator = config.separator
        as_trained(self.model, recipe, config.step)
        self.cacheable = all(part.cacheable and part.causal for part in components(self.model))
        persistent = self.model.state_dict().keys()
        self.derived = {
            name: buffer.clone()
            for name, buffer in self.model.named_buffers()
            if name not in persistent
        }
        if not self.cacheable:
            config.use_cache = False
        self.post_init()  # type: ignore[no-untyped-call]
        if self.generation_config is not None and not self.cacheable:
            self.generation_config.use_cache = False

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the recipe has initialised them."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As any model of transformers, which leaves buffers empty that are in no file."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for name, value in model.derived.items():
            model.model.get_buffer(name).copy_(value)
        return loaded

    def get_input_embeddings(self) -> nn.Module:
        """The token table."""
        return self.model.embedding

    def get_output_embeddings(self) -> nn.Module | None:
        """The head; None if it is the token table."""
        return self.model.head

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Raises ValueError: the recipe says how many ids there are."""
        raise ValueError("the number of ids is the recipe's; train a recipe with more of them")

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Logits (B, T, V) of ids (B, T); with labels, the loss too.

        In training with labels there is the loss alone. In evaluation it is the mean cross-entropy.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), or with a cache (B, tokens so far + T): 0 for padding, which
                stands at either end.
            labels: (B, T), not shifted; -100 is ignored.
            use_cache: return a cache, to go on from.
            logits_to_keep: logits of the last positions only; 0 for all.
            return_dict: False for a tuple.
            num_items_in_batch: number of targets of a step of which this batch is a part.
            kwargs: `cache` or `past_key_values`; names that this model has no use for are ignored.

        Raises:
            ValueError: what this model can't do.
        """
        if input_ids is None:
            raise ValueError("input_ids are needed: a recipe's model reads ids, not embeddings")
        if self.training:
            _TRAINED.add(self)
        given = kwargs.get("cache")
        cache: StrawberryCache | None = kwargs.get("past_key_values") if given is None else given
        if labels is not None:
            loss, logits = self._loss(input_ids, labels, num_items_in_batch, attention_mask)
        else:
            if cache is None and use_cache:
                self._need_cache()
                cache = StrawberryCache(self._room(input_ids.shape[1]))
            held = 0 if cache is None else cache.get_seq_length()
            padding = left_padding(attention_mask, held + input_ids.shape[1], causal=self.cacheable)
            loss, logits = None, self._logits(input_ids, cache, padding, logits_to_keep)
        kept: Any = {CACHE: cache}
        output = CausalLMOutputWithPast(loss=loss, logits=logits, **kept)
        return output if return_dict is not False else output.to_tuple()

    def _logits(
        self,
        ids: Tensor,
        cache: StrawberryCache | None,
        padding: Sequence[int],
        kept: int | Tensor,
    ) -> Tensor:
        """Logits of the kept positions (B, T, V); zero where a row is padded."""

        def head(hidden: Tensor) -> Tensor:
            last = slice(-kept, None) if isinstance(kept, int) and kept else slice(None)
            rows = hidden[:, last] if isinstance(kept, int) else hidden[:, kept]
            return self.model.head_logits(rows)

        if cache is not None:
            hidden = cache.run(self.model, ids, padding)
        elif not any(padding):
            hidden = self.model.hidden(ids)
        else:
            hidden = by_row(self.model.hidden, ids, padding)
        return head(hidden)

    def _loss(
        self, ids: Tensor, labels: Tensor, items: Tensor | int | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The loss, and in evaluation the logits."""
        if any(left_padding(mask, ids.shape[1], causal=self.cacheable)):
            raise ValueError("pad sequences with labels on the right, not on the left")
        if any(teacher.model is None for teacher in self.model.teachers):
            raise ValueError("the objective learns from another run, which the folder doesn't have")
        targets = torch.full_like(labels, IGNORED)
        targets[:, :-1] = labels[:, 1:]
        targets = targets.masked_fill(targets < 0, -1)
        own = (targets >= 0).sum()
        if not self.training:
            nats = self.model.measure(ids, targets).rows.sum()
            return nats / own.clamp(min=1), self.model(ids)
        if items is None:
            return self.model.loss(ids, targets).total, None
        count = torch.as_tensor(items, device=ids.device)
        share = float(own) / max(1.0, float(count))
        return self.model.loss(ids, targets, count, share=share).total, None

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As any model of transformers; raises ValueError if tokens depend on later ones."""
        if not self.model.objective.left_to_right:
            raise ValueError("this model's objective doesn't predict the token that follows")
        ahead = {type(p).__name__ for p in components(self.model) if not p.causal}
        if ahead:
            raise ValueError(
                f"{', '.join(sorted(ahead))}: not causal: outputs depend on later tokens, which "
                "don't exist during generation"
            )
        return super().generate(*args, **kwargs)

    def _room(self, length: int) -> int:
        """Tokens of a cache without a known length: a window of training, or what is given."""
        return max(length, int(self.config.max_position_embeddings))

    def _need_cache(self) -> None:
        if not self.cacheable:
            raise ValueError("this model has no decoding cache; pass use_cache=False")

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """False: keys and values are one kind of state among others."""
        return False

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """A cache as long as the longest text that is asked for."""
        if generation_config.use_cache is False or model_kwargs.get(CACHE) is not None:
            return
        self._need_cache()
        if generation_config.cache_implementation is not None:
            raise ValueError("cache_implementation: a recipe's model has a cache of its own")
        model_kwargs[CACHE] = StrawberryCache(int(generation_config.max_length))


_TRAINED: weakref.WeakSet[StrawberryForCausalLM] = weakref.WeakSet()
"""Models that have run in training."""


def _stepped(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Call `after_step` of the components of the model that an optimizer has stepped.

    A component may have something to do then (the biases of a router), and the Trainer does not
    tell a model of its steps. Of several optimizers, the one with the first parameter counts.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for each in list(_TRAINED):
        first = next((p for p in each.parameters() if p.requires_grad), None)
        if first is not None and id(first) in held:
            each.model.after_step()


register_optimizer_step_post_hook(_stepped)


def by_row(run: Callable[[Tensor], Tensor], ids: Tensor, padding: Sequence[int]) -> Tensor:
    """The results (B, T, ...) of each row without its padding; zero there."""
    rows = [run(row[None, begin:])[0] for row, begin in zip(ids, padding, strict=True)]
    out = rows[0].new_zeros(len(rows), ids.shape[1], *rows[0].shape[1:])
    for row, (result, begin) in enumerate(zip(rows, padding, strict=True)):
        out[row, begin:] = result
    return out
