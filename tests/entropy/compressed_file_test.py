# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compressed files and the command line: exact, or a clear error."""

import contextlib
import io
import os
import random
import signal
import time

import numpy as np
import pytest

from jaxtok.entropy import __main__ as cli
from jaxtok.entropy import container, model_file, table
from jaxtok.entropy.determinism import DeterminismLevel, NotDecodableError
from jaxtok.entropy.formats import WindowFormat
from jaxtok.entropy.header import FormatError
from tests.entropy import coding_oracle as oracle

TEXT = b'It was the best of times, it was the worst of times. ' * 6


@pytest.fixture(scope='module')
def model():
  return table.fit([TEXT, bytes(range(256))], order=1)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
  """Chunks of 4 lanes of 64 bytes: several per text, one shape for all."""
  for name, value in (('NUM_LANES', 4), ('LANE_BYTES', 64)):
    levels = {DeterminismLevel.TABLE: value, DeterminismLevel.INTEGER: value}
    monkeypatch.setattr(container, name, levels)


def compressed(data, model, **kwargs):
  target = io.BytesIO()
  container.compress(io.BytesIO(data), target, model, **kwargs)
  return target.getvalue()


def decompressed(data, model):
  target = io.BytesIO()
  container.decompress(io.BytesIO(data), target, model)
  return target.getvalue()


