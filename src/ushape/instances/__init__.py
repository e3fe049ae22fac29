"""Single objects out of a prediction: labelled, measured, outlined."""
