# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which log lines are ours: Orbax and grain log through absl, too."""

import logging
import pathlib

_PACKAGE = pathlib.Path(__file__).parents[1]


def is_shown(record: logging.LogRecord, least: int = logging.WARNING) -> bool:
  """Whether a line is of this package or severe enough; a filter for handlers.

  Where a file is decides, not a folder's name: a clone is a folder `jaxtok`
  too, with all libraries in its virtual environment below.

  Args:
    record: The line.
    least: Level from which on lines of libraries are shown.
  """
  is_ours = pathlib.Path(record.pathname).is_relative_to(_PACKAGE)
  return is_ours or record.levelno >= least
