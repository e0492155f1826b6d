from voxlift.weights.foreign.names import split_prefix, strip_prefixes

PREFIXES = ("module.", "_orig_mod.", "backbone.")


def test_a_chain_that_all_names_bear_is_taken_away() -> None:
    names = {"module.backbone.module.conv1.weight": 1, "module.backbone.module.module.bias": 2}
    stripped, chain = strip_prefixes(names, PREFIXES)
    assert stripped == {"conv1.weight": 1, "module.bias": 2}
    assert chain == "module.backbone.module."


def test_a_prefix_that_only_some_bear_stays() -> None:
    names = {"module.backbone.conv1.weight": 1, "module.head.fc.weight": 2}
    stripped, chain = strip_prefixes(names, PREFIXES)
    assert (list(stripped), chain) == (["backbone.conv1.weight", "head.fc.weight"], "module.")
    below, others = split_prefix(stripped, "backbone.")
    assert (below, others) == ({"conv1.weight": 1}, {"head.fc.weight": 2})


def test_nothing_inside_a_name_is_touched() -> None:
    names = {"conv.module.weight": 1, "conv.backbone.bias": 2}
    assert strip_prefixes(names, PREFIXES) == (names, "")
    assert split_prefix(names, "backbone.") == ({}, names)


def test_no_name_is_stripped_to_nothing() -> None:
    assert strip_prefixes({"module.": 1, "module.a": 2}, PREFIXES)[1] == ""
    assert strip_prefixes({"a": 1}, ("",)) == ({"a": 1}, "")
    assert strip_prefixes({}, PREFIXES) == ({}, "")
