"""AnB, BnB, AnB+ and BnB+ on scikit-learn's digits, which are embedded: the whole study without a download.

    python -m experiments.transferability --config configs/figure2_digits.py
"""

from experiments.config import Data, Model
from experiments.study import Fit, Study

config = Study(
    name="figure2_digits",
    data=Data("digits", test_fraction=0.5),
    splits=5,
    seeds=2,
    images_per_class=30,
    model=Model(width=8),
    fit=Fit(epochs=40, batch_size=25),
)
