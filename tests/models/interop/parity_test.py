# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Random checkpoints give the same logits here and in `transformers`.

All in float32. Two implementations differ by the order of sums: with widths up
to 64 and states of size about 1 that is 1e-6; 1e-4 is the bound of the issue.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxtok.models import interop, mrt5, transformer
from jaxtok.nn import cross, platform, shorteners
from jaxtok.train import sharding

pytestmark = pytest.mark.torch

VOCAB, T = 50, 12
ATOL = 1e-4

LLAMA = dict(
  hidden_size=48,
  intermediate_size=80,
  num_hidden_layers=2,
  num_attention_heads=6,
  num_key_value_heads=2,
  max_position_embeddings=64,
)
T5 = dict(d_model=32, d_kv=8, d_ff=48, num_heads=3, num_layers=2)
T5 |= dict(num_decoder_layers=3, decoder_start_token_id=0)
ROPE3 = dict(rope_type='llama3', rope_theta=1e4, factor=4.0)
ROPE3 |= dict(low_freq_factor=1.0, high_freq_factor=4.0)
ROPE3 |= dict(original_max_position_embeddings=16)

# Name -> (class prefix, class suffix, settings).
DECODERS = {
  'llama_gqa': ('Llama', 'ForCausalLM', LLAMA),
  'llama_tied_theta': (
    'Llama',
    'ForCausalLM',
    LLAMA
    | dict(
      tie_word_embeddings=True,
      num_key_value_heads=6,
      rope_parameters=dict(rope_type='default', rope_theta=500.0),
      rms_norm_eps=1e-5,
    ),
  ),
  'llama_scaled_biased': (
    'Llama',
    'ForCausalLM',
    LLAMA
    | dict(
      rope_parameters=ROPE3, attention_bias=True, mlp_bias=True, head_dim=16
    ),
  ),
  'llama_linear_rope': (
    'Llama',
    'ForCausalLM',
    LLAMA
    | dict(
      rope_parameters=dict(rope_type='linear', rope_theta=1e4, factor=2.0)
    ),
  ),
  'qwen2': ('Qwen2', 'ForCausalLM', LLAMA),
  'qwen2_tied': (
    'Qwen2',
    'ForCausalLM',
    LLAMA | dict(tie_word_embeddings=True),
  ),
  'qwen3': ('Qwen3', 'ForCausalLM', LLAMA | dict(head_dim=16)),
  'gpt2': (
    'GPT2',
    'LMHeadModel',
    dict(n_positions=64, n_embd=48, n_layer=2, n_head=4),
  ),
}
ENCODER_DECODERS = {
  't5_v1_0': ('T5', 'ForConditionalGeneration', T5),
  't5_v1_1': (
    'T5',
    'ForConditionalGeneration',
    T5 | dict(feed_forward_proj='gated-gelu', tie_word_embeddings=False),
  ),
  'byt5_tied_unscaled': (
    'T5',
    'ForConditionalGeneration',
    T5
    | dict(
      feed_forward_proj='gated-gelu',
      scale_decoder_outputs=False,
      relative_attention_num_buckets=16,
      relative_attention_max_distance=20,
    ),
  ),
}
BERT = dict(
  hidden_size=48,
  num_hidden_layers=2,
  num_attention_heads=4,
  intermediate_size=64,
  max_position_embeddings=32,
)
ROBERTA = BERT | dict(max_position_embeddings=34, type_vocab_size=1)
ENCODERS = {
  'bert_mlm': ('Bert', 'ForMaskedLM', BERT),
  'bert_bare': ('Bert', 'Model', BERT),
  'roberta_mlm': ('Roberta', 'ForMaskedLM', ROBERTA),
  'roberta_bare': ('Roberta', 'Model', ROBERTA),
}
LONG_T = 150
LONG = {
  'llama_gqa': DECODERS['llama_gqa'],
  'gpt2_long': (
    'GPT2',
    'LMHeadModel',
    dict(n_positions=LONG_T, n_embd=48, n_layer=2, n_head=4),
  ),
  'bert_long': (
    'Bert',
    'ForMaskedLM',
    BERT | dict(max_position_embeddings=LONG_T),
  ),
  't5_v1_1': ENCODER_DECODERS['t5_v1_1'],
}
ALL = DECODERS | ENCODER_DECODERS | ENCODERS


@pytest.fixture(scope='module')
def torch():
  torch = pytest.importorskip('torch')
  torch.set_num_threads(1)
  return torch


