"""The smallest study that goes through everything: three dense layers on the embedded digits, in seconds. It shows nothing.

python -m experiments.transferability --config configs/figure2_tiny.py
"""

from experiments.config import Data, Model
from experiments.study.settings import Distance, Fit, Study

config = Study(
    name="figure2_tiny",
    data=Data("digits"),
    splits=2,
    images_per_class=10,
    test_per_class=20,
    model=Model("mlp", hidden=(16, 16)),
    fit=Fit(epochs=6, batch_size=16),
    distance=Distance(permutations=19, max_rows=50),
)
