import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from music_diffusion.errors import UserError
from music_diffusion.models.weights import load_safetensors, save_safetensors, weight_files


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
