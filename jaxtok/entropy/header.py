# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The header of coded files: what a decoder needs to be sure of.

Layout (little-endian): magic `jtz\\x01`, uint16 length of the body, body,
CRC-32 of all before. The body is packed integers, the first 16 bytes of the
model's SHA-256 and, for level FIXED_TILE, the platform as JSON.
"""

import dataclasses
import json
import struct
import zlib
from typing import Any

from jaxtok.entropy import determinism, quantize
from jaxtok.entropy.determinism import DeterminismLevel, NotDecodableError
from jaxtok.entropy.formats import CLOSE_RULES, WindowFormat

MAGIC = b'jtz\x01'
_BODY = struct.Struct('<BBBBHHHI16s')
_CODERS = ('stream', 'window')


class FormatError(ValueError):
  """The data is not what it should be: wrong file, cut off or damaged."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamHeader:
  """What coded data was made with.

  Attributes:
    level: The model's determinism level.
    model_fingerprint: First 32 hex digits of the model's SHA-256.
    coder: 'stream' or 'window'.
    window: The windows' format; None for 'stream'.
    precision: log2 of the CDFs' total.
    tile: Lanes per call of a FIXED_TILE model, else 0.
    platform: What FIXED_TILE results depend on, else empty.
  """

  level: DeterminismLevel
  model_fingerprint: str
  coder: str = 'stream'
  window: WindowFormat | None = None
  precision: int = quantize.PRECISION
  tile: int = 0
  platform: dict[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if self.coder not in _CODERS or (self.window is None) != (
      self.coder == 'stream'
    ):
      raise ValueError(
        f'coder={self.coder!r} with window={self.window}: use coder="stream" '
        'with window=None or coder="window" with a WindowFormat.'
      )

  @classmethod
  def of(cls, model: Any, window: WindowFormat | None = None) -> 'StreamHeader':
    """The header of data coded with a model on this machine."""
    determinism.require_decodable(model.level)
    tiled = model.level == DeterminismLevel.FIXED_TILE
    return cls(
      level=model.level,
      model_fingerprint=model.fingerprint()[:32],
      coder='window' if window else 'stream',
      window=window,
      tile=model.tile if tiled else 0,
      platform=determinism.platform() if tiled else {},
    )

  def to_bytes(self) -> bytes:
    window = self.window
    body = _BODY.pack(
      self.level,
      _CODERS.index(self.coder),
      self.precision,
      CLOSE_RULES.index(window.close_rule) if window else 0,
      window.window_bits if window else 0,
      window.max_symbols if window else 0,
      window.reset_every if window else 0,
      self.tile,
      bytes.fromhex(self.model_fingerprint),
    )
    if self.platform:
      body += json.dumps(self.platform, sort_keys=True).encode()
    data = MAGIC + struct.pack('<H', len(body)) + body
    return data + struct.pack('<I', zlib.crc32(data))

  @classmethod
  def read(cls, file: Any) -> 'StreamHeader':
    """Reads a header from a file, which then stands behind it.

    Raises:
      FormatError: If there is no valid header.
    """
    start = file.read(len(MAGIC) + 2)
    if not start:
      raise FormatError(
        'the file is empty; even a compressed empty text is not.'
      )
    if start[: len(MAGIC)] != MAGIC:
      raise FormatError(
        f'the file starts with {start[:4]!r}, not with {MAGIC!r}: it was not '
        'written by jaxtok.entropy (or by another version of its format).'
      )
    size = int.from_bytes(start[len(MAGIC) :], 'little')
    rest = file.read(size + 4)
    if len(start) + len(rest) < len(MAGIC) + 2 + size + 4:
      raise FormatError('the file ends inside its header: it was cut off.')
    body, checksum = rest[:-4], rest[-4:]
    if struct.pack('<I', zlib.crc32(start + body)) != checksum:
      raise FormatError('the header is damaged: its checksum does not match.')
    try:
      return cls._from_body(body)
    except (ValueError, IndexError, struct.error) as e:
      raise FormatError(f'the header makes no sense: {e}.') from e

  @classmethod
  def _from_body(cls, body: bytes) -> 'StreamHeader':
    fixed, extra = body[: _BODY.size], body[_BODY.size :]
    level, coder, precision, rule, bits, limit, every, tile, model = (
      _BODY.unpack(fixed)
    )
    window = None
    if _CODERS[coder] == 'window':
      window = WindowFormat(
        window_bits=bits,
        close_rule=CLOSE_RULES[rule],
        max_symbols=limit,
        reset_every=every,
      )
    return cls(
      level=DeterminismLevel(level),
      model_fingerprint=model.hex(),
      coder=_CODERS[coder],
      window=window,
      precision=precision,
      tile=tile,
      platform=json.loads(extra) if extra else {},
    )

  def check(self, model: Any) -> None:
    """Raises NotDecodableError unless this model, here, can decode the data.

    Compares the model's SHA-256, its level and, for FIXED_TILE, the tile and
    the platform.
    """
    determinism.require_decodable(self.level)
    if self.precision != quantize.PRECISION:
      raise NotDecodableError(
        f'the data was coded with precision {self.precision}; this version '
        f'has {quantize.PRECISION}.'
      )
    given = StreamHeader.of(model, self.window)
    if given.model_fingerprint != self.model_fingerprint:
      raise NotDecodableError(
        f'the data was coded with model {self.model_fingerprint[:16]}, not '
        f'with the given one, {given.model_fingerprint[:16]}. Give the model '
        'that it was compressed with.'
      )
    for name in ('level', 'tile', 'platform'):
      wanted, found = getattr(self, name), getattr(given, name)
      if wanted != found:
        raise NotDecodableError(
          f'the data was coded with {name}={wanted}, here it is {found}. '
          'Floats would differ: decode where it was coded, or code with an '
          'integer model.'
        )
