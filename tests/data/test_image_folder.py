"""Folders of class folders: every layout, colours and sizes that files come in, and what is refused."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustjax import data
from robustjax.core import InputError
from robustjax.data import image_folder
from tests.data import writing


def put(path: Path, picture: np.ndarray | bytes) -> Path:
    """Writes one image, losslessly whatever its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture if isinstance(picture, bytes) else writing.encode(picture))
    return path


def picture(seed: int, shape: tuple[int, ...] = (6, 8, 3)) -> np.ndarray:
    return writing.images(1, shape, seed)[0]


def write_split(root: Path, test: str = "test") -> None:
    for i in range(3):
        for name, offset in (("wet", 0), ("dry", 10)):
            put(root / "train" / name / f"{i}.png", picture(offset + i))
            put(root / test / name / f"{i}.JPG", picture(100 + offset + i))


def write_one(root: Path, count: int = 10) -> None:
    for i in range(count):
        put(root / "wet" / f"{i}.png", picture(i))
        put(root / "dry" / f"{i}.png", picture(50 + i))


def opened(root: Path, **options) -> data.Dataset:
    return data.make("image_folder", dir=str(root), **{"size": (6, 8), **options})


def stored(source: data.Source) -> set[bytes]:
    return {image.tobytes() for image in source.images}


@pytest.mark.parametrize("test", ["test", "val"])
@pytest.mark.parametrize("resident_bytes", [10**9, 0])
def test_train_and_test_folders_are_read_as_they_are(tmp_path, test, resident_bytes):
    # Kills: splits swapped; classes in the order of the disk; images resized that have the size; upper-case endings, hidden files or
    # other files wrongly taken or left; order of `fetch`; a large split loaded whole.
    write_split(tmp_path, test)
    put(tmp_path / "train" / "wet" / ".hidden.png", picture(7))
    put(tmp_path / "train" / "wet" / "notes.txt", b"no image")
    put(tmp_path / "train" / ".cache" / "1.png", picture(7))
    put(tmp_path / "train" / "__MACOSX" / "1.txt", b"")
    found = opened(tmp_path, resident_bytes=resident_bytes)
    assert (found.num_classes, found.class_names, found.image_shape) == (2, ("dry", "wet"), (6, 8, 3))
    assert len(found.train) == len(found.test) == 6 and found.train.resident == (resident_bytes > 0)
    for source, offset in ((found.train, 0), (found.test, 100)):
        images, labels = source.fetch(np.array([4, 0, 4]))
        np.testing.assert_array_equal(images, [picture(offset + seed) for seed in (1, 10, 1)])
        assert labels.tolist() == [1, 0, 1] and source.labels.tolist() == [0, 0, 0, 1, 1, 1]
    if resident_bytes:
        np.testing.assert_array_equal(found.train.images[4], picture(1))
        np.testing.assert_array_equal(found.train.fetch(np.array([4]))[0][0], picture(1))  # from memory now
    else:
        with pytest.raises(InputError, match="too large for memory"):
            _ = found.train.images


def test_test_is_preferred_to_val_and_folders_within_classes_count(tmp_path):
    # Kills: val read beside test; images in deeper folders overlooked.
    write_split(tmp_path)
    put(tmp_path / "val" / "other" / "1.png", picture(0))
    put(tmp_path / "train" / "wet" / "camera 2" / "0.png", picture(77))
    found = opened(tmp_path)
    assert len(found.train) == 7 and picture(77).tobytes() in stored(found.train)


def test_one_folder_is_split_by_class_and_name(tmp_path):
    # Kills: a split that is not by class; test files in training; an ignored share or seed; a split by position.
    write_one(tmp_path)
    found = opened(tmp_path, test_share=0.3)
    assert np.bincount(found.test.labels).tolist() == [3, 3] and np.bincount(found.train.labels).tolist() == [7, 7]
    assert not stored(found.train) & stored(found.test)
    again, other = opened(tmp_path, test_share=0.3), opened(tmp_path, test_share=0.3, test_seed=1)
    assert stored(again.test) == stored(found.test) != stored(other.test)
    assert np.bincount(opened(tmp_path).test.labels).tolist() == [2, 2]
    assert np.bincount(opened(tmp_path, test_share=0.01).test.labels).tolist() == [1, 1]
    assert np.bincount(opened(tmp_path, test_share=0.99).train.labels).tolist() == [1, 1]
    # Which names are drawn is fixed for good: trained runs rely on it.
    names = {file.name for file, label in zip(found.test._files, found.test.labels, strict=True) if label == 1}
    assert names == FIXED


FIXED = {"2.png", "3.png", "8.png"}


