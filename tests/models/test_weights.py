import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from music_diffusion.errors import UserError
from music_diffusion.models.weights import (
    load_safetensors,
    read_facts,
    save_safetensors,
    weight_files,
)


def flat(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value


PARAMS = {"unet": {"input": {"kernel": np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3),
                             "bias": np.zeros(3, np.float32)}},
          "timbre": {"table": np.ones((2, 2), np.float32)}, "ids": np.arange(3, dtype=np.int32)}


def test_round_trip_in_float32_is_exact(tmp_path):
    save_safetensors(tmp_path / "w", PARAMS, dtype="float32")
    got = dict(flat(load_safetensors(tmp_path / "w")))
    want = dict(flat(PARAMS))
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].dtype == want[name].dtype
        np.testing.assert_array_equal(got[name], want[name])


def test_default_is_half_precision_on_disk_and_single_in_memory(tmp_path):
    save_safetensors(tmp_path / "w", PARAMS)
    stored = dict(flat(load_safetensors(tmp_path / "w", dtype=None)))
    assert stored["unet/input/kernel"].dtype == np.float16 and stored["ids"].dtype == np.int32
    read = dict(flat(load_safetensors(tmp_path / "w")))
    assert read["unet/input/kernel"].dtype == np.float32 and read["ids"].dtype == np.int32
    # Half precision keeps 11 bits.
    np.testing.assert_allclose(read["unet/input/kernel"], PARAMS["unet"]["input"]["kernel"],
                               rtol=2**-11)


@given(st.lists(st.floats(-60000, 60000, width=32), min_size=1, max_size=9))
@settings(max_examples=20)
def test_any_values_that_fit(values):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        save_safetensors(f"{folder}/w", {"a": np.array(values, np.float32)})
        got = load_safetensors(f"{folder}/w")["a"]
    np.testing.assert_allclose(got, values, rtol=2**-11, atol=2**-25)


def test_names_and_facts_stand_in_the_file(tmp_path):
    save_safetensors(tmp_path / "w", PARAMS, facts={"step": 7})
    with safe_open(tmp_path / "w", "numpy") as f:
        assert set(f.keys()) == {"unet/input/kernel", "unet/input/bias", "timbre/table", "ids"}
        assert f.metadata() == {"facts": '{"step": 7}'}


