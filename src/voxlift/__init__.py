"""Give 3D medical networks a supervised start from labelled 2D photographs."""
