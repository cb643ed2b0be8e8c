# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes docs/methods.md from the claims and what was measured."""

import pathlib

from experiments.ledger import claim as claim_lib
from experiments.ledger import methods
from jaxtok.runs import files, table

PATH = claim_lib.ROOT / 'docs' / 'methods.md'

_INTRODUCTION = """# Methods and claims

Made by `python -m experiments.claims --write_docs`; do not edit. Every claim
is measured at a scale that anyone can afford by `python -m experiments.claims
NAME`, which writes the numbers to `docs/claims/NAME.json`. The verdict follows
from the numbers and the threshold; "not reproduced" is a result like any
other. Values are means over seeds ± their standard error.
"""

_HEADER = ('name', 'claim', 'threshold', 'measured', 'on', 'verdict')


def render() -> str:
  """The text of docs/methods.md."""
  modules = methods.find()
  claims = [claim_lib.load(name) for name in claim_lib.names()]
  parts = [_INTRODUCTION]
  sections = {
    'Foundations': [c for c in claims if c.name not in modules],
    'Methods': [c for c in claims if c.name in modules],
  }
  for title, members in sections.items():
    if members:
      rows = [row for claim in members for row in _rows(claim, modules)]
      body = table.markdown(_HEADER, rows, num_text=len(_HEADER))
      parts.append(f'## {title}\n\n{body}')
  return '\n'.join(parts)


def write() -> pathlib.Path:
  """Writes docs/methods.md; returns its path."""
  files.write_atomic(PATH, render())
  return PATH


def _rows(
  claim: claim_lib.Claim, modules: dict[str, pathlib.Path]
) -> list[list[str]]:
  """A row per device."""
  head = [_title(claim, modules), claim.claim]
  rules = '<br>'.join(f'{k} {v}' for k, v in claim.threshold.items())
  rows = []
  for device, record in (claim.records() or {'-': None}).items():
    values = (record or {}).get('measured', {})
    shown = [
      f'{key} {claim_lib.summary(*(values[name] for name in names))}'
      for key in claim.threshold
      if all(map(values.get, names := claim_lib.numbers(key)))
    ]
    measured = '<br>'.join(shown) or '-'
    rows.append([*head, rules, measured, device, claim.verdict(record)])
  return rows


def _title(claim: claim_lib.Claim, modules: dict[str, pathlib.Path]) -> str:
  link = lambda text, path: f'[{text}](../{path})'
  links = [link('claim', f'experiments/claims/{claim.name}.py')]
  if module := modules.get(claim.name):
    links.insert(0, link('code', module))
    if config := methods.config_of(claim.name):
      links.insert(1, link('config', config))
  paper = f'<br>{claim.paper}' if claim.paper else ''
  return f'**{claim.title}**{paper}<br>{", ".join(links)}'