@pytest.mark.parametrize(
  'data',
  [
    b'',
    b'x',
    TEXT,
    TEXT[:256],
    TEXT[:257],
    bytes(1000),
    random.Random(0).randbytes(700),
    TEXT + random.Random(1).randbytes(300) + TEXT,
  ],
)
def test_any_bytes_come_back(data, model):
  seen = []
  coded = compressed(data, model, progress=seen.append)
  assert decompressed(coded, model) == data
  assert sum(seen) == len(data)
  # Stored chunks bound the growth: 17 bytes for each 256, header and end.
  assert len(coded) <= len(data) + 17 * -(-len(data) // 256) + 120


def test_text_gets_shorter_and_noise_is_stored(model):
  assert len(compressed(TEXT * 4, model)) < 0.75 * len(TEXT * 4)
  noise = random.Random(0).randbytes(256)
  chunk = container.encode_chunk(noise, model, 64, verify=False)
  assert chunk.kind == container.Kind.STORED


def test_every_cut_file_is_refused(model):
  coded = compressed(TEXT, model)
  for size in range(len(coded)):
    with pytest.raises(FormatError):
      decompressed(coded[:size], model)
  with pytest.raises(FormatError, match='goes on after'):
    decompressed(coded + b'x', model)


def test_every_flipped_bit_is_refused(model):
  coded = compressed(TEXT, model)
  rng = random.Random(0)
  for place in range(len(coded)):
    bad = bytearray(coded)
    bad[place] ^= 1 << rng.randrange(8)
    with pytest.raises((FormatError, NotDecodableError)):
      decompressed(bytes(bad), model)


def test_swapped_chunks_are_refused_though_each_is_whole(model):
  source = io.BytesIO(compressed(TEXT, model))
  start = len(container.StreamHeader.read(source).to_bytes())
  chunks = [x.to_bytes() for x in container.read_chunks(source)]
  assert len(chunks) == 3
  header = source.getvalue()[:start]
  for order in ([1, 0, 2], [0, 2], [0, 0, 1, 2]):
    bad = header + b''.join(chunks[i] for i in order)
    with pytest.raises(FormatError, match='SHA-256'):
      decompressed(bad, model)


@pytest.mark.parametrize('seed', range(3))
def test_random_damage_never_gives_wrong_output(seed, model):
  rng = random.Random(seed)
  coded = compressed(TEXT, model)
  for _ in range(60):
    bad = bytearray(coded)
    for _ in range(rng.randrange(1, 9)):
      place = rng.randrange(len(bad))
      match rng.randrange(3):
        case 0:
          bad[place] = rng.randrange(256)
        case 1:
          del bad[place : place + rng.randrange(1, 20)]
        case 2:
          bad[place:place] = rng.randbytes(rng.randrange(1, 20))
    with contextlib.suppress(FormatError, NotDecodableError):
      assert decompressed(bytes(bad), model) == TEXT


def test_checksummed_nonsense_inside_a_chunk_is_refused(model):
  """What a program with a bug might write: whole, but inconsistent."""
  chunk = container.encode_chunk(TEXT[:256], model, 64, verify=True)
  counts = np.frombuffer(chunk.payload, '<u4', 4)
  for payload in (
    b'',
    chunk.payload[:-1],
    chunk.payload[:-2],
    (counts + 1).astype('<u4').tobytes() + chunk.payload[16:],
    np.array([200, 0, 0, 0], '<u4').tobytes() + bytes(400),
  ):
    bad = container.Chunk(chunk.kind, 256, 64, payload)
    with pytest.raises(FormatError, match='lanes'):
      container.decode_chunk(bad, model)
  for raw_bytes, lane_bytes in ((0, 64), (256, 0), (256, 0xFFFFFFFF)):
    bad = container.Chunk(chunk.kind, raw_bytes, lane_bytes, chunk.payload)
    with pytest.raises(FormatError, match='lanes'):
      container.decode_chunk(bad, model)


def test_words_of_windows_are_no_compressed_file(model):
  header = container.StreamHeader.of(model, window=WindowFormat()).to_bytes()
  coded = header + compressed(TEXT, model)[len(header) :]
  with pytest.raises(FormatError, match='words of a window coder'):
    decompressed(coded, model)


def test_a_model_that_changes_is_caught_while_compressing(model, monkeypatch):
  monkeypatch.setattr(
    container, 'decode_chunk', lambda chunk, model: b'other bytes'
  )
  with pytest.raises(RuntimeError, match='does not decompress'):
    compressed(TEXT, model)


@pytest.fixture
def files(model, tmp_path):
  """A folder with a text, a model and another model."""
  (tmp_path / 'text').write_bytes(TEXT)
  model_file.save_model(model, tmp_path / 'model.npz')
  model_file.save_model(oracle.order1(0), tmp_path / 'other.npz')
  return tmp_path


def run(folder, *args):
  return cli.main([x.replace('@', f'{folder}/') for x in args])


def test_an_empty_file_has_no_rate(tmp_path, capsys):
  (tmp_path / 'empty').touch()
  args = [str(tmp_path / 'empty'), '-o', str(tmp_path / 'empty.jtz')]
  assert cli.main(['compress', *args]) == 0
  out = capsys.readouterr().out
  assert 'nothing to compress' in out
  assert 'bits per byte' not in out


def test_the_command_line_compresses_and_decompresses(files, capsys):
  coding = ('@text', '-o', '@text.jtz', '--model=@model.npz')
  assert run(files, 'compress', *coding) == 0
  assert 'bits per byte' in capsys.readouterr().out
  back = ('@text.jtz', '-o', '@back', '--model=@model.npz')
  assert run(files, 'decompress', *back) == 0
  assert (files / 'back').read_bytes() == TEXT
  assert run(files, 'info', '@text.jtz') == 0
  shown = capsys.readouterr().out
  assert f'raw bytes         {len(TEXT)}' in shown
  assert 'TABLE' in shown
  assert run(files, 'info', '@model.npz') == 0
  assert 'TableModel' in capsys.readouterr().out


def test_a_model_can_be_counted_from_files(files):
  assert run(files, 'fit', '@text', '-o', '@new.npz', '--order=0') == 0
  assert model_file.load_model(files / 'new.npz').order == 0


ERRORS = {
  'exists': ('compress', '@text', '-o', '@model.npz', '--model=@model.npz'),
  'none.npz does not exist; it must be a file. Check': (
    *('compress', '@text', '-o', '@x'),
    '--model=@none.npz',
  ),
  'not a model file': ('compress', '@text', '-o', '@x', '--model=@text'),
  'none does not exist; it must be a file. Check the path.': (
    *('compress', '@none', '-o', '@x'),
    '--model=@model.npz',
  ),
  'is a folder; it must be a file. Pack': ('compress', '@', '-o', '@x'),
  'is a folder; it must be a file. Name': ('compress', '@text', '-o', '@'),
  'TEXT=': ('fit', '@text', '@none', '-o', '@x'),
  'must be in a folder that exists': (
    'compress',
    '@text',
    '-o',
    '@no/x',
    '--model=@model.npz',
  ),
  'starts with': ('decompress', '@text', '-o', '@x', '--model=@model.npz'),
  'coded with model': (
    'decompress',
    '@a.jtz',
    '-o',
    '@x',
    '--model=@other.npz',
  ),
  'cut off': ('decompress', '@cut.jtz', '-o', '@x', '--model=@model.npz'),
  'checksum': ('decompress', '@bad.jtz', '-o', '@x', '--model=@model.npz'),
  'FILE=': ('info', '@cut.jtz'),
  'is a pipe': ('compress', '@pipe', '-o', '@x', '--model=@model.npz'),
  'is no file': (
    *('compress', '@text', '-o', '@pipe'),
    *('--force', '--model=@model.npz'),
  ),
  'output=- is no file': ('compress', '@text', '-o', '-'),
  'is the input': ('compress', '@text', '-o', '@text', '--force'),
  'is empty': ('decompress', '@none.jtz', '-o', '@x', '--model=@model.npz'),
  'at least one byte': ('fit', '@none.jtz', '-o', '@x'),
  'order=9': ('fit', '@text', '-o', '@x', '--order=9'),
}


@pytest.mark.parametrize('message', list(ERRORS))
def test_errors_are_one_line_and_leave_nothing_behind(
  message, files, model, capsys
):
  coded = compressed(TEXT, model)
  (files / 'a.jtz').write_bytes(coded)
  (files / 'cut.jtz').write_bytes(coded[:-30])
  bad = bytearray(coded)
  bad[len(bad) // 2] ^= 1
  (files / 'bad.jtz').write_bytes(bytes(bad))
  (files / 'none.jtz').touch()
  os.mkfifo(files / 'pipe')
  before = sorted(x.name for x in files.iterdir())
  assert run(files, *ERRORS[message]) == 1
  shown = capsys.readouterr().err
  assert message in shown
  assert shown.startswith('error: ')
  assert sorted(x.name for x in files.iterdir()) == before


def test_interrupting_leaves_nothing_behind(files, monkeypatch):
  def interrupt(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(container, 'encode_chunk', interrupt)
  before = sorted(x.name for x in files.iterdir())
  coding = ('@text', '-o', '@text.jtz', '--model=@model.npz')
  assert run(files, 'compress', *coding) == 130
  assert sorted(x.name for x in files.iterdir()) == before


def test_being_ended_leaves_nothing_behind(files, monkeypatch):
  def end(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)

  monkeypatch.setattr(container, 'encode_chunk', end)
  before = sorted(x.name for x in files.iterdir())
  handler = signal.getsignal(signal.SIGTERM)
  with pytest.raises(SystemExit) as error:
    run(files, 'compress', '@text', '-o', '@a.jtz', '--model=@model.npz')
  assert error.value.code == 128 + signal.SIGTERM
  assert sorted(x.name for x in files.iterdir()) == before
  assert signal.getsignal(signal.SIGTERM) is handler


def test_a_link_is_followed(files):
  (files / 'target').write_bytes(b'old')
  (files / 'link').symlink_to(files / 'target')
  args = ('@text', '-o', '@link', '--model=@model.npz', '--quiet')
  assert run(files, 'compress', *args) == 1
  assert run(files, 'compress', *args, '--force') == 0
  assert (files / 'link').is_symlink()
  assert (files / 'target').read_bytes()[:3] == b'jtz'


def test_an_existing_output_is_replaced_only_by_a_whole_one(files):
  (files / 'out').write_bytes(b'precious')
  wrong = ('@text', '-o', '@out', '--model=@model.npz', '--force')
  assert run(files, 'decompress', *wrong) == 1
  assert (files / 'out').read_bytes() == b'precious'
  assert run(files, 'compress', *wrong, '--quiet') == 0
  assert (files / 'out').read_bytes()[:3] == b'jtz'


def test_a_misspelt_option_is_refused_before_anything_is_written(files, capsys):
  before = sorted(x.name for x in files.iterdir())
  coding = ('@text', '-o', '@text.jtz', '--model=@model.npz')
  with pytest.raises(SystemExit) as error:
    run(files, 'compress', *coding, '--no_verfy')
  assert error.value.code == 2
  assert '--no_verfy is no argument' in (shown := capsys.readouterr().err)
  assert 'Did you mean --no_verify?' in shown
  assert sorted(x.name for x in files.iterdir()) == before


@pytest.mark.parametrize('args', [(), ('compress',), ('squeeze', '@text')])
def test_wrong_usage_exits_with_2(args, files):
  with pytest.raises(SystemExit) as error:
    run(files, *args)
  assert error.value.code == 2
