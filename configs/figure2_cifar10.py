"""AnB, BnB, AnB+ and BnB+ on CIFAR-10: random halves, and animals against vehicles.

python -m experiments.transferability --config configs/figure2_cifar10.py

A size for two cores: 200 images a class. Seen with seed 0: 444 networks in 11 min. AnB at n = 7 is 7.6 points below base
(95 % interval 4.6 … 10.5 over 4 random splits); AnB+ is 2.0 (1.1 … 2.8) above a base trained as long. See
docs/transferability.md.
"""

from experiments.config import Data, Model
from experiments.study.settings import Fit, Study

config = Study(
    name="figure2_cifar10",
    data=Data("cifar10"),
    splits=4,
    dissimilar_splits=2,
    kind_a=("bird", "cat", "deer", "dog", "frog", "horse"),
    kind_b=("airplane", "automobile", "ship", "truck"),
    images_per_class=200,
    test_per_class=500,
    model=Model(width=8, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    fit=Fit(epochs=12, batch_size=50, learning_rate=0.05),
)
