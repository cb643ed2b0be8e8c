# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lines of libraries are hidden, wherever the clone is."""

import logging
import pathlib

import pytest

import jaxtok
from jaxtok.runs import logs

PACKAGE = pathlib.Path(jaxtok.__file__).parent
ELSEWHERE = '/home/me/jaxtok/.venv/lib/site-packages/orbax/manager.py'


@pytest.mark.parametrize(
  'path, level, is_shown',
  [
    (PACKAGE / 'data' / 'tokens.py', logging.INFO, True),
    (ELSEWHERE, logging.INFO, False),
    (ELSEWHERE, logging.WARNING, True),
    (PACKAGE.parent / '.venv' / 'orbax' / 'manager.py', logging.INFO, False),
  ],
)
def test_our_lines_and_warnings_are_shown(path, level, is_shown):
  record = logging.LogRecord('absl', level, str(path), 1, 'text', None, None)
  assert logs.is_shown(record) is is_shown


def test_the_least_level_of_libraries_can_be_raised():
  record = logging.LogRecord('', logging.WARNING, ELSEWHERE, 1, '', None, None)
  assert not logs.is_shown(record, least=logging.ERROR)
