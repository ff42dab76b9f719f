"""MNIST → scikit-learn's digits, 16 × 16 pixels, in all four pairings of supervised and unsupervised.

python -m experiments.pairings --config configs/pairings.py

Seen with seeds 0 … 7 on two cores that much other work shared: 104 arms in 13 min 31 s (5 min 18 s of processor time). S→S with
200 labels: +1.3 points (95 % interval .6 … 1.9). MMD² as a loss: +14.8 points (6.0 … 23.6) on the target without labels. No
transferred features cluster it as well as its pixels. See docs/pairings.md.
"""

from experiments.config import Data
from experiments.pairing.settings import Pairings

config = Pairings(
    name="pairings",
    source=Data("mnist", size=(16, 16), limit=5_000, test_limit=1_000),
    target=Data("digits"),
    seeds=8,
)
