"""AnB, BnB, AnB+ and BnB+ on scikit-learn's digits, which are embedded: the whole study without a download.

python -m experiments.transferability --config configs/figure2_digits.py

"""

from experiments.config import Data, Model
from experiments.study.settings import Fit, Study

config = Study(
    name="figure2_digits",
    data=Data("digits", test_fraction=0.75),
    splits=10,
    seeds=2,
    images_per_class=10,
    model=Model(width=8),
    fit=Fit(epochs=80, batch_size=25, learning_rate=0.03),
)
