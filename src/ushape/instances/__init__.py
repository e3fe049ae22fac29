"""Instances: label, measure and outline the objects of a prediction."""
