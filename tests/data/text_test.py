# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Every source byte is charged once, in any order, and runs resume exactly."""

import itertools
import json
import pickle
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxtok.data import batch as batch_lib
from jaxtok.data import pack, stored, text, tokens, window
from jaxtok.tokenizers import bytes as byte_tokenizers

DOCUMENTS = [b'', b'ab', b'', b'cdefgh', bytes(range(256)), b'\n', b'xy' * 40]

corpora = st.lists(st.binary(max_size=40), min_size=1, max_size=12)
lengths = st.integers(1, 17)
quick = settings(
  deadline=None,
  max_examples=40,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def tokenizers(windowed, bpe):
  """One tokenizer of each kind."""
  return {
    'bytes': byte_tokenizers.Config().make(),
    'byt5': byte_tokenizers.Config(map='byt5').make(),
    'bpe': bpe,
    'windowed': windowed,
  }


KINDS = ['bytes', 'byt5', 'bpe', 'windowed']
kinds = pytest.mark.parametrize('kind', KINDS)


def make(memory, documents, tokenizer, **options):
  return text.Config(source=memory(documents), **options).make(tokenizer)


def stream_of(documents, tokenizer):
  """Tokens and charges of BOS doc1 BOS doc2 ..., written out plainly."""
  ids, charges = [], []
  for data in documents:
    some, offsets = tokenizer.encode_with_offsets(data)
    reached = 0
    ids.append(tokens.bos_id(tokenizer))
    charges.append(0)
    for token, end in zip(some.tolist(), offsets[:, 1].tolist(), strict=True):
      ids.append(token)
      charges.append(max(0, end - reached))
      reached = max(reached, end)
  return ids, charges


@kinds
def test_rows_are_windows_of_the_stream(memory, tokenizers, kind):
  tokenizer = tokenizers[kind]
  rows = make(memory, DOCUMENTS, tokenizer, seq_len=7).rows('train')
  ids, charges = stream_of(DOCUMENTS, tokenizer)
  bos = tokens.bos_id(tokenizer)
  assert len(rows) == -(-(len(ids) - 1) // 7)
  for i in range(len(rows)):
    row = rows[i]
    assert set(row) == set(batch_lib.TEXT_KEYS)
    size = min(7, len(ids) - 1 - 7 * i)
    want = ids[7 * i : 7 * i + size + 1]
    pad = [0] * (7 - size)
    assert row['tokens_bt'].tolist() == want[:-1] + pad
    assert row['targets_bt'].tolist() == want[1:] + pad
    assert row['loss_mask_bt'].tolist() == [1] * size + pad
    want_bytes = charges[7 * i + 1 : 7 * i + size + 1]
    assert row['num_bytes_bt'].tolist() == want_bytes + pad
    period = getattr(tokenizer, 'tokens_per_window', 1)
    begin = max(at for at in range(7 * i + 1) if ids[at] == bos)
    segments, positions = [1], [(7 * i - begin) % period]
    for token in want[1:-1]:
      segments.append(segments[-1] + (token == bos))
      positions.append(0 if token == bos else positions[-1] + 1)
    assert row['segment_ids_bt'].tolist() == segments[:size] + pad
    assert row['positions_bt'].tolist() == positions[:size] + pad


@kinds
@quick
@given(documents=corpora, seq_len=lengths)
def test_bytes_of_rows_sum_to_the_corpus(
  memory, tokenizers, kind, documents, seq_len
):
  data = make(memory, documents, tokenizers[kind], seq_len=seq_len)
  rows = data.rows('train')
  batch = rows.batch(np.arange(len(rows)))
  batch_lib.validate(batch)
  total = sum(map(len, documents))
  assert batch['num_bytes_bt'].sum() == data.num_bytes('train') == total
  num_targets = len(stream_of(documents, tokenizers[kind])[0]) - 1
  assert batch['loss_mask_bt'].sum() == num_targets


@kinds
@quick
@given(documents=corpora, seq_len=lengths, seed=st.integers(0, 2**40))
def test_bytes_of_a_shuffled_epoch_sum_to_the_corpus(
  memory, tokenizers, kind, documents, seq_len, seed
):
  tokenizer = tokenizers[kind]
  data = make(memory, documents, tokenizer, seq_len=seq_len)
  rows = window.Shuffled(data.tokens('train'), seq_len, seed)
  for epoch in range(2 if rows.num_rows else 0):
    numbers = np.arange(epoch * rows.num_rows, (epoch + 1) * rows.num_rows)
    # In three parts, as if three processes had made them.
    parts = [
      rows.batch(part) for part in np.array_split(numbers, 3) if len(part)
    ]
    got = sum(int(part['num_bytes_bt'].sum()) for part in parts)
    assert got == sum(map(len, documents))
    targets = np.concatenate(
      [p['targets_bt'][p['loss_mask_bt'] > 0] for p in parts]
    )
    want = stream_of(documents, tokenizer)[0]
    want.remove(tokens.bos_id(tokenizer))
    assert sorted(targets.tolist()) == sorted(want)


@kinds
@quick
@given(
  documents=corpora,
  seq_len=lengths,
  count=st.integers(1, 3),
  seed=st.integers(),
)
def test_bytes_of_packed_documents_sum_to_the_corpus(
  memory, tokenizers, kind, documents, seq_len, count, seed
):
  tokenizer = tokenizers[kind]
  data = make(memory, documents, tokenizer, seq_len=seq_len)
  found = []
  for index in range(count):
    pieces = pack.Pieces(
      data.tokens('train'),
      seq_len,
      seed=seed,
      process_index=index,
      process_count=count,
    )
    found += packed(pieces, 3, len(range(index, 2 * pieces.num_pieces, count)))
  assert sum(int(p['num_bytes_bt'].sum()) for p in found) == 2 * sum(
    map(len, documents)
  )
  bos = tokens.bos_id(tokenizer)
  want = []
  for document in documents:
    want += 2 * [*stream_of([document], tokenizer)[0][1:], bos]
  targets = [p['targets_bt'][p['loss_mask_bt'] > 0] for p in found]
  assert sorted(np.concatenate(targets).tolist()) == sorted(want)


def packed(pieces, num_rows, stop):
  """The batches of the first `stop` pieces."""
  batches, index = [], 0
  while index < stop:
    taken, places = pack.assign(pieces, index, num_rows, stop)
    index += len(taken)
    batches.append(pack.lay_out(pieces, taken, places, num_rows))
    batch_lib.validate(batches[-1])
  return batches


def test_packed_rows_hold_whole_documents(memory, tokenizers):
  tokenizer = tokenizers['bytes']
  documents = [b'%d' % i * (i % 8) for i in range(40)] + [b'z' * 50]
  data = make(memory, documents, tokenizer, seq_len=16)
  pieces = pack.Pieces(data.tokens('train'), 16, seed=3)
  batches = packed(pieces, 4, pieces.num_pieces)
  batch = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
  rows = [
    {key: value[i] for key, value in batch.items()}
    for i in range(len(batch['tokens_bt']))
  ]
  assert batch['num_bytes_bt'].sum() == sum(map(len, documents))
  assert (batch['loss_mask_bt'] == (batch['segment_ids_bt'] > 0)).all()
  found = []
  for row in rows:
    for segment in range(1, row['segment_ids_bt'].max() + 1):
      inside = row['segment_ids_bt'] == segment
      assert row['positions_bt'][inside].tolist() == list(range(inside.sum()))
      found.append(tokenizer.decode(row['targets_bt'][inside]))
  # 51 targets in pieces of 16.
  assert sorted(found) == sorted(documents[:-1] + [b'z' * 16] * 3 + [b'zz'])


@pytest.mark.parametrize('packing', ['window', 'pack'])
@pytest.mark.parametrize('seq_len', [7, 8, 12])
def test_positions_tell_the_place_in_a_window(
  memory, windowed, packing, seq_len
):
  documents = [bytes(range(40)), b'abc', b'', b'xy' * 30]
  data = make(memory, documents, windowed, seq_len=seq_len, packing=packing)
  batches = data.train_iterator(batch_size=3, seed=1)
  for _ in range(12):
    batch = next(batches)
    is_second = batch['targets_bt'] // 1_000 == 60  # 60,000 + length.
    is_token = (batch['loss_mask_bt'] > 0) & (batch['targets_bt'] != 69_999)
    place = batch['positions_bt'] % 3
    np.testing.assert_array_equal(is_second[is_token], place[is_token] == 1)


@pytest.mark.parametrize('packing', ['window', 'pack'])
@kinds
def test_training_resumes_exactly_anywhere(memory, tokenizers, kind, packing):
  data = make(memory, DOCUMENTS, tokenizers[kind], seq_len=8, packing=packing)
  iterator = data.train_iterator(batch_size=3, seed=1)
  states, batches = [], []
  for _ in range(40):
    states.append(json.dumps(iterator.get_state()))
    batches.append(next(iterator))
    batch_lib.validate(batches[-1])
  other = data.train_iterator(batch_size=3, seed=1)
  for start in (17, 0, 31):
    other.set_state(json.loads(states[start]))
    for want in batches[start : start + 9]:
      got = next(other)
      assert all((got[key] == want[key]).all() for key in want)
  third = data.train_iterator(batch_size=3, seed=2)
  assert any(
    (next(third)['tokens_bt'] != want['tokens_bt']).any() for want in batches
  )
  for one in (iterator, other, third):
    one.close()


def test_state_of_windows_is_the_global_row(memory, tokenizers):
  data = make(memory, DOCUMENTS, tokenizers['bytes'], seq_len=8)
  iterator = data.train_iterator(batch_size=3, seed=1, process_count=2)
  for _ in range(5):
    next(iterator)
  assert iterator.get_state()['row'] == 30
  iterator.close()


def test_windows_continue_on_another_number_of_processes(memory, tokenizers):
  data = make(memory, DOCUMENTS, tokenizers['bpe'], seq_len=4)

  def run(process_count, state, num_batches):
    iterators = [
      data.train_iterator(
        batch_size=12 // process_count,
        seed=5,
        process_index=index,
        process_count=process_count,
      )
      for index in range(process_count)
    ]
    batches = []
    for iterator in iterators:
      if state:
        iterator.set_state(state)
    for _ in range(num_batches):
      parts = [next(iterator) for iterator in iterators]
      batches.append(np.concatenate([part['tokens_bt'] for part in parts]))
    states = [iterator.get_state() for iterator in iterators]
    for iterator in iterators:
      iterator.close()
    assert all(one == states[0] for one in states)
    return batches, states[0]

  want, _ = run(1, None, 30)
  got = []
  state = None
  for count, num_batches in ((2, 7), (1, 3), (4, 11), (3, 9)):
    batches, state = run(count, state, num_batches)
    got += batches
  np.testing.assert_array_equal(got, want)


def test_packing_refuses_another_number_of_processes(memory, tokenizers):
  data = make(memory, DOCUMENTS, tokenizers['bytes'], seq_len=8, packing='pack')
  first = data.train_iterator(batch_size=2, seed=0, process_count=2)
  next(first)
  second = data.train_iterator(batch_size=2, seed=0)
  with pytest.raises(
    ValueError, match='process_count was 2 when the checkpoin'
  ):
    second.set_state(first.get_state())
  windows = make(memory, DOCUMENTS, tokenizers['bytes'], seq_len=8)
  third = windows.train_iterator(batch_size=2, seed=0)
  with pytest.raises(ValueError, match="packing='pack'; this run has packing="):
    third.set_state(first.get_state())
  for one in (first, second, third):
    one.close()


def test_processes_of_a_packed_run_see_different_documents(memory, tokenizers):
  documents = [b'%03d' % i for i in range(100)]
  data = make(memory, documents, tokenizers['bytes'], seq_len=8, packing='pack')
  seen = []
  for index in range(2):
    iterator = data.train_iterator(
      batch_size=5, seed=0, process_index=index, process_count=2
    )
    batches = [next(iterator) for _ in range(5)]
    iterator.close()
    parts = [b['targets_bt'][b['num_bytes_bt'] > 0] for b in batches]
    found = tokenizers['bytes'].decode(np.concatenate(parts))
    seen.append({found[i : i + 3] for i in range(0, len(found), 3)})
  assert len(seen[0]) == len(seen[1]) == 50
  assert not seen[0] & seen[1]


@pytest.mark.parametrize('process_count', [1, 2, 3])
@pytest.mark.parametrize('batch_size', [1, 4, 100])
def test_eval_batches_are_rows_in_order_with_padding(
  memory, tokenizers, process_count, batch_size
):
  data = make(memory, DOCUMENTS, tokenizers['bytes'], seq_len=8)
  rows = data.rows('test')
  parts = [
    list(
      data.eval_batches(
        'test',
        batch_size=batch_size,
        process_index=index,
        process_count=process_count,
      )
    )
    for index in range(process_count)
  ]
  size = batch_size * process_count
  assert {len(part) for part in parts} == {-(-len(rows) // size)}
  batches = list(itertools.chain(*zip(*parts, strict=True)))
  assert all(b['tokens_bt'].shape == (batch_size, 8) for b in batches)
  every = np.concatenate([b['targets_bt'] for b in batches])
  want = rows.batch(np.arange(len(rows)))['targets_bt']
  np.testing.assert_array_equal(every[: len(rows)], want)
  for batch in batches:
    batch_lib.validate(batch)
  rest = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
  assert all((value[len(rows) :] == 0).all() for value in rest.values())


@kinds
@pytest.mark.parametrize('max_bytes', [1, 2, 3, 8, 100, 345, 9999])
def test_evals_cover_exactly_the_first_bytes(
  memory, tokenizers, kind, max_bytes
):
  data = make(memory, DOCUMENTS, tokenizers[kind], seq_len=8)
  want = b''.join(DOCUMENTS)[:max_bytes]
  assert b''.join(data.documents('test', max_bytes)) == want
  assert data.num_bytes('test', max_bytes) == len(want)
  batches = data.eval_batches('test', batch_size=4, max_bytes=max_bytes)
  assert sum(int(b['num_bytes_bt'].sum()) for b in batches) == len(want)


def test_corpus_ids_depend_on_the_text_alone(memory, tokenizers):
  data = [make(memory, DOCUMENTS, t, seq_len=9) for t in tokenizers.values()]
  ids = {d.corpus_id('test') for d in data}
  assert len(ids) == 1
  assert {d.corpus_id('test', 10**6) for d in data} == ids
  short = {d.corpus_id('test', 50) for d in data}
  assert len(short) == 1
  assert short != ids
  joined = [b''.join(DOCUMENTS)]
  other = make(memory, joined, tokenizers['bytes'])
  assert other.corpus_id('test') not in ids


def test_tokens_are_cached_once(memory, tokenizers, cache_dir, monkeypatch):
  data = make(memory, DOCUMENTS, tokenizers['bpe'])
  before = data.rows('train')[0]
  (folder,) = (cache_dir / 'tokens').glob('*[!k]')
  meta = json.loads((folder / 'meta.json').read_text())
  assert meta['bytes'] == sum(map(len, DOCUMENTS))
  monkeypatch.setattr(tokens, '_build', None)  # Would fail if it were called.
  after = make(memory, DOCUMENTS, tokenizers['bpe']).rows('train')[0]
  assert all((before[key] == after[key]).all() for key in before)
  assert list((cache_dir / 'tokens').glob('*[!k]')) == [folder]


def test_an_interrupted_cache_is_made_anew(
  memory, tokenizers, cache_dir, monkeypatch
):
  tokenizer = tokenizers['bpe']
  encode = type(tokenizer).encode_batch
  with monkeypatch.context() as patch:
    patch.setattr(tokens, '_GROUP_BYTES', 10)
    calls = iter([encode])
    patch.setattr(type(tokenizer), 'encode_batch', lambda *a: next(calls)(*a))
    with pytest.raises((RuntimeError, StopIteration)):
      make(memory, DOCUMENTS, tokenizer).rows('train')
  data = make(memory, DOCUMENTS, tokenizer)
  assert data.num_bytes('train') == sum(map(len, DOCUMENTS))
  assert len(data.rows('train')) > 0
  assert not list((cache_dir / 'tokens').glob('*.part'))


def test_a_tokenizer_that_loses_bytes_is_refused(memory, windowed):
  encode = windowed.encode_with_offsets
  windowed.encode_with_offsets = lambda data: tuple(
    part[: len(encode(data)[0]) // 2 * 0] for part in encode(data)
  )
  with pytest.raises(
    ValueError, match='charged 0 bytes to the tokens of a doc'
  ):
    make(memory, DOCUMENTS, windowed).rows('train')


def test_bytes_that_move_between_documents_are_noticed(
  memory, bpe, monkeypatch
):
  """All charges of the group sum to its bytes; those of a document do not."""
  encode = bpe.encode_batch

  def move(datas):
    ragged = encode(datas)
    splits = ragged.row_splits.copy()
    splits[4] -= 1  # The last token of b'cdefgh' goes to the next document.
    return type(ragged)(ragged.values, splits)

  monkeypatch.setattr(bpe, 'encode_batch', move)
  with pytest.raises(ValueError, match="6 bytes, which begins b'cdefgh'"):
    make(memory, DOCUMENTS, bpe).rows('train')


def test_arrays_that_batches_share_are_never_changed(memory, tokenizers):
  data = make(memory, [b'x' * 60, b'y' * 60], tokenizers['bytes'], seq_len=10)
  rows = data.rows('train')
  plain = rows.batch([0, 1])
  with pytest.raises(ValueError, match='read-only'):
    plain['loss_mask_bt'][0] = 0
  changed = rows.batch([6, 7])  # The second document starts in row 6.
  assert changed['segment_ids_bt'].max() == 2
  rows.batch([11, 12])  # Has padding.
  for batch in (plain, rows.batch([0, 1])):
    assert (batch['segment_ids_bt'] == 1).all()
    assert (batch['positions_bt'] == np.arange(10)).all()
    assert (batch['loss_mask_bt'] == 1).all()


def test_a_tokenizer_without_a_separator_is_refused(memory, windowed):
  windowed.special.eos, kept = None, windowed.special.eos
  try:
    with pytest.raises(ValueError, match='neither a bos nor an eos token'):
      make(memory, DOCUMENTS, windowed).rows('train')
  finally:
    windowed.special.eos = kept


def test_rows_of_files_can_be_sent_to_another_process(
  memory, tokenizers, tmp_path
):
  (tmp_path / 'a.txt').write_bytes(b'some text\n' * 300_000)  # Not copied.
  source = text.Files(path=str(tmp_path / 'a.txt'))
  for kind in ('bytes', 'bpe'):
    data = text.Config(source=source).make(tokenizers[kind])
    assert isinstance(data.source('train').arrays[0], stored.FileArray)
    rows = window.Shuffled(data.tokens('train'), 256, 4)
    copy = pickle.loads(pickle.dumps(rows))
    want, got = rows.batch(np.arange(5)), copy.batch(np.arange(5))
    assert all((want[key] == got[key]).all() for key in want)


@pytest.mark.slow
def test_worker_processes_make_the_same_batches(tokenizers, tmp_path):
  (tmp_path / 'a.txt').write_bytes(b'some text\n' * 300_000)
  batches = []
  for num_workers in (0, 2):
    data = text.Config(
      source=text.Files(path=str(tmp_path / 'a.txt')), num_workers=num_workers
    ).make(tokenizers['bpe'])
    iterator = data.train_iterator(batch_size=2, seed=0)
    state = iterator.get_state()
    iterator.set_state({**state, 'row': 6})
    batches.append([next(iterator)['tokens_bt'] for _ in range(300)])
    iterator.close()
  np.testing.assert_array_equal(*batches)


@pytest.mark.parametrize('kind', ['bytes', 'bpe'])
def test_bytes_of_the_standard_library_add_up(tokenizers, kind):
  data = text.Config().make(tokenizers[kind])
  size = sum(map(len, text.Config().documents('validation')))
  batches = data.eval_batches('validation', batch_size=64)
  assert sum(int(b['num_bytes_bt'].sum()) for b in batches) == size
  assert size == data.num_bytes('validation') > 100_000


def test_text_describes_itself_in_a_line(memory, tokenizers):
  data = make(memory, DOCUMENTS, tokenizers['bytes'], seq_len=100)
  assert data.describe('train') == (
    'train: 7 documents, 345 bytes, 4 rows of 100 tokens'
  )


@pytest.mark.parametrize(
  'options, message',
  [
    ({'batch_size': 0}, 'batch_size must be >= 1, got 0'),
    ({'process_index': 2, 'process_count': 2}, 'process_index=2 must be in [0'),
  ],
)
def test_wrong_shards_are_refused(memory, tokenizers, options, message):
  data = make(memory, DOCUMENTS, tokenizers['bytes'])
  with pytest.raises(ValueError, match=re.escape(message)):
    data.train_iterator(**{'batch_size': 2, 'seed': 0, **options})


def test_a_split_without_bytes_cannot_be_trained_on(memory, tokenizers):
  with pytest.raises(ValueError, match='holds no bytes to train on'):
    make(memory, [b''], tokenizers['bytes']).train_iterator(
      batch_size=1, seed=0
    )
  with pytest.raises(ValueError, match='has no documents for train'):
    make(memory, [], tokenizers['bytes']).rows('train')
