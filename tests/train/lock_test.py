# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from jaxtok.train import errors, lock


def test_a_workdir_is_held_by_one_at_a_time(tmp_path):
  with lock.hold(tmp_path):
    message = f'in use by process {os.getpid()}'
    with (
      pytest.raises(errors.WorkdirError, match=message),
      lock.hold(tmp_path),
    ):
      pass
  with lock.hold(tmp_path):
    pass