@pytest.mark.parametrize("bad", [70000.0, np.nan, np.inf])
def test_values_that_half_precision_cannot_hold_are_an_error_and_leave_the_old_file(tmp_path, bad):
    save_safetensors(tmp_path / "w", PARAMS)
    with pytest.raises(UserError, match="b: .*float16"):
        save_safetensors(tmp_path / "w", {"b": np.array([bad], np.float32)})
    assert set(load_safetensors(tmp_path / "w")) == {"unet", "timbre", "ids"}
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_broken_files_are_one_line_errors(tmp_path):
    save_safetensors(tmp_path / "w", PARAMS)
    whole = (tmp_path / "w").read_bytes()
    for name, content in {"short": whole[:-5], "header": whole[:20], "empty": b"",
                          "pickle": b"\x80\x04K\x01.", "text": b"weights " * 40}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: not a safetensors file") as error:
            load_safetensors(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="nowhere: no such file"):
        load_safetensors(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no such file"):
        load_safetensors(tmp_path)


def test_several_files_are_one(tmp_path):
    """Each is as large as it may be, a parameter at least; a single file replaces them all."""
    path = tmp_path / "weights.safetensors"
    save_safetensors(path, PARAMS, dtype="float32", most_bytes=30)  # of 12 to 24 bytes
    files = weight_files(path)
    assert [f.name for f in files] == ["weights.safetensors", "weights.2.safetensors",
                                       "weights.3.safetensors"]
    names = []
    for file in files:
        with safe_open(file, "numpy") as part:
            arrays = {name: part.get_tensor(name) for name in part.keys()}
        assert len(arrays) == 1 or sum(a.nbytes for a in arrays.values()) <= 30
        names += arrays
    assert sorted(names) == sorted(dict(flat(PARAMS)))
    for name, value in flat(load_safetensors(path)):
        np.testing.assert_array_equal(value, dict(flat(PARAMS))[name])
    files[1].unlink()
    with pytest.raises(UserError, match="weights.2.safetensors: is missing"):
        load_safetensors(path)
    save_safetensors(path, PARAMS)
    assert weight_files(path) == [path]
    assert dict(flat(load_safetensors(path))).keys() == dict(flat(PARAMS)).keys()


RNG = np.random.default_rng(0)
LARGE = {"unet": {"kernel": RNG.normal(size=(80, 64)).astype(np.float32),
                  "bias": np.linspace(-1, 1, 5000, dtype=np.float32)},
         "performances": {"embedding": RNG.normal(size=(300, 18)).astype(np.float32)},
         "codes": np.arange(-64, 64, dtype=np.int8), "small": np.full((2, 2), 0.1, np.float32)}


def test_large_matrices_take_eight_bits_and_the_rest_half_precision(tmp_path):
    save_safetensors(tmp_path / "w", LARGE, dtype="int8", facts={"step": 7})
    with safe_open(tmp_path / "w", "numpy") as f:
        stored = {name: f.get_tensor(name) for name in f.keys()}
        assert f.metadata() == {"facts": '{"step": 7}', "storage": "int8/1", "scales": "1"}
    assert {name: str(array.dtype) for name, array in stored.items()} == {
        "unet/kernel": "int8", "unet/kernel//scale": "float32", "unet/bias": "float16",
        "performances/embedding": "float16", "codes": "int8", "small": "float16"}
    assert read_facts(tmp_path / "w") == {"step": 7}
    read = dict(flat(load_safetensors(tmp_path / "w")))
    want = dict(flat(LARGE))
    assert read.keys() == want.keys()
    for name, array in want.items():
        assert read[name].shape == array.shape and read[name].dtype == array.dtype
    # Half of a 127th of the largest in its row, which is at most 5 of such deviates.
    np.testing.assert_allclose(read["unet/kernel"], want["unet/kernel"], atol=5 / 254)
    np.testing.assert_array_equal(read["codes"], want["codes"])
    np.testing.assert_array_equal(read["performances/embedding"],
                                  want["performances/embedding"].astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(("dtype", "kernel", "bias"), [
    ("float32", "float32", "float32"), ("float16", "float16", "float16"), (None, "float32", "float16")])
def test_eight_bits_become_the_type_asked_for(tmp_path, dtype, kernel, bias):
    save_safetensors(tmp_path / "w", LARGE, dtype="int8")
    read = dict(flat(load_safetensors(tmp_path / "w", dtype)))
    assert (read["unet/kernel"].dtype, read["unet/bias"].dtype) == (kernel, bias)
    assert read["codes"].dtype == np.int8
    read["unet/kernel"] += 1  # not an image of the file


def test_eight_bits_and_their_scale_stay_in_one_of_several_files(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_safetensors(path, LARGE, dtype="int8", most_bytes=5500)
    files = weight_files(path)
    assert len(files) > 2
    for file in files:
        with safe_open(file, "numpy") as part:
            assert part.metadata()["storage"] == "int8/1"
            names = set(part.keys())
        assert ("unet/kernel" in names) == ("unet/kernel//scale" in names)
    save_safetensors(tmp_path / "one", LARGE, dtype="int8")
    one = dict(flat(load_safetensors(tmp_path / "one")))
    for name, array in flat(load_safetensors(path)):
        np.testing.assert_array_equal(array, one[name])


def test_files_in_half_precision_are_read_as_ever(tmp_path):
    """Also those that name the type of a framework, and those with 8 bits that mean themselves."""
    arrays = {"a/kernel": RNG.normal(size=(80, 64)).astype(np.float16), "a/q": np.ones((80, 64), np.int8)}
    save_file(arrays, tmp_path / "w", metadata={"format": "pt"})
    with safe_open(tmp_path / "w", "numpy") as f:
        plain = {name: f.get_tensor(name) for name in f.keys()}
    read = dict(flat(load_safetensors(tmp_path / "w", dtype=None)))
    assert read.keys() == plain.keys() == arrays.keys() and read_facts(tmp_path / "w") == {}
    for name, array in read.items():
        assert array.dtype == plain[name].dtype and array.tobytes() == plain[name].tobytes()


INT8 = {"storage": "int8/1", "scales": "1"}  # metadata


@pytest.mark.parametrize(("arrays", "metadata", "reason"), [
    ({}, {"storage": "int8/2"}, "int8/2.*update music-diffusion"),
    ({}, {"storage": ""}, "cannot read"),
    ({}, {"storage": "int8/1\nx"}, "cannot read"),
    ({}, {"parts": "many"}, "damaged .*'many' files"), ({}, {"parts": "-1"}, "damaged"),
    ({}, {"parts": "999999999999"}, "damaged"), ({}, {"parts": "²"}, "damaged"),
    ({"k//scale": np.ones((2, 1), np.float32)}, INT8, "k is missing"),
    ({"k": np.ones((2, 2), np.int8), "k//scale": np.ones((3, 1), np.float32)}, INT8,
     r"damaged \(k: int8"),
    ({"k": np.ones((2, 2), np.float16), "k//scale": np.ones((2, 1), np.float32)}, INT8,
     r"damaged \(k: float16"),
    ({"k": np.ones((2, 2), np.int8)}, INT8, "0 of 1 scales are there"),
    *(({"k": np.ones((2, 2), np.int8), "k//scale": np.array([[1.0], [bad]], np.float32)},
       INT8, r"k: a scale is") for bad in (np.nan, np.inf, -1.0, 1e38)),
    ({"k": np.full((2, 2), -128, np.int8), "k//scale": np.ones((2, 1), np.float32)}, INT8,
     "k: a value below -127"),
    ({"k": np.full(3, np.nan, np.float16)}, {}, "k has values that are not finite"),
    ({"a/b": np.ones(3, np.float16)}, {}, "a is an array and has arrays below it")])
def test_metadata_and_scales_that_do_not_fit_are_one_line(tmp_path, arrays, metadata, reason):
    save_file({"a": np.ones(3, np.float32)} | arrays, tmp_path / "weights.safetensors", metadata=metadata)
    with pytest.raises(UserError, match=f"weights.safetensors: .*{reason}") as error:
        load_safetensors(tmp_path / "weights.safetensors")
    assert "\n" not in str(error.value)


def test_facts_that_are_no_json_are_one_line(tmp_path):
    save_file({"a": np.ones(3)}, tmp_path / "w", metadata={"facts": "{"})
    with pytest.raises(UserError, match="w: damaged"):
        read_facts(tmp_path / "w")


def test_values_that_eight_bits_cannot_hold_leave_the_old_file(tmp_path):
    save_safetensors(tmp_path / "w", PARAMS)
    for name, bad in (("kernel", np.full((64, 64), np.nan)), ("bias", np.array([np.inf]))):
        with pytest.raises(UserError, match=f"{name}: .*cannot hold"):
            save_safetensors(tmp_path / "w", {"a": np.zeros(3), name: bad}, dtype="int8")
    with pytest.raises(UserError, match="dtype int4: unknown; choose float16, int8, float32"):
        save_safetensors(tmp_path / "w", PARAMS, dtype="int4")
    assert set(load_safetensors(tmp_path / "w")) == {"unet", "timbre", "ids"}
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_reading_holds_one_array_beyond_the_result(tmp_path, dtype):
    arrays = {f"k{i}": np.ones((512, 512), np.float32) for i in range(8)}
    save_safetensors(tmp_path / "w", arrays, dtype=dtype)
    load_safetensors(tmp_path / "w")  # imports
    one = arrays["k0"].nbytes
    tracemalloc.start()
    try:
        load_safetensors(tmp_path / "w")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (8 + 1.1) * one
