# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""The only module that knows jax versions (0.10.1 to 0.11) and private names.

Pallas is imported inside the functions: importing the package stays cheap.

Some functions take `interpret`: the interpreter of Mosaic GPU in jax 0.10.1
knows threads, barriers, loads and stores, but no layouts, no copies of parts
and no wgmma, so that interpreted kernels take the same values by loads, stores
and dots. What this cannot test is therefore layout, operand placement and the
asynchrony of copies within one thread; lowering checks the first two.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

# A reference and an index into it.
Place = tuple[Any, Any]


def varying_axes(x: jax.Array) -> frozenset[str]:
  """Mesh axes over which `shard_map` knows the value to differ."""
  kind = jax.typeof(x)
  if hasattr(kind, 'vma'):
    return kind.vma
  return kind.manual_axis_type.varying


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


@contextlib.contextmanager
def absent_gpu(kind: str = 'NVIDIA H100 80GB HBM3') -> Iterator[None]:
  """Programs inside may be lowered for a GPU that is not there.

  From 0.11 on, Pallas asks which one.
  """
  if jax.__version_info__ < (0, 11):
    yield
    return
  device = jax.sharding.AbstractDevice(kind, None, 'gpu')
  mesh = jax.sharding.AbstractMesh((), (), abstract_device=device)
  with jax.sharding.use_abstract_mesh(mesh):
    yield


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


def mgpu_load(place: Place, layout: Any, *, interpret: Any) -> jax.Array:
  """Loads a part of a reference in a layout."""
  from jax.experimental.pallas import mosaic_gpu as plgpu

  ref, index = place
  if interpret:
    return ref[index]
  indices = () if jax.__version_info__ >= (0, 11) else ((),)
  return plgpu.load(ref.at[index], *indices, layout=layout, optimized=False)


def mgpu_loop(
  low: Any, high: Any, body: Callable, carry: Any, *, most: int, interpret: Any
) -> Any:
  """`fori_loop(low, high, body, carry)`.

  The interpreter of 0.10.1 has static loops only: it makes `most` steps, and
  skips those outside the bounds.
  """
  if not interpret:
    return jax.lax.fori_loop(low, high, body, carry)

  def step(i, carry):
    run = lambda carry: body(i, carry)
    return jax.lax.cond((i >= low) & (i < high), run, lambda x: x, carry)

  return jax.lax.fori_loop(0, most, step, carry)


def mgpu_copy_in(
  source: Place, target: Place, barrier: Any, *, interpret: Any
) -> None:
  """Starts a copy from main to shared memory, which arrives at `barrier`.

  Interpreted, the calling thread copies: a reader in another thread that does
  not wait is a race all the same.
  """
  from jax.experimental.pallas import mosaic_gpu as plgpu

  if interpret:
    target[0][target[1]] = source[0][source[1]]
    plgpu.barrier_arrive(barrier)
    return
  plgpu.copy_gmem_to_smem(
    source[0].at[source[1]], target[0].at[target[1]], barrier
  )


def mgpu_copy_out(source: Place, target: Place, *, interpret: Any) -> None:
  """Starts a copy of what was just written to shared memory to main memory."""
  from jax.experimental.pallas import mosaic_gpu as plgpu

  if interpret:
    target[0][target[1]] = source[0][source[1]]
    return
  plgpu.commit_smem()
  plgpu.copy_smem_to_gmem(source[0].at[source[1]], target[0].at[target[1]])


def mgpu_iota(shape: tuple[int, int], axis: int, *, interpret: Any):
  """int32 iota in the layout of wgmma results."""
  import jax.numpy as jnp
  from jax.experimental.pallas import mosaic_gpu as plgpu

  if interpret:
    return jax.lax.broadcasted_iota(jnp.int32, shape, axis)
  return plgpu.broadcasted_iota(
    jnp.int32, shape, axis, layout=plgpu.Layout.WGMMA
  )


def ref_t(ref: Any) -> Any:
  """A transposed reference; 0.11 deprecates `transpose_ref`."""
  if jax.__version_info__ >= (0, 11):
    return ref.T
  from jax.experimental.pallas import mosaic_gpu as plgpu

  return plgpu.transpose_ref(ref, (1, 0))


def wgmma_nt(
  a: Place,
  b: Place,
  shape: tuple[int, int],
  *,
  meanwhile: Callable[[], None],
  interpret: Any,
) -> jax.Array:
  """`a @ b.T` of shared memory tiles, in registers.

  Args:
    a: `[m, k]`.
    b: `[n, k]`.
    shape: `(m, n)`.
    meanwhile: Called between the start of the product and the wait for it.
    interpret: As for kernels.
  """
  import jax.numpy as jnp
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import mosaic_gpu as plgpu

  if interpret:
    meanwhile()
    x, y = a[0][a[1]], b[0][b[1]]
    return jnp.dot(x, y.T, preferred_element_type=jnp.float32)

  def product(out):
    plgpu.wgmma(out, a[0].at[a[1]], ref_t(b[0].at[b[1]]))
    meanwhile()
    return out[...]

  return pl.run_scoped(product, plgpu.ACC(shape, jnp.float32))


def wgmma_add(acc: jax.Array, a: jax.Array, b: Place, *, interpret: Any):
  """`acc + a @ b` with `acc` and `a` in registers.

  Args:
    acc: `[m, n]` float32.
    a: `[m, k]`.
    b: `[k, n]` in shared memory.
    interpret: As for kernels.
  """
  import jax.numpy as jnp
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import mosaic_gpu as plgpu

  if interpret:
    y = b[0][b[1]]
    return acc + jnp.dot(a, y, preferred_element_type=jnp.float32)
  add = lambda out: plgpu.wgmma(out, a, b[0].at[b[1]])
  return pl.run_state(add)(plgpu.ACC.init(acc))
