# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import io
import sys

import pytest

from jaxtok.train import progress


class Terminal(io.StringIO):
  def isatty(self):
    return True


def run(steps):
  out = progress.Progress()
  out.start(0, steps)
  for step in range(steps):
    out.advance()
    if step == 1:
      out.say('step 2/4  loss 1.5')
  out.close()


def test_a_bar_moves_below_the_lines_on_a_terminal(monkeypatch):
  terminal = Terminal()
  monkeypatch.setattr(sys, 'stdout', terminal)
  monkeypatch.setattr('tqdm.tqdm.monitor_interval', 0)
  run(4)
  text = terminal.getvalue()
  assert '0/4' in text  # A bar that is drawn over itself.
  assert '\r' in text
  assert 'step 2/4  loss 1.5\n' in text


def test_log_files_get_only_the_lines(monkeypatch):
  file = io.StringIO()
  monkeypatch.setattr(sys, 'stdout', file)
  run(4)
  assert file.getvalue() == 'step 2/4  loss 1.5\n'


def test_other_processes_print_nothing(capsys):
  out = progress.Progress(enabled=False)
  out.start(0, 3)
  out.say('line')
  out.close()
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
  'num_bytes, text', [(7, '7 B'), (41_230, '41.2 kB'), (2.5e9, '2.5 GB')]
)
def test_quantities_have_decimal_units(num_bytes, text):
  assert progress.quantity(num_bytes) == text
