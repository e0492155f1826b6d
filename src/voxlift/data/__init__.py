"""Photographs and volumes, from files to tensors."""
