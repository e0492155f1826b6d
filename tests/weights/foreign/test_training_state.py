from voxlift.weights.foreign.training_state import training_state


def test_names_what_belongs_to_the_training() -> None:
    entries = ("optimizer_state", "grad_scaler_state", "lr_scheduler", "epoch", "Optimizer")
    assert set(training_state(entries)) == set(entries) - {"epoch"}
    assert training_state([]) == {}