@pytest.fixture(scope='module')
def checkpoint(torch, tmp_path_factory):
  """Returns `make(name) -> (their model, folder)`, each made once."""
  transformers = pytest.importorskip('transformers')
  made = {}

  def make(name):
    if name in made:
      return made[name]
    prefix, suffix, settings = (ALL | LONG)[name]
    torch.manual_seed(len(made))
    config = getattr(transformers, f'{prefix}Config')(
      vocab_size=VOCAB, **settings
    )
    if 'scale_decoder_outputs' in settings:
      config.scale_decoder_outputs = False
    theirs = getattr(transformers, prefix + suffix)(config).eval()
    with torch.no_grad():
      for param in theirs.parameters():  # Biases and norms are constant.
        param += 0.1 * torch.randn_like(param)
      if settings.get('tie_word_embeddings') is False and prefix == 'T5':
        head = torch.randn(VOCAB, settings['d_model'])
        theirs.lm_head.weight = torch.nn.Parameter(head)
    folder = tmp_path_factory.mktemp(name)
    theirs.save_pretrained(folder)
    made[name] = theirs, folder
    return made[name]

  return make


def tokens(seed, *shape):
  return np.random.default_rng(seed).integers(2, VOCAB, size=shape)


def run_theirs(torch, model, **inputs):
  with torch.no_grad():
    out = model(**{k: torch.tensor(v) for k, v in inputs.items()})
  return (out.logits if 'logits' in out else out.last_hidden_state).numpy()


@nnx.jit(static_argnames='has_head')
def run_ours(model, ids, *, has_head=True, **inputs):
  out = model(ids, **inputs)
  return model.logits(out.hidden_btd) if has_head else out.hidden_btd


def as_int32(x):
  return jnp.asarray(x, jnp.int32)


@pytest.mark.parametrize('name', DECODERS)
def test_decoder_logits_match(torch, checkpoint, name):
  theirs, folder = checkpoint(name)
  _, ours = interop.load(folder)
  ids = tokens(0, 2, T)
  want = run_theirs(torch, theirs, input_ids=ids)
  got = run_ours(ours, as_int32(ids))
  np.testing.assert_allclose(got, want, atol=ATOL)


@pytest.fixture
def one_cpu():
  """The form of a program that users of one CPU run; see `nn.platform`."""
  with jax.set_mesh(sharding.Config(data=1).make()):
    assert platform.is_single_cpu()
    yield


@pytest.mark.usefixtures('one_cpu')
@pytest.mark.parametrize('name', LONG)
def test_long_rows_match_on_one_cpu(torch, checkpoint, name):
  """Rows of three blocks of attention, half of them padded."""
  theirs, folder = checkpoint(name)
  _, ours = interop.load(folder)
  ids = tokens(0, 2, LONG_T)
  keep = np.arange(LONG_T) < np.asarray([[LONG_T], [90]])
  mask = dict(attention_mask=keep.astype(int))
  if name == 't5_v1_1':
    inputs = dict(input_ids=tokens(1, 2, LONG_T), decoder_input_ids=ids)
    want = run_theirs(torch, theirs, **inputs, **mask)
    source = cross.Source(as_int32(inputs['input_ids']), as_int32(keep))
    got = run_ours(ours, as_int32(ids), context=source)
    keep = np.ones_like(keep)
  else:
    want = run_theirs(torch, theirs, input_ids=ids, **mask)
    got = run_ours(ours, as_int32(ids), segment_ids=as_int32(keep))
  np.testing.assert_allclose(got[keep], want[keep], atol=ATOL)


@pytest.mark.parametrize('name', ENCODER_DECODERS)
def test_encoder_decoder_logits_match_with_padded_inputs(
  torch, checkpoint, name
):
  theirs, folder = checkpoint(name)
  _, ours = interop.load(folder)
  source, ids = tokens(0, 2, 40), tokens(1, 2, T)
  keep = np.arange(40) < np.asarray([[40], [25]])
  want = run_theirs(
    torch,
    theirs,
    input_ids=source,
    attention_mask=keep.astype(int),
    decoder_input_ids=ids,
  )

  @nnx.jit
  def run(model, source, keep, ids):
    context = model.encode(source, segment_ids=keep)
    return model.logits(model(ids, context=context).hidden_btd)

  got = run(ours, as_int32(source), as_int32(keep), as_int32(ids))
  np.testing.assert_allclose(got, want, atol=ATOL)


@pytest.mark.parametrize('name', ENCODERS)
def test_encoder_states_match_with_padded_rows(torch, checkpoint, name):
  theirs, folder = checkpoint(name)
  _, ours = interop.load(folder)
  ids = tokens(0, 2, T)
  keep = np.arange(T) < np.asarray([[T], [7]])
  want = run_theirs(
    torch, theirs, input_ids=ids, attention_mask=keep.astype(int)
  )
  got = run_ours(
    ours,
    as_int32(ids),
    segment_ids=as_int32(keep),
    has_head=name.endswith('mlm'),
  )
  np.testing.assert_allclose(got[keep], want[keep], atol=ATOL)


