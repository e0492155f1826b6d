"""Pictures: learning curves, results, and the idea itself."""
