# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compressed files: a header, chunks, and an end with the text's SHA-256.

Each chunk is coded by itself, so files may be larger than memory. A chunk's
bytes are cut into lanes of equal length, which are coded side by side. All
integers are little-endian:

  header    see `header`
  chunk     uint8 kind, uint32 raw bytes, uint32 bytes per lane, uint32 bytes of
            payload, payload, uint32 CRC-32 of all that
  payload   coded: uint32 digits of each lane, then their uint16 digits, lane
            after lane; stored: the bytes themselves, where coding gains nothing
  end       a chunk whose payload is uint64 raw bytes of the file and their
            SHA-256
"""

import dataclasses
import enum
import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxtok.entropy import stream
from jaxtok.entropy.base import NextByteModel
from jaxtok.entropy.determinism import DeterminismLevel
from jaxtok.entropy.header import FormatError, StreamHeader

_HEAD = struct.Struct('<BIII')
_END = struct.Struct('<Q32s')
_MAX_CHUNK = 1 << 26  # A larger chunk in a file is taken for damage.
NUM_LANES = {DeterminismLevel.TABLE: 1024, DeterminismLevel.INTEGER: 256}
LANE_BYTES = {DeterminismLevel.TABLE: 4096, DeterminismLevel.INTEGER: 16384}

Progress = Callable[[int], Any]  # Called with the number of bytes just done.


class Kind(enum.IntEnum):
  """What a chunk holds."""

  END = 0
  CODED = 1
  STORED = 2


@dataclasses.dataclass(frozen=True)
class Chunk:
  """A chunk as it is in the file.

  Attributes:
    kind: What it holds.
    raw_bytes: How many bytes it stands for.
    lane_bytes: How many of them are in a lane; the last lane may be shorter.
    payload: The coded or stored bytes.
  """

  kind: Kind
  raw_bytes: int
  lane_bytes: int
  payload: bytes

  def to_bytes(self) -> bytes:
    head = _HEAD.pack(
      self.kind, self.raw_bytes, self.lane_bytes, len(self.payload)
    )
    checksum = zlib.crc32(self.payload, zlib.crc32(head))
    return head + self.payload + struct.pack('<I', checksum)

  @classmethod
  def read(cls, file: Any) -> 'Chunk':
    """Reads the next chunk.

    Raises:
      FormatError: If it is cut off or damaged.
    """
    head = _read(file, _HEAD.size)
    kind, raw_bytes, lane_bytes, size = _HEAD.unpack(head)
    if kind > max(Kind) or max(raw_bytes, size) > 2 * _MAX_CHUNK:
      raise FormatError('the file is damaged: a chunk has no valid start.')
    payload = _read(file, size)
    [checksum] = struct.unpack('<I', _read(file, 4))
    if checksum != zlib.crc32(payload, zlib.crc32(head)):
      raise FormatError(
        'the file is damaged: the checksum of a chunk does not match.'
      )
    return cls(Kind(kind), raw_bytes, lane_bytes, payload)


def _read(file: Any, size: int) -> bytes:
  data = file.read(size)
  if len(data) < size:
    raise FormatError(
      'the file ends before its end mark: it was cut off, or compressing it '
      'was interrupted.'
    )
  return data


def _to_lanes(data: bytes, lane_bytes: int) -> tuple[np.ndarray, np.ndarray]:
  """Bytes to `(symbols_bt, length_b)`, padded to few different shapes."""
  lengths = _lane_lengths(len(data), lane_bytes)
  rows = _round_up(len(lengths))
  width = min(lane_bytes, _round_up(len(data)))
  symbols = np.zeros(rows * lane_bytes, np.int32)
  symbols[: len(data)] = np.frombuffer(data, np.uint8)
  symbols_bt = symbols.reshape(rows, lane_bytes)[:, :width]
  return symbols_bt, np.pad(lengths, (0, rows - len(lengths)))


def _lane_lengths(num_bytes: int, lane_bytes: int) -> np.ndarray:
  num_lanes = -(-num_bytes // lane_bytes)
  lengths = np.full(num_lanes, lane_bytes, np.int32)
  lengths[-1] = num_bytes - (num_lanes - 1) * lane_bytes
  return lengths


def _round_up(num: int) -> int:
  return 1 << max(0, num - 1).bit_length()


def encode_chunk(
  data: bytes, model: NextByteModel, lane_bytes: int, *, verify: bool
) -> Chunk:
  """Codes bytes, or stores them if that is not longer.

  Raises:
    RuntimeError: If `verify` found that the chunk does not decode.
  """
  symbols_bt, length_b = _to_lanes(data, lane_bytes)
  digits_bk, num_b, _ = stream.encode_stream(symbols_bt, length_b, model)
  num_b = num_b[: -(-len(data) // lane_bytes)]
  is_used = np.arange(digits_bk.shape[1]) < num_b[:, None]
  digits = digits_bk[: len(num_b)][is_used]
  payload = num_b.astype('<u4').tobytes() + digits.astype('<u2').tobytes()
  if len(payload) >= len(data):
    return Chunk(Kind.STORED, len(data), lane_bytes, data)
  chunk = Chunk(Kind.CODED, len(data), lane_bytes, payload)
  if verify and decode_chunk(chunk, model) != data:
    raise RuntimeError(
      'what was just compressed does not decompress to the input: the model '
      'gave other probabilities the second time. Please report this.'
    )
  return chunk


def decode_chunk(chunk: Chunk, model: NextByteModel) -> bytes:
  """The bytes of a chunk.

  Raises:
    FormatError: If its parts do not fit together.
  """
  if chunk.kind == Kind.STORED:
    if len(chunk.payload) != chunk.raw_bytes:
      raise FormatError('the file is damaged: a chunk has a wrong length.')
    return chunk.payload
  wrong = FormatError('the file is damaged: the lanes of a chunk do not fit.')
  if not all(0 < x <= _MAX_CHUNK for x in (chunk.raw_bytes, chunk.lane_bytes)):
    raise wrong
  lengths = _lane_lengths(chunk.raw_bytes, chunk.lane_bytes)
  if len(chunk.payload) < 4 * len(lengths) or len(chunk.payload) % 2:
    raise wrong
  num_b = np.frombuffer(chunk.payload, '<u4', len(lengths)).astype(np.int64)
  digits = np.frombuffer(chunk.payload, '<u2', offset=4 * len(lengths))
  if num_b.sum() != len(digits) or (num_b > lengths + 1).any():
    raise wrong
  rows = _round_up(len(lengths))
  width = _round_up(int(num_b.max()))
  digits_bk = np.zeros((rows, width), np.uint16)
  digits_bk[: len(lengths)][np.arange(width) < num_b[:, None]] = digits
  symbols_bt, _ = stream.decode_stream(
    digits_bk, np.pad(lengths, (0, rows - len(lengths))), model
  )
  is_used = np.arange(symbols_bt.shape[1]) < lengths[:, None]
  symbols = symbols_bt[: len(lengths)][is_used]
  return symbols.astype(np.uint8).tobytes()


def compress(
  source: Any,
  target: Any,
  model: NextByteModel,
  *,
  verify: bool = True,
  progress: Progress = lambda num_bytes: None,
) -> None:
  """Compresses all that `source` still holds.

  Args:
    source: Any bytes.
    target: Where the compressed bytes are written.
    model: Of level TABLE or INTEGER.
    verify: Whether each chunk is decompressed at once and compared.
    progress: Called after each chunk.
  """
  header = StreamHeader.of(model)
  if header.level not in NUM_LANES:
    raise ValueError(
      f'model of level {header.level.name}: files are compressed with tables '
      'and integer models only, which any machine can decompress.'
    )
  target.write(header.to_bytes())
  lane_bytes = LANE_BYTES[header.level]
  digest, total = hashlib.sha256(), 0
  while data := source.read(lane_bytes * NUM_LANES[header.level]):
    chunk = encode_chunk(data, model, lane_bytes, verify=verify)
    target.write(chunk.to_bytes())
    digest.update(data)
    total += len(data)
    progress(len(data))
  end = _END.pack(total, digest.digest())
  target.write(Chunk(Kind.END, 0, 0, end).to_bytes())


def read_header(source: Any) -> StreamHeader:
  """The header of a compressed file.

  Raises:
    FormatError: If it is none, or that of something else.
  """
  header = StreamHeader.read(source)
  if header.coder != 'stream':
    raise FormatError(
      f'this holds words of a {header.coder} coder, not a compressed file. '
      'Decode it with the tokenizer that wrote it.'
    )
  return header


def read_chunks(source: Any) -> Iterator[Chunk]:
  """All chunks; the last one is the end, after which nothing follows."""
  while (chunk := Chunk.read(source)).kind != Kind.END:
    yield chunk
  if len(chunk.payload) != _END.size:
    raise FormatError('the file is damaged: its end mark has a wrong length.')
  if source.read(1):
    raise FormatError('the file goes on after its end mark: data was added.')
  yield chunk


def decompress(
  source: Any,
  target: Any,
  model: NextByteModel,
  *,
  progress: Progress = lambda num_bytes: None,
) -> None:
  """Decompresses; what was written is right only if nothing was raised.

  Raises:
    FormatError: If the data is damaged, cut off or something else.
    NotDecodableError: If it was compressed with another model.
  """
  read_header(source).check(model)
  digest, total = hashlib.sha256(), 0
  for chunk in read_chunks(source):
    if chunk.kind != Kind.END:
      data = decode_chunk(chunk, model)
      target.write(data)
      digest.update(data)
      total += len(data)
      progress(len(data))
    elif _END.unpack(chunk.payload) != (total, digest.digest()):
      raise FormatError(
        'the decompressed bytes are not those that were compressed: their '
        'SHA-256 does not match.'
      )
