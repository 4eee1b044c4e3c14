"""Predictions for new images, by a fitted head and its encoders."""
