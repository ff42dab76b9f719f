"""Can I reuse this trained network on my new data set, how, and what is the evidence?"""

from mmd_jax.models.cnn8 import cnn8
from mmd_jax.models.layered import Network, from_layers, preprocessed
from mmd_jax.models.mlp import mlp
from mmd_jax.models.whole import from_functions, from_linen
from mmd_jax.transfer.augment import Augmentation, augment
from mmd_jax.transfer.decision import decide, similarity, similarity_of_verdict, stages_of
from mmd_jax.transfer.finetune import finetune
from mmd_jax.transfer.freezing import (
    check_frozen,
    freeze_labels,
    frozen_hashes,
    stage_labels,
    staged_optimizer,
    stop_frozen,
)
from mmd_jax.transfer.inference import log_probabilities
from mmd_jax.transfer.linear_probe import Probe, probe
from mmd_jax.transfer.objectives import CLASSIFICATION
from mmd_jax.transfer.prefix import with_caching
from mmd_jax.transfer.profile import layer_features, mmd_profile
from mmd_jax.transfer.recipe import Recipe
from mmd_jax.transfer.scores import h_score, leep, log_me, nce, trans_rate
from mmd_jax.transfer.train import TrainState, classification_loss, init_state, train_step
from mmd_jax.two_sample import (
    aggregated_test,
    mmd2_unbiased,
    mmd_biased,
    permutation_test,
    two_sample_test,
    wild_bootstrap_test,
)
from mmd_jax.two_sample.verdict import Verdict, verdict
from mmd_jax.types import Objective, Plan, Rows, Similarity, Stage, TwoSampleResult

__all__ = [
    "CLASSIFICATION",
    "Augmentation",
    "Network",
    "Objective",
    "Plan",
    "Probe",
    "Recipe",
    "Rows",
    "Similarity",
    "Stage",
    "TrainState",
    "TwoSampleResult",
    "Verdict",
    "aggregated_test",
    "augment",
    "check_frozen",
    "classification_loss",
    "cnn8",
    "decide",
    "finetune",
    "freeze_labels",
    "from_functions",
    "from_layers",
    "from_linen",
    "frozen_hashes",
    "h_score",
    "init_state",
    "layer_features",
    "leep",
    "log_me",
    "log_probabilities",
    "mlp",
    "mmd2_unbiased",
    "mmd_biased",
    "mmd_profile",
    "nce",
    "permutation_test",
    "preprocessed",
    "probe",
    "similarity",
    "similarity_of_verdict",
    "stage_labels",
    "staged_optimizer",
    "stages_of",
    "stop_frozen",
    "train_step",
    "trans_rate",
    "two_sample_test",
    "verdict",
    "wild_bootstrap_test",
    "with_caching",
]
