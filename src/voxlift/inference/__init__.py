"""Whole cases through a trained model."""
