"""HTTP server that predicts images with a trained model."""
