import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from torch.testing import assert_close

from jepakit.data.collation import Unreadable
from jepakit.data.images import decode
from jepakit.data.images.box import Box, CropRequest


def encoded(array, form, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, form, **options)
    return file.getvalue()


def whole(size):
    return [CropRequest(size, lambda h, w: Box(0, 0, w, h))]


def ramp(height, width, channels=3):
    y, x = np.mgrid[:height, :width]
    bands = [(x * 255 // width), (y * 255 // height), ((x + y) * 255 // (width + height)), 255 - x * 255 // width]
    return np.stack(bands[:channels], -1).astype(np.uint8)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "BMP"])
def test_lossless_images_come_back_to_the_bit(form):
    picture = ramp(20, 30)
    x = decode.decode_picture(encoded(picture, form, **({"lossless": True} if form == "WEBP" else {})), "a", 3)
    assert torch.equal(x, torch.from_numpy(picture).permute(2, 0, 1))


def test_a_jpeg_is_read_at_a_reduced_scale_and_looks_like_the_full_one_resized():
    data = encoded(ramp(512, 768), "JPEG", quality=95)
    (small,) = decode.decode_crops(data, "a", 3, whole((64, 96)))
    slow = torch.nn.functional.interpolate(
        decode.decode_picture(data, "a", 3)[None].float(), size=(64, 96), mode="bilinear", antialias=True
    )[0]
    assert (small.float() - slow).abs().mean() < 1.0


def test_a_box_means_the_same_place_in_a_reduced_jpeg():
    data = encoded(ramp(512, 512), "JPEG", quality=95)
    (part,) = decode.decode_crops(data, "a", 3, [CropRequest((32, 32), lambda h, w: Box(256, 0, 256, 256))])
    assert part[0].float().mean() == pytest.approx(192, abs=3)
    assert part[1].float().mean() == pytest.approx(64, abs=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_sizes_pixels_and_crops(orientation):
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:10, :30] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture, "JPEG", quality=100, subsampling=0, exif=exif.tobytes())
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[orientation]
    turned = Image.fromarray(picture)
    upright = np.array(turned if back is None else turned.transpose(Image.Transpose(back)))
    assert decode.read_header(data, "a") == (*upright.shape[:2], 3)
    want = torch.from_numpy(upright).permute(2, 0, 1).float()
    assert_close(decode.decode_picture(data, "a", 3).float(), want, atol=25, rtol=0)
    (same,) = decode.decode_crops(data, "a", 3, whole(upright.shape[:2]))
    assert_close(same.float(), want, atol=25, rtol=0)


def test_16_bit_grey_keeps_more_than_8_bits():
    deep = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
    for form in ("PNG", "TIFF"):
        x = decode.decode_picture(encoded(deep, form), "a", 1)
        assert_close(x[0], torch.from_numpy(deep.astype(np.float32) / 65535))
        assert x.unique().numel() == 4096


def test_four_channels_are_bands_and_not_transparency():
    picture = ramp(32, 32, 4)
    picture[..., 3] = 0
    data = encoded(picture, "PNG")
    assert decode.read_header(data, "a").channels == 4
    (x,) = decode.decode_crops(data, "a", 4, whole((16, 16)))
    assert x[:3].float().std() > 50
    assert x[3].max() == 0
    (x,) = decode.decode_crops(data, "a", 3, whole((16, 16)))
    assert x[:3].float().std() > 50


def test_a_tiff_of_13_pages_is_one_picture_of_13_channels():
    bands = [Image.fromarray(np.full((16, 24), 100 * k, np.uint16)) for k in range(13)]
    file = io.BytesIO()
    bands[0].save(file, "TIFF", save_all=True, append_images=bands[1:])
    assert decode.read_header(file.getvalue(), "a") == (16, 24, 13)
    x = decode.decode_picture(file.getvalue(), "a", 13)
    assert_close(x.mean((1, 2)), torch.arange(13) * 100 / 65535)
    (half,) = decode.decode_crops(file.getvalue(), "a", 13, whole((8, 12)))
    assert half.shape == (13, 8, 12)


