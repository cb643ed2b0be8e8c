# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import csv
import json
import math

import numpy as np
import pytest

from jaxtok import runs
from jaxtok.runs import compare, curves, groups, plots


def make_run(
  folder,
  bpb,
  flops,
  *,
  method='a',
  seed=0,
  corpus='c0',
  num_bytes=1000,
  **extra,
):
  """A run directory with evals at the given FLOPs, one per 10 steps."""
  folder.mkdir(parents=True)
  config = {'type': 'x:Config', 'method': method, 'seed': seed}
  (folder / 'config.json').write_text(json.dumps(config))
  meta = {'parameters': 1000, 'sessions': []}
  (folder / 'meta.json').write_text(json.dumps(meta))
  rows = []
  for i, (y, x) in enumerate(zip(bpb, flops, strict=True)):
    step = 10 * (i + 1)
    train = {'flops': x, 'bytes': 64 * step, 'seconds': 0.5 * step, 'bpb': y}
    rows.append({'step': step, 'split': 'train', **train})
    values = {'bpb': y, 'bpb_se': 0.01, 'tokens_per_byte': 0.25}
    values |= {'flops': x, 'corpus': corpus, 'bytes': num_bytes} | extra
    rows.append({'step': step, 'split': 'eval/val', **values})
  lines = ''.join(json.dumps(row) + '\n' for row in rows)
  (folder / 'metrics.jsonl').write_text(lines)
  return folder


FLOPS = [1e9, 1e10, 1e11, 1e12]


def test_values_at_equal_flops_are_interpolated_in_log_flops(tmp_path):
  a = make_run(tmp_path / 'a', [4.0, 3.0, 2.0, 1.0], FLOPS)
  b = make_run(tmp_path / 'b', [4.0, 3.0, 2.0], FLOPS[:3], method='b')
  found = compare.compare([a, b])
  assert found.equal_x() == pytest.approx([2.5e10, 5e10, 1e11])
  # One bit per factor of ten, so bpb = 13 - log10(FLOPs).
  for x in found.equal_x():
    for group in found.methods:
      assert group.at(x)[0] == pytest.approx(13 - math.log10(x))
  header, (row_a, row_b) = found.header(), found.rows()
  assert header[-1] == 'FLOPs ratio'
  assert header[4] == 'bpb@2.5e10'
  assert row_a[4:] == row_b[4:] == ['2.6021', '2.3010', '2.0000', '1.00x']
  assert row_a[:4] == ['a', '1', '1,000', '0.250']


def test_nothing_is_extrapolated(tmp_path):
  a = make_run(tmp_path / 'a', [4.0, 3.0], [1e9, 1e10])
  b = make_run(tmp_path / 'b', [2.0, 1.0], [1e11, 1e12], method='b')
  curve = curves.load(runs.load(a), 'flops', 'eval/val/bpb')
  assert math.isnan(curve.at(0.99e9))
  assert math.isnan(curve.at(1.01e10))
  found = compare.compare([a, b])
  assert found.equal_x() == []
  assert found.header()[-1] == 'final bpb'
  assert [row[-1] for row in found.rows()] == ['3.0000', '1.0000']
  assert 'No flops is covered by all runs' in str(found)


def test_the_flops_to_reach_the_baseline_are_a_ratio_or_a_bound(tmp_path):
  base = make_run(tmp_path / 'base', [4.0, 3.0, 2.0], FLOPS[:3])
  # Half a factor of ten ahead: reaches 2.0 at 10**10.5.
  ahead = make_run(
    tmp_path / 'ahead', [3.5, 2.5, 1.5], FLOPS[:3], method='ahead'
  )
  behind = make_run(
    tmp_path / 'behind', [4.5, 3.5, 2.5, 1.5], FLOPS, method='behind'
  )
  never = make_run(tmp_path / 'never', [9.0] * 3, FLOPS[:3], method='never')
  always = make_run(tmp_path / 'always', [1.0] * 3, FLOPS[:3], method='always')
  found = compare.compare([base, ahead, behind, never, always])
  ratios = {row[0]: row[-1] for row in found.rows()}
  assert ratios == {
    'base': '1.00x',
    'ahead': '0.32x',
    'behind': '3.16x',
    'never': '> 1.00x',
    'always': '< 0.01x',
  }


