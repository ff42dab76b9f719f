"""MNIST → scikit-learn's digits, 16 × 16 pixels, in all four pairings of supervised and unsupervised.

python -m experiments.pairings --config configs/pairings.py
"""

from experiments.config import Data
from experiments.pairing.settings import Pairings

config = Pairings(
    name="pairings",
    source=Data("mnist", size=(16, 16), limit=5_000, test_limit=1_000),
    target=Data("digits"),
    seeds=8,
)
