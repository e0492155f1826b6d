from voxlift.weights.catalogue import list_formats
from voxlift.weights.formats import FORMATS


def test_every_format_is_listed_with_what_it_is() -> None:
    entries = list_formats()
    assert [entry.name for entry in entries] == list(FORMATS)
    for entry in entries:
        assert entry.summary == FORMATS[entry.name].summary
        assert entry.licence == FORMATS[entry.name].licence