@pytest.mark.parametrize('name', ALL)
def test_transformers_loads_what_we_save(torch, checkpoint, name, tmp_path):
  theirs, folder = checkpoint(name)
  _, ours = interop.load(folder)
  interop.save(ours, tmp_path / 'saved', max_shard_bytes=20_000)
  back, report = type(theirs).from_pretrained(
    tmp_path / 'saved', output_loading_info=True
  )
  missing = [n for n in report['missing_keys'] if 'pooler' not in n]
  assert not missing
  assert not report['unexpected_keys']
  assert not report['mismatched_keys']
  inputs = dict(input_ids=tokens(0, 2, T))
  if name in ENCODER_DECODERS:
    inputs['decoder_input_ids'] = tokens(1, 2, 5)
  want = run_theirs(torch, theirs, **inputs)
  got = run_theirs(torch, back.eval(), **inputs)
  np.testing.assert_allclose(got, want, atol=1e-6)  # The same weights.


def test_sharded_bfloat16_checkpoint_loads(torch, checkpoint, tmp_path):
  theirs, _ = checkpoint('llama_gqa')
  half = type(theirs)(theirs.config).to(torch.bfloat16)
  half.load_state_dict(theirs.state_dict())
  half.save_pretrained(tmp_path, max_shard_size='30KB')
  assert len(list(tmp_path.glob('model-*.safetensors'))) > 2
  ids = tokens(0, 2, T)
  # bfloat16 weights, float32 arithmetic: exact conversion on both sides.
  back = type(theirs).from_pretrained(tmp_path, dtype=torch.float32).eval()
  want = run_theirs(torch, back, input_ids=ids)
  _, ours = interop.load(tmp_path)
  got = run_ours(ours, as_int32(ids))
  np.testing.assert_allclose(got, want, atol=ATOL)
  _, ours = interop.load(tmp_path, dtype='bfloat16')
  assert all(p.dtype == jnp.bfloat16 for p in jax.tree.leaves(nnx.state(ours)))
  rough = run_ours(ours, as_int32(ids))
  # 8 bits of mantissa, logits of size about 1, some tens of roundings.
  np.testing.assert_allclose(rough, want, atol=0.1)


def test_names_without_prefix_load(torch, checkpoint, tmp_path):
  theirs, folder = checkpoint('gpt2')
  theirs.transformer.save_pretrained(tmp_path)
  _, bare = interop.load(tmp_path)
  _, whole = interop.load(folder)
  jax.tree.map(np.testing.assert_array_equal, nnx.state(bare), nnx.state(whole))


def test_our_configs_by_name_are_those_of_transformers(checkpoint):
  config, _ = interop.load(checkpoint('gpt2')[1])
  assert config == transformer.Config.gpt2(
    vocab_size=VOCAB, max_len=64, dim=48, num_layers=2, mlp_dim=192
  )
  config, _ = interop.load(checkpoint('t5_v1_1')[1])
  sizes = dict(dim=32, head_dim=8, mlp_dim=48, num_heads=3, num_layers=3)
  assert config == transformer.Config.byt5(
    vocab_size=VOCAB, num_encoder_layers=2, **sizes
  )


@pytest.mark.parametrize('deletion', ['off', 'hard'])
def test_mrt5_that_deletes_nothing_matches_byt5(torch, checkpoint, deletion):
  """Padded inputs; a gate whose bias keeps every position."""
  theirs, folder = checkpoint('t5_v1_1')
  _, byt5 = interop.load(folder)
  ours = mrt5.adopt(
    byt5,
    rngs=nnx.Rngs(0),
    shortener=shorteners.Gate(bias=100.0),
    shorten_at=1,
    softmax_one=False,
  )
  source, ids = tokens(0, 2, 40), tokens(1, 2, T)
  keep = np.arange(40) < np.asarray([[40], [25]])
  want = run_theirs(
    torch,
    theirs,
    input_ids=source,
    attention_mask=keep.astype(int),
    decoder_input_ids=ids,
  )

  @nnx.jit
  def run(model, source, keep, ids):
    context = cross.Source(source, keep)
    output = model(ids, context=context, deletion=deletion)
    return model.logits(output.hidden_btd)

  got = run(ours, as_int32(source), as_int32(keep), as_int32(ids))
  np.testing.assert_allclose(got, want, atol=ATOL)
