# Copyright 2026 The jaxtok Authors.
# SPDX-License-Identifier: Apache-2.0
"""What rollouts of an unmasking policy earn, and which of their steps.

Rewards of arXiv:2512.09106, compared within groups as in GRPO (Shao et al.
2024, arXiv:2402.03300) but not divided by their deviation.

Axes: s steps, b rows (prompts times group members), g groups.
"""

import enum

import numpy as np


class Reward(enum.Enum):
  """How correctness and speed make a reward."""

  PRODUCT = 'product'  # r ((L - n + 1) / L) ** alpha.
  SUM = 'sum'  # r - alpha n / L: an ablation, which learns not to answer.


class Credit(enum.Enum):
  """Which steps of a rollout its advantage is given to."""

  ALL = 'all'  # Each the same share: the paper's.
  BLAME = 'blame'  # If it is negative, the step that made the answer wrong.
  # None to steps after the answer was wrong: with Reward.PRODUCT they change no
  # reward, so that what they add is mostly noise. Its mean would be 0 but for
  # the weight of a step, 1 / steps of its rollout, which later actions change.
  UNTIL_FAULT = 'until_fault'


def rewards(
  is_correct_b: np.ndarray,
  num_calls_b: np.ndarray,
  length: int,
  alpha: float,
  kind: Reward = Reward.PRODUCT,
) -> np.ndarray:
  """Reward of each rollout, float32 [b]; `length` is the answer's."""
  calls_b = np.minimum(np.asarray(num_calls_b), length)
  if kind is Reward.SUM:
    return np.float32(is_correct_b - alpha * calls_b / length)
  return np.float32(is_correct_b * ((length - calls_b + 1) / length) ** alpha)


def advantages(reward_b: np.ndarray, rows_per_prompt: int) -> np.ndarray:
  """Rewards minus the mean of their group; groups are contiguous."""
  reward_gn = np.asarray(reward_b).reshape(-1, rows_per_prompt)
  return (reward_gn - reward_gn.mean(1, keepdims=True)).reshape(-1)


def credited(
  advantage_b: np.ndarray,
  fault_b: np.ndarray,
  num_calls_b: np.ndarray,
  num_steps: int,
  credit: Credit,
) -> np.ndarray:
  """Advantage of each step, float32 [num_steps, b].

  Args:
    advantage_b: Of the rollouts.
    fault_b: Step after which no right answer was possible; -1 if none.
    num_calls_b: Steps of each rollout.
    num_steps: Most steps of a rollout.
    credit: A blamed step counts as often as all steps together; a row that
      could have become right but did not is credited as a whole.
  """
  step_s1 = np.arange(num_steps)[:, None]
  all_sb = np.tile(np.float32(advantage_b), (num_steps, 1))
  if credit is Credit.ALL:
    return all_sb
  if credit is Credit.UNTIL_FAULT:
    return np.where((fault_b >= 0) & (step_s1 > fault_b), 0, all_sb)
  blamed_sb = np.where(step_s1 == fault_b, all_sb * num_calls_b, 0)
  is_blamed_b = (advantage_b < 0) & (fault_b >= 0)
  return np.float32(np.where(is_blamed_b, blamed_sb, all_sb))
