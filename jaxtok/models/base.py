# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The call signature that all sequence models share.

  output = model(
      tokens_bt, positions=None, segment_ids=None, context=None, cache=None,
      mask=None, rng=None)
  logits_btv = model.logits(output.hidden_btd)
  flops = model.flops(Shape(b=8, t=256))     # forward, by part
  cache = model.init_cache(batch_size, max_len)

Models are `nnx.Module`s that hold parameters only; caches, masks and PRNG keys
are arguments and results. A model's `Config` has `vocab_size` (0 means "from
the tokenizer", which `train` fills in) and `make(rngs)`. One that reads more in
ids than their number, such as bytes or marks of words, has
`check_tokenizer(tokenizer)`, which `train` calls; it raises a ValueError if the
tokenizer means something else by them.
"""

import dataclasses
from typing import Any, Protocol

import jax
from jaxtyping import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Output:
  """The result of a model call.

  Attributes:
    hidden_btd: Final states, after the last norm.
    cache: The updated cache, or None if none was given.
    aux: What objectives may use, by name; all are optional:
      target_mask_bt: False where training should leave the target out,
        because a shortened sequence had no room for what predicts it.
      logits: Arguments that `model.logits` needs besides the states, by name;
        only of calls with an `rng`.
      penalty_bt: Added to each target's loss, nats; broadcast over targets.
      metrics: Name to `objectives.base.Mean` of arrays [b], reported.
    reduction: How a shortened sequence maps back, see `nn.reduction`.
  """

  hidden_btd: Any
  cache: Any = None
  aux: dict[str, Any] = dataclasses.field(default_factory=dict)
  reduction: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Source:
  """What an encoder has yet to read.

  Attributes:
    tokens_bs: Token ids.
    segment_ids_bs: Document of each; document i of the decoder's row sees
      document i of the context, 0 is padding. None: all see everything.
    positions_bs: Positions within the document; None counts from 0.
  """

  tokens_bs: Any
  segment_ids_bs: Any = None
  positions_bs: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
  """Sizes of one model call, for counting FLOPs.

  Attributes:
    b: Rows.
    t: Positions per row.
    s: Length of the context of an encoder-decoder; 0 without one.
    kv: Keys per query if they are more than `t` (decoding with a cache);
      0 means `t`.
  """

  b: int
  t: int
  s: int = 0
  kv: int = 0


class SequenceModel(Protocol):
  """Protocol of models over token sequences."""

  def __call__(
    self,
    tokens_bt: Int[Array, 'b t'],
    *,
    positions: Int[Array, 'b t'] | None = None,
    segment_ids: Int[Array, 'b t'] | None = None,
    context: Any = None,
    cache: Any = None,
    mask: Any = None,
    rng: Array | None = None,
  ) -> Output: ...

  def logits(
    self, hidden_btd: Float[Array, 'b t d']
  ) -> Float[Array, 'b t v']: ...

  def flops(self, shape: Shape) -> dict[str, float]:
    """Floating-point operations of one forward pass (2 per MAC), by part.

    Training counts 'head' and 'patcher' in a way of their own; see
    `train.flops.per_step`. A model with units counts the room for them, which
    is what training computes, and has a second argument `kept`: units per
    position of the text, counted in place of the room.
    """
    ...

  def init_cache(self, batch_size: int, max_len: int) -> Any: ...

  # A model with controllers (`nn.rate_control`) also has
  # `advance(metrics) -> None`: the training step calls it once per step with
  # the metrics of the whole batch, name to `objectives.base.Mean`.
  #
  # One that can start from the weights of another kind has `new_parts(source)
  # -> tuple[str, ...]`, by the config of that other model: its own parts that
  # keep their initial values. It raises a ValueError if these weights would
  # compute something else here.
