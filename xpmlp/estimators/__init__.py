"""The scikit-learn face: estimators that translate their parameters into trainings of `fit`."""

from xpmlp.devices.extras import needed

for package in ("sklearn", "narwhals"):
    needed(package, "sklearn")
