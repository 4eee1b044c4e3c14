"""A trained head with its encoders, applied to new images."""
