"""AnB, BnB, AnB+ and BnB+ on Fashion-MNIST: random halves, and clothes against shoes and bags.

python -m experiments.transferability --config configs/figure2_fashion_mnist.py

Seen with seed 0 on two cores, other work beside it at first: 666 networks in 24 min 50 s. AnB at n = 7 is 7.7 points below base
(95 % interval 5.2 … 10.1 over 5 random splits; 11.1, 8.0 … 14.2 over 4 dissimilar ones); AnB+ is not told apart from base. See
docs/transferability.md.
"""

from experiments.config import Data, Model
from experiments.study.settings import Fit, Study

config = Study(
    name="figure2_fashion_mnist",
    data=Data("fashion_mnist"),
    splits=5,
    dissimilar_splits=4,
    kind_a=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Shirt"),
    kind_b=("Sandal", "Sneaker", "Bag", "Ankle boot"),
    images_per_class=300,
    test_per_class=500,
    model=Model(width=8),
    fit=Fit(epochs=20, batch_size=50, learning_rate=0.05),
)
