"""Single objects out of a prediction: labeled, measured, outlined."""
