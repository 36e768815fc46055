from inferd.control.loading.profiles import ProfileCache


def test_a_profile_is_found_again_for_the_same_file_device_and_threads(tmp_path):
    model = tmp_path / "m.onnx"
    model.write_bytes(b"weights")
    cache = ProfileCache(tmp_path / "cache")
    assert cache.find(model, "cpu", 2) == []
    cache.keep(model, "cpu", 2, [(1, 0.001), (2, 0.0015)])
    assert cache.find(model, "cpu", 2) == [(1, 0.001), (2, 0.0015)]
    assert cache.find(model, "cpu", 1) == []
    assert cache.find(model, "cuda:0", 2) == []
    model.write_bytes(b"WEIGHTS")
    assert cache.find(model, "cpu", 2) == []


def test_a_profile_that_cannot_be_kept_or_read_is_done_without(tmp_path):
    model = tmp_path / "m.onnx"
    model.write_bytes(b"weights")
    (tmp_path / "file").write_text("")
    ProfileCache(tmp_path / "file").keep(model, "cpu", 1, [(1, 0.1)])
    cache = ProfileCache(tmp_path / "cache")
    cache.keep(model, "cpu", 1, [(1, 0.1)])
    for text in ("not json", "[1, 2]", '{"a": 1}', '[["x", 1]]'):
        next(cache.folder.iterdir()).write_text(text)
        assert cache.find(model, "cpu", 1) == []
