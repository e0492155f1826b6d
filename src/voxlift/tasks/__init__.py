"""Network, loss and metrics of each task, as Lightning modules."""
