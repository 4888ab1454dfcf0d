"""Every objective: tensors in, one scalar out, one family a file.

Most of retrieval take `sim` (P, C), the similarities of P pictures and C captions (any two sets do: en and zh captions,
say), and `positive` (P, C) bool, true where both belong to one picture or one `group`. A positive pair is
never a negative one. Half precision goes in safely (sums run in float32), and a row without negatives costs
0, never NaN.
"""

from tuwen.losses.auxiliary import adversarial, reconstruction
from tuwen.losses.captioning import advantages, reinforce
from tuwen.losses.common import same_label
from tuwen.losses.contrastive import (
    info_nce,
    info_nce_by_language,
    n_pair,
    norm_penalty,
    soft_nce,
    soft_nce_by_language,
)
from tuwen.losses.generation import flow_matching, fool, gaussian_kl, judge_true_and_false, slope_penalty
from tuwen.losses.matching import cmpc, cmpm, sdm
from tuwen.losses.ranking import hinge, hinge_hardest, hinge_sum, mine_hardest

__all__ = [
    "advantages",
    "adversarial",
    "cmpc",
    "cmpm",
    "flow_matching",
    "fool",
    "gaussian_kl",
    "hinge",
    "hinge_hardest",
    "hinge_sum",
    "info_nce",
    "info_nce_by_language",
    "judge_true_and_false",
    "mine_hardest",
    "n_pair",
    "norm_penalty",
    "reconstruction",
    "reinforce",
    "same_label",
    "sdm",
    "slope_penalty",
    "soft_nce",
    "soft_nce_by_language",
]
