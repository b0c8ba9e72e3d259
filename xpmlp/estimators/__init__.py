"""The scikit-learn face: estimators that translate their parameters into trainings of `fit`."""

from xpmlp.devices.extras import import_extra

for package in ("sklearn", "narwhals"):
    import_extra(package, "sklearn")
