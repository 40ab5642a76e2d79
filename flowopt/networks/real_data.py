"""Real data as scikit-learn ships them, split by a seed into data to train on and data to judge by."""

from typing import Any

from flowopt.networks.data import Data


def diabetes(seed: int, unseen: float = 0.25, dtype: Any = None) -> tuple[Data, Data]:
    """(train, unseen): 442 patients, 10 measurements of each -> how far the disease has gone a year later, (n, 1).

    - `seed`: of the split.
    - `unseen`: the share of the data that is not for training, in (0, 1).
    - `dtype`: of the inputs, and of targets that are no classes; JAX's default if None.

    Raises ImportError where scikit-learn is missing.   [Efron, Hastie, Johnstone and Tibshirani 2004]
    """
    return _split("diabetes", seed, unseen, dtype)


def digits(seed: int, unseen: float = 0.25, dtype: Any = None) -> tuple[Data, Data]:
    """(train, unseen): 1797 images of 8 x 8 pixels, 0 to 16 -> the digit, 0 to 9; the shares of the digits are kept.

    As `diabetes` otherwise.   [Alpaydin and Kaynak 1998]
    """
    return _split("digits", seed, unseen, dtype)


def breast_cancer(seed: int, unseen: float = 0.25, dtype: Any = None) -> tuple[Data, Data]:
    """(train, unseen): 569 tumours, 30 measurements of each -> 0 malignant, 1 benign; the shares of both are kept.

    As `diabetes` otherwise.   [Wolberg, Mangasarian, Street and Street 1995]
    """
    return _split("breast_cancer", seed, unseen, dtype)


def _split(name: str, seed: int, unseen: float, dtype: Any) -> tuple[Data, Data]:
    try:
        from sklearn import datasets
        from sklearn.model_selection import train_test_split
    except ImportError as e:
        raise ImportError(
            f"flowopt.networks.{name} reads the data that scikit-learn ships: pip install 'flowopt[data]', or "
            "pip install scikit-learn"
        ) from e
    if isinstance(unseen, bool) or not isinstance(unseen, float) or not 0 < unseen < 1:
        raise ValueError(f"`unseen` must be a share in (0, 1); got {unseen!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"`seed` must be an int >= 0; got {seed!r}")
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    classes = y if y.dtype.kind == "i" else None
    x0, x1, y0, y1 = train_test_split(x, y, test_size=unseen, random_state=seed, stratify=classes)
    shape = lambda y: y if classes is not None else y[:, None]
    return Data(x0, shape(y0), dtype=dtype), Data(x1, shape(y1), dtype=dtype)
