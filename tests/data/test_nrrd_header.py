"""NRRD files that are cut, corrupt, or lie about themselves."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from voxlift.core.errors import DataError
from voxlift.data.volumes import read_channels, read_volume

ARRAY = np.random.default_rng(0).integers(-1000, 1000, (6, 7, 8)).astype(np.int16)


def save(path: Path, *, compressed: bool = False) -> bytes:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ARRAY), str(path), compressed)
    return path.read_bytes()


def assert_refused(path: Path, message: str) -> None:
    for read in (read_volume, read_channels):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert path.name in str(caught.value)


@pytest.mark.parametrize("compressed", [True, False])
def test_cut_data_are_refused(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "scan.nrrd"
    data = save(path, compressed=compressed)
    np.testing.assert_array_equal(read_volume(path).array, ARRAY)
    for length in (*range(1, 400, 7), len(data) // 2, len(data) - 9, len(data) - 1):
        path.write_bytes(data[:length])
        assert_refused(path, "scan.nrrd")


def test_flipped_bytes_in_compressed_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.nrrd"
    data = save(path, compressed=True)
    start = data.index(b"\n\n") + len(b"\n\n")
    # The header of gzip holds a time and a name, which may be anything.
    for place in range(start + 10, len(data), 5):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        path.write_bytes(flipped)
        assert_refused(path, r"decompressed to its end|end too early|it holds")


VECTORS = "space directions: (1,0,0) (0,1,0) (0,0,1)"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sizes: 8 7 6", "sizes: 60000 60000 60000", "60000 x 60000 x 60000 voxels"),
        ("sizes: 8 7 6", "sizes: 1200 1200 1200", "holds 672 of the 3456000000 bytes"),
        ("sizes: 8 7 6", "sizes: 8 7 -6", "nothing to read"),
        ("sizes: 8 7 6", "sizes: 8 7 six", "sizes is '8 7 six'"),
        ("sizes: 8 7 6", "sizes: 8 7 6\nsizes: 4 4 4", "states sizes twice"),
        ("dimension: 3", "dimension: 4", "states 4 dimensions, but 3 sizes"),
        ("dimension: 3", "dimension: 9999999", "9999999 dimensions"),
        ("NRRD0004", "NERD0004", "does not begin"),
        (VECTORS, "space directions: (0,0,0) (0,1,0) (0,0,1)", "broken.nrrd"),
        (VECTORS, "space directions: (nan,nan,nan) (0,1,0) (0,0,1)", "a vector for each axis"),
        (VECTORS, "space directions: none (0,1,0) (0,0,1)", "a vector for each axis"),
        (VECTORS, "space directions: (0,1,0) (0,0,1)", "a vector for each axis"),
        (VECTORS, "space directions: (1,0,0) (0.5,1,0) (0,0,1)", "right angles"),
        (VECTORS, "spacings: 0 1 1", "spacings is .*expected positive"),
        (VECTORS, "spacings: -1 1 1", "spacings is .*expected positive"),
        (VECTORS, "spacings: nan 1 1", "spacings is .*expected positive"),
        (VECTORS, "spacings: 1 1", "expected 3 number"),
        ("space origin: (0,0,0)", "space origin: (nan,0,0)", "broken.nrrd"),
        ("type: short", "type: block", "type is 'block'"),
        ("type: short", "type: unsigned long long int", "holds 672 of the 2688 bytes"),
        ("type: short", "type: uint64_t", "holds 672 of the 2688 bytes"),
        ("encoding: raw", "encoding: bzip2", "encoding is 'bzip2'; expected raw, gzip"),
        ("encoding: raw", "encoding: ascii", "broken.nrrd"),
        ("encoding: raw", "encoding: raw\nbyte skip: -5", "byte skip -5"),
        ("encoding: raw", "encoding: raw\ndata file: gone.raw", "gone.raw, is not there"),
        ("encoding: raw", "encoding: raw\ndata file: LIST", "several files"),
        ("encoding: raw", "encoding: raw\nline skip: -1", "line skip -1"),
        ("encoding: raw", "encoding: raw\nline skip: 99", "fewer than the 99 lines"),
        ("endian: little", "endian: middle", "endian is 'middle'"),
        ("kinds: domain domain domain", "kinds: domain domain", "2 kinds of 3 axes"),
        ("kinds: domain domain domain", "kinds: vector domain domain", "a vector for each axis"),
        ("left-posterior-superior", "scanner-xyz", "space is 'scanner-xyz'; expected left"),
        (VECTORS, "spacings: 1 1 1\naxis mins: 0 0 0", "place by 'axis mins'"),
        # SimpleITK dies of words as long as these.
        ("(0,0,1)", f"(0,0,{'1' * 5000})", "broken.nrrd"),
        ("space origin: (0,0,0)", f"space origin: (0,0,{'A' * 10000})", "space origin is"),
        ("kinds: domain domain domain", f"kinds: domain domain {'1' * 5000}", "broken.nrrd"),
    ],
)
def test_broken_headers_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "broken.nrrd"
    data = save(path)
    assert old.encode() in data
    path.write_bytes(data.replace(old.encode(), new.encode()))
    assert_refused(path, message)


@pytest.mark.parametrize("name", ["signed short", "short int", "signed short int", "int16_t"])
def test_names_of_types(tmp_path: Path, name: str) -> None:
    path = tmp_path / "scan.nrrd"
    path.write_bytes(save(path).replace(b"type: short", f"type: {name}".encode()))
    np.testing.assert_array_equal(read_volume(path).array, ARRAY)


def test_numbers_as_text(tmp_path: Path) -> None:
    path = tmp_path / "scan.nrrd"
    header = save(path).split(b"\n\n")[0].replace(b"encoding: raw", b"encoding: ascii")
    digits = (np.arange(6 * 7 * 8) % 10).astype(np.int16)
    path.write_bytes(header + b"\n\n" + b" ".join(b"%d" % one for one in digits))
    np.testing.assert_array_equal(read_volume(path).array.ravel(), digits)


@pytest.mark.parametrize("compressed", [True, False])
def test_data_beside_the_header(tmp_path: Path, compressed: bool) -> None:
    save(tmp_path / "scan.nhdr", compressed=compressed)
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nhdr").array, ARRAY)
    raw = tmp_path / ("scan.raw.gz" if compressed else "scan.raw")
    raw.write_bytes(raw.read_bytes()[:100])
    assert_refused(tmp_path / "scan.nhdr", r"scan\.nhdr is damaged")
    raw.unlink()
    assert_refused(tmp_path / "scan.nhdr", "is not there")


def test_header_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long.nrrd").write_bytes(b"NRRD0004\n" + (b"#" * 999 + b"\n") * 1100)
    assert_refused(tmp_path / "long.nrrd", "no end")


def test_channels_have_no_place_in_space(tmp_path: Path) -> None:
    path = tmp_path / "many.nrrd"
    image = SimpleITK.GetImageFromArray(np.stack([ARRAY, ARRAY + 1], axis=-1), isVector=True)
    SimpleITK.WriteImage(image, str(path))
    assert b"none" in path.read_bytes()
    assert [one.array.tolist() for one in read_channels(path)] == [
        ARRAY.tolist(),
        (ARRAY + 1).tolist(),
    ]


def variants() -> dict[str, tuple[str, bytes]]:
    """Headers as other programs write them, with their data."""
    voxels = np.arange(60, dtype="<i2").reshape(3, 4, 5)
    raw = voxels.tobytes()
    two = np.stack([voxels, voxels + 1])
    turned = "space directions: (0,0.5,0) (-0.75,0,0) (0,0,2.5)\nspace origin: (1.5,-2,30)\n"
    plain = "dimension: 3\nsizes: 5 4 3\n"
    vectors = (
        "dimension: 4\nsizes: 2 5 4 3\nkinds: vector domain domain domain\nspace: RAS\n"
        "space directions: none (0.5,0,0) (0,0.75,0) (0,0,2.5)\n"
    )
    four = (
        "dimension: 4\nsizes: 5 4 3 2\nspace: left-posterior-superior-time\n"
        "space directions: (1,0,0,0) (0,2,0,0) (0,0,3,0) (0,0,0,1)\nspace origin: (1,2,3,4)\n"
    )
    return {
        **{
            f"space {space}": (f"{plain}encoding: raw\nspace: {space}\n{turned}", raw)
            for space in ("LPS", "right-anterior-superior", "RAS", "LAS")
        },
        "no name of the space": (f"{plain}encoding: raw\nspace dimension: 3\n{turned}", raw),
        "spacings": (f"{plain}encoding: raw\nspacings: 0.5 0.75 2\n", raw),
        "no geometry": (f"{plain}encoding: raw\n", raw),
        "left-handed": (
            f"{plain}encoding: raw\nspace: LPS\nspace directions: (1,0,0) (0,-2,0) (0,0,3)\n",
            raw,
        ),
        "text": (f"{plain}encoding: text\n", " ".join(map(str, voxels.ravel())).encode()),
        "bytes skipped": (f"{plain}encoding: raw\nbyte skip: 4\n", b"junk" + raw),
        "the end of the file": (f"{plain}encoding: raw\nbyte skip: -1\n", b"junk" + raw),
        "lines skipped": (f"{plain}encoding: raw\nline skip: 2\n", b"ju\nnk\n" + raw),
        "vectors": (f"{vectors}encoding: raw\n", np.moveaxis(two, 0, -1).tobytes()),
        "four dimensions": (f"{four}encoding: raw\n", two.tobytes()),
        "big": (f"{plain}encoding: raw\n", voxels.astype(">i2").tobytes()),
    }


@pytest.mark.parametrize("name", variants())
def test_reads_what_simpleitk_reads(tmp_path: Path, name: str) -> None:
    header, data = variants()[name]
    endian = "big" if name == "big" else "little"
    start = f"NRRD0004\ntype: short\nendian: {endian}\n{header}"
    (tmp_path / "one.nrrd").write_bytes(f"{start}\n".encode() + data)
    (tmp_path / "two.nhdr").write_text(f"{start}data file: two.raw\n")
    (tmp_path / "two.raw").write_bytes(data)
    for path in (tmp_path / "one.nrrd", tmp_path / "two.nhdr"):
        expected = SimpleITK.ReadImage(str(path))
        array = SimpleITK.GetArrayFromImage(expected)
        if expected.GetNumberOfComponentsPerPixel() > 1:
            array = np.moveaxis(array, -1, 0)
        found = read_channels(path)
        np.testing.assert_array_equal(
            np.stack([one.array for one in found]), array.reshape(-1, 3, 4, 5)
        )
        assert found[0].array.dtype == array.dtype
        assert found[0].spacing_mm[::-1] == pytest.approx(expected.GetSpacing()[:3])
        assert found[0].origin_mm == pytest.approx(expected.GetOrigin()[:3])
        side = expected.GetDimension()
        direction = np.array(expected.GetDirection()).reshape(side, side)[:3, :3]
        np.testing.assert_allclose(found[0].direction, direction, atol=1e-6)
