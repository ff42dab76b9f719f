"""AnB, BnB, AnB+ and BnB+ on Fashion-MNIST: random halves, and clothes against shoes and bags.

python -m experiments.transferability --config configs/figure2_fashion_mnist.py

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
