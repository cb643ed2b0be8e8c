# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Chooses the implementation of a kernel and remembers the choice.

`implementation='auto'` takes, for each platform that the program may be
lowered for, the first implementation whose capability check passes, and
records why others were refused: see `last_dispatch`. A named implementation
that cannot serve raises `NotImplementedError`; nothing falls back silently.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

IMPLEMENTATIONS = (
  'auto',
  'reference',
  'xla',
  'tpu',
  'triton',
  'mosaic_gpu',
)

# In order of preference; 'xla' serves everywhere.
_BY_PLATFORM = {
  'tpu': ('tpu', 'xla'),
  'cuda': ('mosaic_gpu', 'triton', 'xla'),
  'cpu': ('xla',),
}


@dataclasses.dataclass(frozen=True)
class Dispatch:
  """What the last call of a kernel ran.

  Attributes:
    kernel: Name of the public function.
    requested: The `implementation` argument.
    chosen: Platform to implementation; `{'any': name}` for a named one.
    refused: `'platform/implementation'` to the reason why auto skipped it.
  """

  kernel: str
  requested: str
  chosen: Mapping[str, str]
  refused: Mapping[str, str]


class _Local(threading.local):
  last: Dispatch | None = None


_local = _Local()

# Parts of jit's cache key: in another context a function is traced anew.
_platforms = jax.make_user_context(default_value=None)
_interpret = jax.make_user_context(default_value=False)


def last_dispatch() -> Dispatch | None:
  """The choice made by this thread's last kernel call (at trace time)."""
  return _local.last


@contextlib.contextmanager
def lowering_platforms(*platforms: str) -> Iterator[None]:
  """States which platforms programs traced inside will be lowered for.

  Needed only for ahead-of-time compilation and `jax.export`, around the trace:
  without it what is exported on a CPU for a TPU holds 'xla' alone. The default
  is the default backend, and the CPU too if that is another.

  Args:
    *platforms: Of 'cpu', 'tpu', 'cuda'.

  Raises:
    ValueError: For an unknown platform.
  """
  if unknown := sorted(set(platforms) - set(_BY_PLATFORM)):
    raise ValueError(
      f'platforms {unknown} are unknown; use some of {sorted(_BY_PLATFORM)}.'
    )
  with _platforms(platforms):
    yield


@contextlib.contextmanager
def interpret_mode(params: Any = True) -> Iterator[None]:
  """Runs Pallas kernels traced inside in interpret mode (for tests).

  Args:
    params: True, or parameters such as `pltpu.InterpretParams(...)`.
  """
  with _interpret(params):
    yield


def interpret() -> Any:
  """The `interpret` argument for `pallas_call` in the current context."""
  return _interpret.value


def compute_capability() -> str | None:
  """That of the GPU which programs are traced for, e.g. '9.0'.

  None where there is none: who compiles ahead of time knows for what.
  """
  if jax.default_backend() != 'gpu':
    return None
  return getattr(jax.devices()[0], 'compute_capability', None)


def platforms() -> tuple[str, ...]:
  """Platforms that the current trace may be lowered for."""
  if _platforms.value:
    return _platforms.value
  backend = jax.default_backend()
  backend = 'cuda' if backend == 'gpu' else backend
  return ('cpu',) if backend == 'cpu' else (backend, 'cpu')


def choose(
  kernel: str,
  implementation: str,
  available: Sequence[str],
  unsupported: Callable[[str], str | None],
  unsuited: Callable[[str], str | None] = lambda name: None,
) -> Dispatch:
  """Picks implementations for a call and records the choice.

  Args:
    kernel: Name of the public function.
    implementation: As given by the caller.
    available: Implementations that exist for this kernel.
    unsupported: Gives the reason why an implementation cannot serve the call,
      naming the argument, or None if it can.
    unsuited: Likewise, why 'auto' should not take one that could.

  Raises:
    ValueError: If the name is unknown.
    NotImplementedError: If the named implementation cannot serve.
  """
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(
      f'implementation={implementation!r} is unknown; use one of '
      f'{", ".join(IMPLEMENTATIONS)}.'
    )
  if implementation == 'auto':
    why = lambda name: unsupported(name) or unsuited(name)
    found = _auto(kernel, available, why)
  else:
    reason = unsupported(implementation)
    if implementation not in available:
      reason = f'it exists only as {", ".join(available)}'
    if reason:
      raise NotImplementedError(
        f'{kernel}(implementation={implementation!r}): {reason}.'
      )
    found = Dispatch(kernel, implementation, {'any': implementation}, {})
  record(found)
  return found


def record(found: Dispatch) -> None:
  """Makes `found` the last dispatch, after calls of other kernels."""
  _local.last = found


def _auto(kernel, available, unsupported) -> Dispatch:
  chosen, refused = {}, {}
  for platform in platforms():
    for name in _BY_PLATFORM.get(platform, ('xla',)):
      if name not in available:
        continue
      reason = unsupported(name)
      if reason is None:
        chosen[platform] = name
        break
      refused[f'{platform}/{name}'] = reason
    else:
      reasons = '; '.join(f'{k}: {v}' for k, v in refused.items())
      raise NotImplementedError(f'{kernel} cannot serve this call. {reasons}.')
  return Dispatch(kernel, 'auto', chosen, refused)


def run(found: Dispatch, call: Callable[..., Any], *operands: Any) -> Any:
  """Calls `call(name, *operands)` with the implementation of each platform."""
  names = set(found.chosen.values())
  if len(names) == 1:
    return call(names.pop(), *operands)
  branch = lambda name: lambda *args: call(name, *args)
  by_platform = {p: branch(name) for p, name in found.chosen.items()}
  return jax.lax.platform_dependent(*operands, **by_platform)
