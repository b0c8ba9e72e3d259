"""The scikit-learn estimators, which translate their parameters into settings of training."""

from xpmlp.devices.extras import needed

for package in ("sklearn", "narwhals"):
    needed(package, "sklearn")
