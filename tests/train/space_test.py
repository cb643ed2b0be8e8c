# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import shutil
import types

import pytest

from jaxtok.train import errors, space


def test_a_workdir_that_cannot_be_written_is_told_at_once(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.WorkdirError, match='cannot be written'):
    space.check(tmp_path / 'file' / 'run', 10, 2)


def test_a_disk_that_is_too_small_is_told_with_numbers(tmp_path, monkeypatch):
  usage = types.SimpleNamespace(free=100 * 2**20)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
  space.check(tmp_path, 25 * 2**20, 2)  # Four of them just fit.
  with pytest.raises(
    errors.WorkdirError, match=r'100 MiB free.* 4 checkpoints of 30\.0 MiB'
  ):
    space.check(tmp_path, 30 * 2**20, 2)
