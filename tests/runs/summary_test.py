# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import json

from jaxtok import runs


def make_run(folder, rows, meta):
  folder.mkdir(parents=True)
  (folder / 'config.json').write_text('{}')
  (folder / 'meta.json').write_text(json.dumps(meta))
  lines = ''.join(json.dumps(row) + '\n' for row in rows)
  (folder / 'metrics.jsonl').write_text(lines)


def test_runs_are_listed_with_their_newest_evals(tmp_path, capsys):
  rows = [
    {'step': 10, 'split': 'train', 'flops': 2e9, 'seconds': 1.5},
    {'step': 10, 'split': 'eval/val', 'bpb': 2.5},
    {'step': 20, 'split': 'train', 'flops': 4e9, 'seconds': 3.4},
    {'step': 20, 'split': 'eval/val', 'bpb': 2.25},
    {'step': 20, 'split': 'eval/test', 'bpb_bound': 2.5},
  ]
  ended = {'steps': 20, 'sessions': [{'exit': 'finished'}]}
  make_run(tmp_path / 'x' / 'a', rows, ended)
  make_run(tmp_path / 'b', [], {'sessions': [{'exit': None}]})
  assert runs.summary.main([str(tmp_path)]) == 0
  head, _, b, a = capsys.readouterr().out.splitlines()
  assert head.split() == ['run', 'step', 'FLOPs', 'seconds', 'evals', 'state']
  assert b.split()[1:] == ['0', '0', '0', '-', 'running,', 'or', 'killed']
  assert a.split()[1:4] == ['20/20', '4e+09', '3']
  assert 'val 2.2500, test ≤ 2.5000' in a
  assert a.endswith('finished')
  html = runs.Run(tmp_path / 'x' / 'a')._repr_html_()
  assert 'val 2.2500' in html


def test_a_folder_without_runs_is_named(tmp_path, capsys):
  assert runs.summary.main([str(tmp_path)]) == 1
  assert f'no runs in {tmp_path}' in capsys.readouterr().err
