"""AnB, BnB, AnB+ and BnB+ on scikit-learn's digits, which are embedded: the whole study without a download.

python -m experiments.transferability --config configs/figure2_digits.py

Seen with seed 0 on two cores: 1,480 networks in 2 min 59 s. AnB at n = 7 is 9.7 points below base (95 % interval 8.2 … 11.1 over
10 splits); AnB+ is .7 (.4 … 1.1) below a base trained as long. See docs/transferability.md.
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
