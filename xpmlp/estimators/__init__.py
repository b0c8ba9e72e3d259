"""The scikit-learn face: estimators that translate their parameters into trainings of `fit`."""
