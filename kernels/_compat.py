# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The only module that knows jax versions (0.10.1 to 0.11) and private names.

Pallas is imported inside the functions: importing the package stays cheap.

Some functions take `interpret` or `scratch`: the interpreter of Mosaic GPU
(0.10) knows no layouts, no transposed and no register operands, so that tests
take the same values by another road. What they cannot test is therefore layout
and operand placement, which lowering checks.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax


def tpu_races() -> bool:
  """Whether the last `InterpretParams(detect_races=True)` run found a race."""
  from jax._src.pallas.mosaic.interpret import interpret_pallas_call

  return bool(interpret_pallas_call.races.races_found)


def gpu_interpret_params(**kwargs: Any) -> Any:
  """`InterpretGPUParams`: public in 0.11."""
  from jax.experimental.pallas import mosaic_gpu as plgpu

  if hasattr(plgpu, 'InterpretGPUParams'):
    return plgpu.InterpretGPUParams(**kwargs)
  from jax._src.pallas.mosaic_gpu.interpret import params

  return params.InterpretGPUParams(**kwargs)


def gpu_races() -> bool:
  """Whether the last run with `gpu_interpret_params` found a race."""
  from jax._src.pallas.mosaic_gpu.interpret import gpu_callbacks

  return bool(gpu_callbacks.get_races().races_found)


def mgpu_kernel(
  body: Callable[..., None],
  outs: list[jax.ShapeDtypeStruct],
  scratch: Mapping[str, Any],
  **kwargs: Any,
) -> Callable[..., Any]:
  """`plgpu.kernel`, whose keywords were renamed in 0.10.2.

  Args:
    body: Takes references to operands and outputs, and `scratch` by keyword.
    outs: Outputs.
    scratch: Scratch references by name.
    **kwargs: Passed on.
  """
  from jax.experimental.pallas import mosaic_gpu as plgpu

  names = tuple(scratch)

  def positional(*refs):
    number = len(refs) - len(names)
    body(*refs[:number], **dict(zip(names, refs[number:], strict=True)))

  known = inspect.signature(plgpu.kernel).parameters
  out, memory = ('out_type', 'scratch_types')
  if out not in known:
    out, memory = ('out_shape', 'scratch_shapes')
  # None means "compile", which newer releases spell False.
  if kwargs.get('interpret') is None:
    kwargs.pop('interpret', None)
  arrays = {out: outs, memory: list(scratch.values())}
  return plgpu.kernel(positional, **arrays, **kwargs)


def mgpu_params(**kwargs: Any) -> Any:
  """Mosaic GPU parameters with the semantics that the kernels are written in.

  The default changed from Lane to Warpgroup in 0.11.
  """
  from jax.experimental.pallas import mosaic_gpu as plgpu

  return plgpu.CompilerParams(
    lowering_semantics=plgpu.LoweringSemantics.Lane, **kwargs
  )


def layout_cast(x: jax.Array, layout: Any, *, interpret: Any) -> jax.Array:
  """`plgpu.layout_cast`; nothing when interpreting."""
  from jax.experimental.pallas import mosaic_gpu as plgpu

  return x if interpret else plgpu.layout_cast(x, layout)


def mgpu_load(ref: Any, layout: Any, *, interpret: Any) -> jax.Array:
  """Loads a reference in a layout."""
  from jax.experimental.pallas import mosaic_gpu as plgpu

  if interpret:
    return ref[...]
  return plgpu.load(ref, (), layout=layout, optimized=False)


def mgpu_iota(shape: tuple[int, int], axis: int, *, interpret: Any):
  """int32 iota in the layout of wgmma results."""
  import jax.numpy as jnp
  from jax.experimental.pallas import mosaic_gpu as plgpu

  if interpret:
    return jax.lax.broadcasted_iota(jnp.int32, shape, axis)
  return plgpu.broadcasted_iota(
    jnp.int32, shape, axis, layout=plgpu.Layout.WGMMA
  )


def wgmma_nt(acc: Any, a: Any, b: Any, *, scratch: Any) -> None:
  """`acc += a @ b.T` of shared memory tiles.

  Args:
    acc: Accumulator.
    a: `[m, k]`.
    b: `[n, k]`.
    scratch: `[k, n]` when interpreting, else None.
  """
  from jax.experimental.pallas import mosaic_gpu as plgpu

  if scratch is None:
    plgpu.wgmma(acc, a, plgpu.transpose_ref(b, (1, 0)))
    return
  scratch[...] = b[...].T
  plgpu.wgmma(acc, a, scratch)


def wgmma_add(acc: jax.Array, a: jax.Array, b: Any, *, scratch: Any):
  """`acc + a @ b` with `acc` and `a` in registers.

  Args:
    acc: `[m, n]` float32.
    a: `[m, k]`.
    b: `[k, n]` in shared memory.
    scratch: `[m, k]` in shared memory when interpreting, else None.
  """
  import jax.numpy as jnp
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import mosaic_gpu as plgpu

  if scratch is None:
    return pl.run_state(lambda out: plgpu.wgmma(out, a, b))(plgpu.ACC.init(acc))
  scratch[...] = a

  def product(out):
    plgpu.wgmma(out, scratch, b)
    return out[...]

  return acc + pl.run_scoped(product, plgpu.ACC(acc.shape, jnp.float32))