def test_seeds_are_averaged_with_their_standard_error(tmp_path):
  values = np.array([[4.0, 3.0], [4.2, 3.4], [4.4, 3.2]])
  folders = [
    make_run(tmp_path / f'mrt5-{i}', y, [1e9, 1e10], seed=i)
    for i, y in enumerate(values.tolist())
  ]
  other = make_run(tmp_path / 'other', [4.0, 3.0], [1e9, 1e10], method='b')
  found = compare.compare([*folders, other])
  seeds, single = found.methods
  assert (seeds.name, single.name) == ('mrt5', 'other')
  assert seeds.at(1e10) == pytest.approx((3.2, 0.2 / math.sqrt(3)))
  xs, ys, errors = seeds.mean_curve()
  np.testing.assert_allclose(xs, [1e9, 1e10])
  np.testing.assert_allclose(ys, [4.2, 3.2])
  np.testing.assert_allclose(errors, 0.2 / math.sqrt(3))
  assert found.rows()[0][-2] == '3.2000 ± 0.1155'
  assert 'over seeds' in str(found)


def test_runs_of_one_seed_are_not_averaged(tmp_path):
  a = make_run(tmp_path / 'old' / 'a', [4.0, 3.0], [1e9, 1e10])
  b = make_run(tmp_path / 'new' / 'a', [4.0, 2.0], [1e9, 1e10])
  found = compare.compare([a, b])
  assert [g.name for g in found.methods] == ['old/a', 'new/a']


def test_different_text_is_refused_by_name(tmp_path):
  a = make_run(tmp_path / 'a', [1.0], [1e9])
  b = make_run(tmp_path / 'b', [1.0], [1e9], corpus='c1', num_bytes=2000)
  c = make_run(tmp_path / 'c', [1.0], [1e9], num_bytes=999)
  with pytest.raises(ValueError, match='different text') as error:
    compare.compare([a, b])
  for part in ('/a on 1,000 bytes of text c0', '/b on 2,000 bytes of text c1'):
    assert part in str(error.value)
  with pytest.raises(ValueError, match='999 bytes'):
    compare.compare([a, c])
  assert 'may differ' in str(compare.compare([a, b], y='train/bpb'))


def test_the_newest_text_common_to_all_runs_is_taken(tmp_path):
  a = make_run(tmp_path / 'a', [2.0, 1.0], [1e9, 1e10])
  b = make_run(tmp_path / 'b', [3.0, 2.0], [1e9, 1e10])
  other = {'step': 20, 'split': 'eval/val', 'bpb': 9.0, 'flops': 1e10}
  with open(a / 'metrics.jsonl', 'a') as file:  # As --eval_only does.
    file.write(json.dumps(other | {'corpus': 'c0', 'bytes': 99}) + '\n')
  found = compare.compare([a, b])
  assert 'Measured on 1,000 bytes of text c0' in str(found)
  assert [row[-2] for row in found.rows()] == ['1.0000', '2.0000']
  assert '99 bytes' in str(compare.compare([a, a]))


def test_bounds_are_marked(tmp_path):
  a = make_run(tmp_path / 'a', [1.5, 1.0], [1e9, 1e10])
  b = make_run(
    tmp_path / 'b', [1.5, 1.0], [1e9, 1e10], method='b', bpb_bound=1.25
  )
  lines = (b / 'metrics.jsonl').read_text().replace('"bpb":', '"other":')
  (b / 'metrics.jsonl').write_text(lines)
  found = compare.compare([a, b])
  assert [row[-2] for row in found.rows()] == ['1.0000', '≤ 1.2500']
  assert 'upper bounds' in str(found)
  assert b'(bound)' in found.picture().render('svg')


def test_every_x_is_read_from_what_was_logged(tmp_path):
  folder = make_run(tmp_path / 'a', [4.0, 3.0, 2.0], FLOPS[:3])
  load = lambda x: curves.load(runs.load(folder), x, 'eval/val/bpb').x.tolist()
  assert load('step') == [10, 20, 30]
  assert load('bytes') == [640, 1280, 1920]  # Not those of the eval.
  assert load('seconds') == [5, 10, 15]
  assert load('flops') == FLOPS[:3]
  assert load('parameters') == [1000] * 3
  found = compare.compare([folder], x='parameters')
  assert found.rows() == [['a', '1', '1,000', '0.250', '2.0000']]


