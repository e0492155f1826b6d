"""The paper's idea: images read as thin volumes, and 3D layers computed as 2D ones."""
