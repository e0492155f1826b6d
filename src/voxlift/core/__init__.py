"""What every other package rests on: errors, geometry, preprocessing, randomness."""