def test_another_file_moves_one_at_most_and_other_classes_not_at_all(tmp_path):
    # Kills: a permutation of positions, which another file would draw anew.
    write_one(tmp_path, count=20)
    before = stored(opened(tmp_path, test_share=0.25).test)
    put(tmp_path / "wet" / "000.png", picture(99))
    after = opened(tmp_path, test_share=0.25).test
    assert len(before ^ stored(after)) <= 2
    dry = {image.tobytes() for image, label in zip(after.images, after.labels, strict=True) if label == 0}
    assert dry <= before and len(dry) == 5


def test_a_class_with_one_image_is_for_training_with_a_warning(tmp_path):
    # Kills: the image in both splits, or in none; silence.
    write_one(tmp_path)
    put(tmp_path / "ice" / "only.png", picture(80))
    with pytest.warns(UserWarning, match="with one image are for training only, never tested: ice"):
        found = opened(tmp_path)
    assert found.class_names == ("dry", "ice", "wet") and picture(80).tobytes() in stored(found.train)
    assert set(found.test.labels) == {0, 2}


def as_file(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


RGB = picture(3)
GREY = picture(4, (6, 8))
ALPHA = picture(5, (6, 8, 4))
ON_WHITE = ALPHA[..., 3:] / 255 * ALPHA[..., :3] + 255 - ALPHA[..., 3:]
PALETTE = Image.fromarray(GREY // 64).convert("P")
PALETTE.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 200, 210, 220])
COLOURS = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [200, 210, 220]])[GREY // 64]
DEEP = (GREY.astype(np.uint16) * 257) + 100
UPRIGHT = Image.Exif()
UPRIGHT[0x0112] = 6  # the picture was taken with the camera turned: to be turned clockwise
MODES = {
    "rgb": (Image.fromarray(RGB), "PNG", {}, RGB),
    "bmp": (Image.fromarray(RGB), "BMP", {}, RGB),
    "webp": (Image.fromarray(RGB), "WEBP", {"lossless": True}, RGB),
    "grey": (Image.fromarray(GREY), "PNG", {}, GREY[..., None]),
    "black_and_white": (Image.fromarray(GREY > 127), "PNG", {}, (GREY > 127)[..., None] * 255),
    "palette": (PALETTE, "PNG", {}, COLOURS),
    "palette_transparent": (PALETTE, "PNG", {"transparency": 2}, np.where((GREY // 64 == 2)[..., None], 255, COLOURS)),
    "alpha": (Image.fromarray(ALPHA), "PNG", {}, ON_WHITE),
    "grey_alpha": (Image.merge("LA", [Image.fromarray(ALPHA).getchannel(i) for i in (2, 3)]), "PNG", {}, ON_WHITE[..., 2:]),
    "cmyk": (Image.fromarray(RGB).convert("CMYK"), "TIFF", {}, RGB),
    "sixteen_bits": (Image.fromarray(DEEP), "PNG", {}, GREY[..., None]),
    "exif": (Image.fromarray(np.rot90(RGB)), "PNG", {"exif": UPRIGHT}, RGB),
}


@pytest.mark.parametrize("name", MODES)
def test_every_kind_of_colours_becomes_rgb(name):
    # Kills: transparent pixels that show what lies under them or turn black; 16 bits cut off at 255 or to the low byte; palette indices
    # taken for levels; inverted CMYK; a picture left on its side.
    image, format, options, expected = MODES[name]
    got = image_folder.decode(as_file(image, format, **options), shape=(6, 8, 3), resize="stretch")
    assert got.dtype == np.uint8
    np.testing.assert_allclose(got, np.broadcast_to(expected, (6, 8, 3)), atol=1.01 if "alpha" in name else 0)
    grey = image_folder.decode(as_file(image, format, **options), shape=(6, 8, 1), resize="stretch")
    np.testing.assert_allclose(grey[..., 0], np.broadcast_to(expected, (6, 8, 3)) @ [0.299, 0.587, 0.114], atol=2)


def test_floats_are_refused_as_broken():
    # Kills: floats clipped to 0 and 255 without a word.
    with pytest.raises(ValueError, match="floats"):
        image_folder.decode(as_file(Image.fromarray(GREY.astype(np.float32)), "TIFF"), shape=(6, 8, 3), resize="stretch")


def test_resizing_averages_and_the_crop_is_central():
    # Kills: height taken for width; nearest or unfiltered bilinear; a crop from a corner, or of the longer side's scale.
    columns = np.broadcast_to(np.arange(16, dtype=np.uint8)[None, :, None] * 16, (4, 16, 3))
    png = writing.encode(np.ascontiguousarray(columns))
    stretched = image_folder.decode(png, shape=(2, 4, 3), resize="stretch")
    assert stretched.shape == (2, 4, 3)
    np.testing.assert_allclose(stretched[0, 1:3, 0], [16 * 5.5, 16 * 9.5], atol=1)  # a ramp's averages, away from its ends
    cropped = image_folder.decode(png, shape=(2, 4, 3), resize="shorter_crop")
    np.testing.assert_allclose(cropped[1, :, 2], 16 * np.array([4.5, 6.5, 8.5, 10.5]), atol=8)
    assert np.all(np.diff(cropped[0, :, 0].astype(int)) > 25)
    noise = picture(9, (40, 40, 3))
    small = image_folder.decode(writing.encode(noise), shape=(4, 4, 3), resize="stretch")
    assert small.std() < 0.25 * noise.std()  # 100 pixels and more averaged
    tall = writing.encode(np.ascontiguousarray(columns.transpose(1, 0, 2)))
    np.testing.assert_array_equal(image_folder.decode(tall, shape=(4, 2, 3), resize="shorter_crop"), cropped.transpose(1, 0, 2))


@pytest.mark.parametrize("resident_bytes", [10**9, 0])
def test_broken_files_are_counted_and_skipped(tmp_path, resident_bytes):
    # Kills: rows of zeros kept; labels that do not move up with the images; a split drawn anew because of a broken file.
    write_one(tmp_path)
    whole = opened(tmp_path)
    images = whole.train.images, whole.test.images
    name = next(file for file in whole.train._files if file.parent.name == "dry")
    name.write_bytes(name.read_bytes()[:60])
    with pytest.warns(UserWarning, match=rf"left out: 1 file of the train split of .* cannot be decoded \(.*\): .*{name.name}"):
        found = opened(tmp_path, broken="skip", resident_bytes=resident_bytes)
    lost = int(np.flatnonzero([file == name for file in whole.train._files])[0])
    np.testing.assert_array_equal(found.train.fetch(np.arange(15))[0], np.delete(images[0], lost, axis=0))
    np.testing.assert_array_equal(found.train.labels, np.delete(whole.train.labels, lost))
    np.testing.assert_array_equal(found.test.fetch(np.arange(4))[0], images[1])
    assert found.provenance.endswith("1 broken left out") and "left out" not in whole.provenance


def test_broken_files_are_refused_by_default_with_their_number(tmp_path):
    # Kills: the first one named only, or those of one chunk or of the probe; a traceback of Pillow; the mend not named.
    write_split(tmp_path)
    for i in range(20, 50):
        put(tmp_path / "train" / "wet" / f"{i}.png", picture(i))
    lazily = opened(tmp_path)
    names = [put(tmp_path / "train" / "dry" / "0.png", b"no image")]
    half = as_file(Image.fromarray(picture(0, (64, 64, 3))), "JPEG")[:800]
    names += [put(tmp_path / "train" / "wet" / f"{i}.png", half) for i in (21, 22, 23, 49)]
    for read in (lambda: lazily.train.images, lambda: opened(tmp_path)):
        with pytest.raises(InputError, match=r"5 files of the train split of .* cannot be decoded \(it is none of JPEG") as error:
            read()
        message = str(error.value)
        assert "\n" not in message and "broken='skip'" in message
        assert [str(name) in message for name in names] == [True, True, True, False, False] and " and 2 more;" in message
    with pytest.raises(InputError, match="4 files of the train split"):
        opened(tmp_path, resident_bytes=0)  # names what it met; it would take long to look at all
    (tmp_path / "train" / "dry" / "0.png").unlink()
    (tmp_path / "train" / "dry" / "0.png").symlink_to("nowhere.png")
    with pytest.raises(InputError, match=r"5 files .*No such file"):
        opened(tmp_path)


def test_provenance_names_the_data(tmp_path):
    # Kills: a digest that a copy changes, or that a changed, renamed or moved file does not.
    write_split(tmp_path / "road")
    first = opened(tmp_path / "road").provenance
    assert first.startswith("images in road, 6x8 rgb, stretched, digest ")
    shutil.copytree(tmp_path / "road", tmp_path / "copy" / "road")
    assert opened(tmp_path / "copy" / "road").provenance == first
    put(tmp_path / "road" / "train" / "wet" / "0.png", picture(0, (9, 9, 3)))
    assert opened(tmp_path / "road").provenance != first
    shutil.move(tmp_path / "copy/road/train/wet/0.png", tmp_path / "copy/road/train/wet/00.png")
    assert opened(tmp_path / "copy" / "road").provenance != first
    assert "grey, shorter side and centre" in opened(tmp_path / "road", colour="grey", resize="shorter_crop").provenance


def only_folders(root: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        (root / name).mkdir(parents=True)


def classes_differ(root: Path) -> None:
    write_split(root)
    put(root / "test" / "ice" / "1.png", picture(0))


def one_empty(root: Path) -> None:
    write_one(root)
    put(root / "ice" / "notes.txt", b"")


def no_test(root: Path) -> None:
    write_split(root)
    shutil.rmtree(root / "test")


def all_broken(root: Path) -> None:
    write_split(root)
    for file in (root / "train" / "wet").iterdir():
        file.write_bytes(b"")


CASES = {
    "no folder": (lambda root: None, {}, "there is no folder .*name the one that holds the class folders"),
    "no dir": (lambda root: None, {"dir": ""}, "needs a folder: name it by --config.data.dir"),
    "no classes": (lambda root: put(root / "1.png", picture(0)), {}, "holds no class folders; put the images of each class"),
    "one class": (lambda root: [put(root / "wet" / f"{i}.png", picture(i)) for i in range(2)], {}, "holds one class only, 'wet'"),
    "no images": (only_folders, {}, r"holds no image \(.jpg .*\) in its 5 folders: a, b, c and 2 more"),
    "one empty": (one_empty, {}, "has class folders with no image .*: ice; fill or remove"),
    "other classes": (classes_differ, {}, "must hold the same classes; in one only: ice"),
    "no test": (no_test, {}, "has train/ but neither test/ nor val/"),
    "share unused": (write_split, {"test_share": 0.3}, "option test_share .* leave it out"),
    "single images": (lambda root: write_one(root, 1), {}, "every class in .* has one image"),
    "share": (write_one, {"test_share": 1.0}, "test_share .* between 0 and 1, both excluded, got 1.0"),
    "seed": (write_one, {"test_seed": -1}, "test_seed .* at least 0, got -1"),
    "no size": (write_one, {"size": None}, r"needs the option size, \(height, width\)"),
    "size": (write_one, {"size": (6, 0)}, r"option size .* got \(6, 0\)"),
    "size text": (write_one, {"size": "64"}, "option size .* got '64'"),
    "resize": (write_one, {"resize": "crop"}, "resize .* 'stretch' or 'shorter_crop', got 'crop'"),
    "colour": (write_one, {"colour": "gray"}, "colour .* 'rgb' or 'grey', got 'gray'"),
    "broken": (write_one, {"broken": "ignore"}, "broken .* 'refuse' or 'skip', got 'ignore'"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_line(tmp_path, name):
    # Kills: a check dropped; a message that does not name what was wrong.
    write, options, message = CASES[name]
    write(tmp_path / "road")
    with pytest.raises(InputError, match=message) as error:
        opened(**{"root": options.pop("dir", tmp_path / "road"), **options})
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:left out")
def test_a_class_whose_images_are_all_broken_is_refused(tmp_path):
    # Kills: a class of the network that no image has.
    all_broken(tmp_path)
    with pytest.raises(InputError, match="has no image for training that can be decoded of wet"):
        opened(tmp_path, broken="skip")


def test_one_number_is_a_square_and_lists_do(tmp_path):
    # Kills: sizes as they come back from JSON refused.
    write_one(tmp_path)
    assert opened(tmp_path, size=5).image_shape == (5, 5, 3) and opened(tmp_path, size=[4, 7], colour="grey").image_shape == (4, 7, 1)


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "testing"), ("train", "valid"), ("test", "train")])
def test_splits_are_not_taken_for_classes(tmp_path, names):
    # Kills: a network that learns to tell training images from test images.
    for name in names:
        folder = tmp_path / name
        for i in range(3):
            put((folder if names == ("test", "train") else folder / "wet") / f"{i}.png", picture(i))
    with pytest.raises(InputError, match="look like splits|has train/ but neither test/"):
        opened(tmp_path)


def test_links_are_followed_once(tmp_path):
    # Kills: files that are counted again for every way that leads to them, in train and in test.
    write_one(tmp_path, count=4)
    (tmp_path / "wet" / "up").symlink_to(tmp_path / "wet")
    (tmp_path / "wet" / "more").symlink_to(tmp_path / "dry")
    found = opened(tmp_path)
    assert len(found.train) + len(found.test) == 12  # 4 wet ones, the linked dry ones, and the 4 dry ones


@pytest.mark.parametrize("options", [{"resident_bytes": "x"}, {"resident_bytes": -1}, {"size": (10**6, 10**6)}])
def test_numbers_out_of_range_are_refused(tmp_path, options):
    # Kills: tracebacks of NumPy.
    write_one(tmp_path)
    with pytest.raises(InputError, match="option (resident_bytes|size) of image_folder must be"):
        opened(tmp_path, **options)
