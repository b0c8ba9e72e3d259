"""The scikit-learn estimators, which translate their parameters into settings of training."""

from xpmlp.devices.extras import import_extra

for package in ("sklearn", "narwhals"):
    import_extra(package, "sklearn")
