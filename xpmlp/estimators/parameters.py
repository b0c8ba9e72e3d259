"""Constraints of the estimators' parameters, for scikit-learn's validation, and their text."""

from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, Options, StrOptions

from xpmlp.activations import ACTIVATIONS
from xpmlp.optimizers import OPTIMIZERS, Optimizer
from xpmlp.storage.checkpoint import Checkpoint


class NameWithArguments(StrOptions):  # type: ignore[misc]
    """Names that may carry arguments after a colon, such as "leaky_relu:0.1"."""

    def is_satisfied_by(self, value: Any) -> bool:
        return isinstance(value, str) and value.partition(":")[0].strip() in self.options


AT_LEAST_1 = Interval(Integral, 1, None, closed="left")
AT_LEAST_0 = Interval(Real, 0, None, closed="left")
ABOVE_0 = Interval(Real, 0, None, closed="neither")
THREADS = Interval(Integral, 1, 2**31 - 1, closed="both")  # BLAS takes a C int
FRACTION = Interval(Real, 0, 1, closed="left")

LEARNING_RATES = ("constant", "invscaling", "adaptive")

CONSTRAINTS: dict[str, list[Any]] = {
    "hidden_layer_sizes": ["array-like", AT_LEAST_1],
    "activation": [NameWithArguments({*ACTIVATIONS, "logistic"}), callable, "array-like"],
    "solver": [StrOptions({*OPTIMIZERS, "lbfgs"}), callable, Optimizer],
    "alpha": [AT_LEAST_0],
    "batch_size": [StrOptions({"auto"}), AT_LEAST_1],
    "learning_rate": [StrOptions({*LEARNING_RATES})],
    "learning_rate_init": [ABOVE_0],
    "power_t": [AT_LEAST_0],
    "max_iter": [AT_LEAST_1],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [AT_LEAST_0],
    "verbose": ["verbose", StrOptions({"bar"})],
    "warm_start": ["boolean"],
    "momentum": [Interval(Real, 0, 1, closed="both")],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [FRACTION],
    "beta_1": [FRACTION],
    "beta_2": [FRACTION],
    "epsilon": [ABOVE_0],
    "n_iter_no_change": [AT_LEAST_1, Options(Real, {np.inf})],
    "max_fun": [AT_LEAST_1],
    "dropout": [FRACTION, "array-like"],
    "schedule": [str, callable, None],
    "weight_decay": [AT_LEAST_0, None],
    "clip": [ABOVE_0, None],
    "scoring": [str, callable, None],
    "callbacks": ["array-like"],
    "continuation": [StrOptions({"exact", "scikit-learn"})],
    "device": [str, None],
    "dtype": [StrOptions({"float32", "float64"}), None],
    "precision": [StrOptions({"full", "tf32"})],
    "n_threads": [THREADS, None],
    "output": [StrOptions({"numpy"}), None],
    "checkpoint": [str, PathLike, Checkpoint, None],
    "resume": ["boolean"],
}

HINTS = {  # what `train` and other libraries call the estimators' parameters
    "seed": "random_state",
    "epochs": "max_iter",
    "n_epochs": "max_iter",
    "hidden": "hidden_layer_sizes",
    "hidden_sizes": "hidden_layer_sizes",
    "layers": "hidden_layer_sizes",
    "spec": "hidden_layer_sizes",
    "optimizer": "solver",
    "optimizer_params": "momentum, beta_1, beta_2 and epsilon",
    "lr": "learning_rate_init",
    "rate": "learning_rate_init",
    "eta": "learning_rate_init",
    "eta0": "learning_rate_init",
    "beta1": "beta_1",
    "beta2": "beta_2",
    "eps": "epsilon",
    "batch": "batch_size",
    "l2": "alpha",
    "patience": "n_iter_no_change",
    "min_delta": "tol",
    "clipnorm": "clip",
    "lr_scheduler": "schedule",
    "metrics": "scoring",
    "n_jobs": "n_threads",
    "X_val": "an argument of fit()",
    "y_val": "an argument of fit()",
    "validation_data": "X_val and y_val of fit()",
    "validation_split": "validation_fraction with early_stopping=True",
    "sample_weight": "an argument of fit()",
    "classes": "an argument of partial_fit()",
    "class_weight": "an argument of MLPClassifier alone",
    "quantiles": "an argument of MLPRegressor alone",
    "loss": "chosen by the labels",
} | dict.fromkeys(
    ("members", "l1", "ema_decay", "initializer", "params", "monitor", "keep", "on_divergence"),
    "an argument of xpmlp.train() alone",
)