def test_points_between_two_training_rows_are_counted_evenly(tmp_path):
  folder = make_run(tmp_path / 'a', [4.0, 3.0], FLOPS[:2])
  with open(folder / 'metrics.jsonl', 'a') as f:
    for step in (15, 25):  # The second is beyond the last training row.
      row = {'step': step, 'split': 'eval/odd', 'bpb': 1.0}
      f.write(json.dumps(row) + '\n')
  curve = curves.load(runs.load(folder), 'bytes', 'eval/odd/bpb')
  assert curve.x.tolist() == [960]
  curve = curves.load(runs.load(folder), 'flops', 'eval/odd/bpb')
  assert curve.x.tolist() == [5.5e9]


def test_more_is_better_for_accuracy(tmp_path):
  a = make_run(tmp_path / 'a', [1.0] * 2, [1e9, 1e10], accuracy=0.5)
  b = make_run(tmp_path / 'b', [1.0] * 2, [1e9, 1e10], method='b', accuracy=0.4)
  curve = lambda f: curves.load(runs.load(f), 'flops', 'eval/val/accuracy')
  (low,) = groups.make([curve(b)])
  (high,) = groups.make([curve(a)])
  assert low.reach(0.5) == ('>', 1e10)
  assert high.reach(0.4) == ('<', 1e9)


def test_missing_metrics_and_runs_are_answered_with_what_there_is(tmp_path):
  a = make_run(tmp_path / 'a', [1.0], [1e9])
  with pytest.raises(ValueError, match='has logged no eval/test/bpb') as error:
    compare.compare([a], y='eval/test/bpb')
  assert 'eval/val/bpb, ' in str(error.value)
  with pytest.raises(FileNotFoundError, match=r'Runs in .*: a\.'):
    compare.compare([tmp_path / 'b'])
  with pytest.raises(ValueError, match="x='flop' must be one of flops, bytes"):
    compare.compare([a], x='flop')


def test_the_command_writes_four_files_and_prints_the_table(tmp_path, capsys):
  a = make_run(tmp_path / 'a', [4.0, 3.0], [1e9, 1e10])
  b = make_run(tmp_path / 'b', [4.0, 2.5], [1e9, 1e10], method='b')
  out = tmp_path / 'out'
  assert compare.main([str(a), str(b), f'--out={out}']) == 0
  printed = capsys.readouterr().out
  for kind in ('svg', 'png', 'csv', 'md'):
    assert (out / f'compare.{kind}').stat().st_size > 100
    assert f'compare.{kind}' in printed
  assert 'FLOPs ratio' in printed
  markdown = (out / 'compare.md').read_text()
  title = '# bits per byte (eval/val) at equal training FLOPs'
  assert markdown.startswith(title)
  assert '| b | 1 | 1,000 | 0.250 |' in markdown
  with open(out / 'compare.csv') as f:
    rows = list(csv.DictReader(f))
  assert [(r['method'], r['flops'], r['value']) for r in rows] == [
    ('a', '1000000000.0', '4.0'),
    ('a', '10000000000.0', '3.0'),
    ('b', '1000000000.0', '4.0'),
    ('b', '10000000000.0', '2.5'),
  ]
  svg = (out / 'compare.svg').read_bytes()
  assert compare.main([str(a), str(b)]) == 0  # Beside the runs.
  assert (tmp_path / 'compare.svg').read_bytes() == svg
  assert compare.main([str(a), 'nowhere']) == 1
  assert capsys.readouterr().err.startswith('error: nowhere is not a run')


def test_an_axis_that_does_not_exist_is_named(tmp_path):
  run = runs.load(make_run(tmp_path / 'a', [2.0], [1e9]))
  with pytest.raises(ValueError, match="x='flop' must be one of flops"):
    run.plot(x='flop')


def test_a_run_draws_itself(tmp_path):
  folder = make_run(tmp_path / 'a', [4.0, 3.0], [1e9, 1e10])
  run = runs.load(folder)
  svg = run.plot().render('svg')
  assert b'eval/val/bpb' in svg
  assert b'train/bpb' in svg
  assert run.plot(y='eval/val/bpb')._repr_png_().startswith(b'\x89PNG')
  with pytest.raises(ValueError, match='has logged no eval/val/x'):
    run.plot(y='eval/val/x')
  assert [p.name for p in plots.save_training(run)] == ['bpb.svg', 'bpb.png']
  (folder / 'metrics.jsonl').unlink()
  assert plots.save_training(run) == []
  with pytest.raises(ValueError, match='it has: nothing yet'):
    run.plot()