def many_bands(array, apart, deflate, rows):
    """A little-endian TIFF in strips of `rows` rows, with horizontal differences where it is deflated."""
    channels, height, width = array.shape
    planes = array[:, None] if apart else array[None]
    strips = []
    for plane in planes:
        for top in range(0, height, rows):
            values = plane[:, top : top + rows].transpose(1, 2, 0)
            if deflate:
                values = np.diff(values, axis=1, prepend=values[:, :1] * 0)
            packed = np.ascontiguousarray(values).tobytes()
            strips.append(zlib.compress(packed) if deflate else packed)
    tags = ImageFileDirectory_v2(b"II*\0\0\0\0\0")
    tags[256], tags[257], tags[258], tags[277] = width, height, (8 * array.itemsize,) * channels, channels
    tags[262], tags[278], tags[284] = 1, rows, 2 if apart else 1
    tags[259], tags[317] = (8, 2) if deflate else (1, 1)
    # Pillow moves these offsets to where the directory ends.
    tags[279], tags[273] = tuple(map(len, strips)), tuple(sum(map(len, strips[:k])) for k in range(len(strips)))
    return b"II*\0" + struct.pack("<L", 8) + tags.tobytes(8) + b"".join(strips)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_of_13_bands_is_read_whichever_way_they_lie(apart, deflate, dtype):
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (13, 20, 30)).astype(dtype)
    data = many_bands(array, apart, deflate, rows=6)
    assert decode.read_header(data, "a") == (20, 30, 13)
    x = decode.decode_picture(data, "a", 13)
    want = array if dtype == np.uint8 else array.astype(np.float32) / np.float32(65535)
    assert torch.equal(x, torch.from_numpy(want))
    with pytest.raises(Unreadable, match="a: "):
        decode.decode_picture(data[:-10], "a", 13)


def test_bands_compressed_another_way_say_how_to_write_them():
    data = bytearray(many_bands(np.zeros((13, 8, 8), np.uint8), False, False, 8))
    at = data.index(struct.pack("<HHL", 259, 3, 1))
    data[at + 8] = 5
    with pytest.raises(Unreadable, match="compression is number 5; write it uncompressed or deflated"):
        decode.decode_picture(bytes(data), "a", 13)


@pytest.mark.parametrize("shape", [(13, 20, 30), (20, 30, 13), (20, 30)])
def test_an_npy_file_has_its_channels_on_the_shortest_axis(shape):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    file = io.BytesIO()
    np.save(file, array)
    channels = 1 if len(shape) == 2 else 13
    assert decode.read_header(file.getvalue(), "a") == (20, 30, channels)
    want = array[None] if len(shape) == 2 else array if shape[0] == 13 else array.transpose(2, 0, 1)
    assert torch.equal(decode.decode_picture(file.getvalue(), "a", channels), torch.from_numpy(want.copy()))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_three_channels_or_one(mode):
    form = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    file = io.BytesIO()
    Image.fromarray(ramp(24, 24)).convert(mode).save(file, form)
    for channels in (1, 3):
        (x,) = decode.decode_crops(file.getvalue(), "a", channels, whole((12, 12)))
        assert x.shape == (channels, 12, 12)
        assert decode.decode_picture(file.getvalue(), "a", channels).shape == (channels, 24, 24)


def test_grey_and_colour_are_converted_and_other_counts_refused():
    x = torch.full((3, 2, 2), 100, dtype=torch.uint8)
    assert torch.equal(decode.convert_channels(x, 1, "a"), x[:1])
    assert torch.equal(decode.convert_channels(x[:1], 3, "a"), x)
    with pytest.raises(Unreadable, match="has 13 channels where the data set has 3"):
        decode.convert_channels(torch.zeros(13, 2, 2), 3, "a")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_truncated_and_garbled_files_are_unreadable_and_named(form):
    data = encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), form)
    for broken in (data[: len(data) // 2], data[:10], b"", b"not an image"):
        for read in (
            lambda d: decode.decode_picture(d, "bad.img", 3),
            lambda d: decode.decode_crops(d, "bad.img", 3, whole((8, 8))),
        ):
            with pytest.raises(Unreadable, match=r"bad\.img"):
                read(broken)


def test_a_flipped_box_is_the_mirror_of_the_box():
    data = encoded(ramp(32, 32), "PNG")
    plain, mirrored = decode.decode_crops(
        data, "a", 3, [CropRequest((16, 16), lambda h, w, f=f: Box(4, 4, 20, 20, f)) for f in (0, 1)]
    )
    assert torch.equal(plain.flip(-1), mirrored)
    assert not torch.equal(plain, mirrored)