SHARED_TEXT = """hidden_layer_sizes : array-like of int, default=(100,)
        The neurons of each hidden layer; () is a linear model.
    activation : str, callable, or one for each hidden layer, default='relu'
        'identity', 'logistic', 'tanh', 'relu', or any of xpmlp's: 'leaky_relu:0.1', 'elu',
        'selu', 'gelu', 'silu', 'mish', 'softplus'. A function (xp, z) -> (a, slope) is your own.
    solver : {'lbfgs', 'sgd', 'adam'}, any of xpmlp's optimizers, or a rule, default='adam'
        'adam' and 'sgd' are scikit-learn's: epsilon is added to the raw root, and 'sgd' has
        momentum. Beyond those 'adamw', 'muon', 'rmsprop', 'adagrad', or a rule of your own (see
        `xpmlp.optimizers`). 'lbfgs' takes all rows at once.
    alpha : float, default=0.0001
        Strength of the L2 penalty, divided by the weight of the batch.
    batch_size : int, default='auto'
        Rows per update; 'auto' is min(200, n_samples). Not for 'lbfgs'.
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        For 'sgd': 'invscaling' divides by the power `power_t` of the rows seen so far,
        'adaptive' by 5 after `n_iter_no_change` epochs without improvement.
    learning_rate_init : float, default=0.001
        The initial learning rate.
    power_t : float, default=0.5
        The exponent of 'invscaling'.
    max_iter : int, default=200
        The maximum number of epochs, or of iterations of 'lbfgs'.
    shuffle : bool, default=True
        Whether the rows are shuffled in every epoch.
    random_state : int, RandomState instance, default=None
        Initial weights (the same as scikit-learn's), held-out rows (likewise), orders and dropout.
    tol : float, default=1e-4
        An epoch improves if loss or held-out score get better by more than this.
    verbose : bool, int or 'bar', default=False
        True prints scikit-learn's lines, 'bar' shows a progress bar (needs tqdm).
    warm_start : bool, default=False
        Whether `fit` continues from the current weights.
    momentum : float, default=0.9
        Of 'sgd', in [0, 1].
    nesterovs_momentum : bool, default=True
        Whether it is Nesterov's.
    early_stopping : bool, default=False
        Whether a share of the rows is held out, training ends when the score on them does not
        improve, and the best weights are restored.
    validation_fraction : float, default=0.1
        That share; not used where `fit` is given X_val.
    beta_1, beta_2 : float, default=0.9 and 0.999
        Decay of the running means of 'adam', in [0, 1).
    epsilon : float, default=1e-8
        What 'adam' adds to a root.
    n_iter_no_change : int, default=10
        Epochs without improvement after which training ends.
    max_fun : int, default=15000
        The maximum number of evaluations of 'lbfgs'.
    dropout : float or one for each hidden layer, default=0.0
        Probability in [0, 1) that a neuron is left out of an update.
    schedule : str, callable or None, default=None
        What the learning rate is multiplied by over the epochs: 'cosine', 'step:30,0.1',
        'warmup:5 * cosine', 'one_cycle', or a function (see `xpmlp.schedules`).
    weight_decay : float or None, default=None
        Decoupled weight decay (AdamW), on weights alone; None is the rule's own.
    clip : float or None, default=None
        The maximum norm of the gradient, which is scaled down to it.
    scoring : str, callable or None, default=None
        scikit-learn's scorer of the held-out rows; None is SCORE.
    callbacks : sequence of functions, default=()
        Each is called with an `xpmlp.Report` after every epoch; one that returns True ends
        training.
    continuation : {'exact', 'scikit-learn'}, default='exact'
        How `fit` with `warm_start` continues: 'exact' as if it had never stopped, with the
        optimizer's state and new orders; 'scikit-learn' with a new optimizer.
    device : {'auto', 'cpu', 'gpu', 'gpu:N'} or None, default=None
        Where to train; None is where X lies, or for X on the host the environment variable
        XPMLP_DEVICE.
    dtype : {'float32', 'float64'} or None, default=None
        Of weights and arithmetic; None is X's own float32 or float64, else float64.
    precision : {'full', 'tf32'}, default='full'
        'tf32' is for faster float32 products on a GPU.
    n_threads : int or None, default=None
        The maximum number of threads of a product on the CPU.
    output : {'numpy'} or None, default=None
        None answers with arrays of X's own namespace and device, 'numpy' with NumPy's.
    checkpoint : str, path, `xpmlp.Checkpoint` or None, default=None
        Where `fit` is written to after every epoch, or as often as the Checkpoint says. A file
        is of one `fit`; `partial_fit` writes none. Needs a random_state; not for 'lbfgs'.
    resume : bool, default=False
        Whether `fit` goes on from the checkpoint where the file is, to the same bits as if it had
        never stopped. Refused with other rows, parameters or start, but max_iter may be larger.
        A finished `fit` is restored as it was."""


def shared_doc(score: str) -> str:
    """The parameters' text in both docstrings; `score` is the score of early stopping."""
    return SHARED_TEXT.replace("SCORE", score)
