# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""A TFDS data set made of one's own text.

  from jaxtok.data import tfds_text
  tfds_text.LocalText(
      source=Files(path='novels/'), data_dir='tfds').download_and_prepare()
  Tfds(name='local_text', data_dir='tfds').make('train')

TFDS wants a builder's class in a package of its own. Importing this one needs
`pip install 'jaxtok[tfds]'`; TensorFlow is not needed.
"""

from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from jaxtok.data.source import SPLITS


class LocalText(tfds.core.GeneratorBasedBuilder):
  """The documents of a source as feature 'text', in the source's splits.

  Args:
    source: A source config, e.g. `Files(path=...)`.
    data_dir: Where the data set is written.
  """

  VERSION = tfds.core.Version('1.0.0')

  def __init__(self, *, source: Any = None, **options: Any):
    self._source = source
    super().__init__(**{'file_format': 'array_record', **options})

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description='Documents of a jaxtok source.',
      features=tfds.features.FeaturesDict({'text': tfds.features.Text()}),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    del dl_manager  # Nothing is downloaded.
    return {split: self._generate_examples(split) for split in SPLITS}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
    documents = self._source.make(split)
    for index in range(len(documents)):
      yield index, {'text': documents[index]['data']}
