"""GGUF files as models: where they are found, what is known of them before a load, and what is said of bad ones."""

import os
from pathlib import Path

import pytest

from app.services import catalog, hub, models_folder
from app.services.errors import LoadFailed
from tests import gguf_files

SHA = "a" * 40


@pytest.fixture(scope="module")
def file(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_files.write(tiny, tmp_path_factory.mktemp("gguf") / "tiny-Q4_K_M.gguf", {"token_embd": "Q8_0"})


@pytest.fixture
def cache(file: Path, tmp_path: Path) -> Path:
    """A home folder whose Hugging Face cache has two repos: one with two files, one with one and a vision part."""
    hub_folder = tmp_path / ".cache/huggingface/hub"
    for repo, names in {"two": ("a-Q8_0.gguf", "Q4_0/a-Q4_0.gguf"), "one": ("b.gguf", "mmproj-F16.gguf")}.items():
        snapshot = hub_folder / f"models--org--{repo}" / "snapshots" / SHA
        for name in names:
            blob = snapshot.parents[1] / "blobs" / name.replace("/", "-")
            blob.parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(file, blob)
            (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
        (snapshot / "config.json").write_text("{}")
    return tmp_path


def problem(path: Path | str, model: str | None = None) -> str:
    with pytest.raises(LoadFailed) as failure:
        catalog.resolve(model or str(path), str(path) if model else None)
    return failure.value.message


def test_a_file_is_described(file: Path) -> None:
    model = catalog.resolve(str(file))
    assert (model.id, model.path, model.is_gguf) == ("tiny-Q4_K_M", file, True)
    assert (model.model_type, model.precision, model.has_chat_template) == ("llama", "Q4_K_M", True)
    assert (model.context.tokens, model.context.source) == (8192, "context_length of the file")
    assert model.parameters * 4 > model.weight_bytes
    assert file.stat().st_size > model.weight_bytes
    assert model.created == int(file.stat().st_mtime)


def test_a_file_without_a_quantization_in_its_name_has_that_of_most_bytes(tiny: Path, tmp_path: Path) -> None:
    path = gguf_files.write(tiny, tmp_path / "plain.gguf", "F16", template=False)
    model = catalog.inspect(path)
    assert (model.id, model.precision, model.has_chat_template) == ("plain", "F16", False)


def test_a_file_may_have_another_ending(file: Path, tmp_path: Path) -> None:
    (tmp_path / "sha256-abc").symlink_to(file)
    assert catalog.resolve(str(tmp_path / "sha256-abc")).is_gguf


@pytest.mark.parametrize(
    ("name", "model_id", "path"),
    [
        ("org/two:Q8_0", "org/two:Q8_0", "a-Q8_0.gguf"),
        ("org/two:q4_0", "org/two:Q4_0", "Q4_0/a-Q4_0.gguf"),
        ("org/one", "org/one:b", "b.gguf"),
    ],
)
def test_a_repo_of_the_cache_has_files(cache: Path, name: str, model_id: str, path: str) -> None:
    model = catalog.resolve(name, environ={"HOME": str(cache)})
    assert (model.id, model.path.parts[-len(Path(path).parts) :]) == (model_id, Path(path).parts)
    with pytest.raises(LoadFailed, match=r"org/two has several models: name one as org/two:Q4_0. It has Q4_0, Q8_0"):
        catalog.resolve("org/two", environ={"HOME": str(cache)})
    with pytest.raises(LoadFailed, match=r"org/one has no Q8_0. It has b"):
        catalog.resolve("org/one:Q8_0", environ={"HOME": str(cache)})
    with pytest.raises(LoadFailed, match=r"tiles-server pull org/none:Q8_0"):
        catalog.resolve("org/none:Q8_0", environ={"HOME": str(cache)})


def test_all_files_of_the_caches_are_listed(cache: Path) -> None:
    entries = {entry.id: entry for entry in catalog.available({"HOME": str(cache)})}
    assert set(entries) == {"org/two:Q8_0", "org/two:Q4_0", "org/one:b"}
    assert all(entry.folder and entry.folder.id == name for name, entry in entries.items())
    assert all(entry.disk_bytes == entry.path.stat().st_size for entry in entries.values())


def test_a_file_whose_download_is_cut_off_is_listed_with_the_reason(cache: Path) -> None:
    blob = next((cache / ".cache/huggingface/hub/models--org--one/blobs").glob("b.gguf"))
    content = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(content[:-100])
    (entry,) = [entry for entry in catalog.available({"HOME": str(cache)}) if entry.id == "org/one:b"]
    assert "b.gguf" in (entry.problem or "")


def test_a_folder_with_one_file_is_that_file(file: Path, tmp_path: Path) -> None:
    os.link(file, tmp_path / "only.gguf")
    assert catalog.resolve(str(tmp_path)).id == "only"
    os.link(file, tmp_path / "other-Q8_0.gguf")
    assert problem(tmp_path) == f"{tmp_path} has several models: name one as {tmp_path}:only. It has only, Q8_0."
    assert catalog.resolve(f"{tmp_path}:Q8_0").id == "other-Q8_0"
    assert problem(tmp_path, "org/name:Q4_0") == f"{tmp_path} has no Q4_0. It has only, Q8_0."
    assert catalog.resolve("org/name:q8_0", str(tmp_path)).id == "org/name:q8_0"


def test_the_path_comes_first_and_the_name_stays(file: Path) -> None:
    for name in ("unsloth/tiny-GGUF:Q4_K_M", "mine", "my:model", "a name with spaces"):
        model = catalog.resolve(name, str(file))
        assert (model.id, model.path) == (name, file)


def test_what_is_no_model_is_said(file: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.gguf").write_bytes(file.read_bytes()[:-1000])
    assert "torn.gguf" in problem(tmp_path / "torn.gguf")
    (tmp_path / "no.gguf").write_bytes(b"no")
    assert "no.gguf" in problem(tmp_path / "no.gguf")
    assert "does not exist" in problem(tmp_path / "none.gguf")
    split = gguf_files.write(tiny, tmp_path / "split.gguf", shards=3)
    (tmp_path / "split-00002-of-00003.gguf").unlink()
    assert "missing: split-00002-of-00003.gguf" in problem(split)
    unknown = gguf_files.write(tiny, tmp_path / "pre.gguf", metadata={"tokenizer.ggml.pre": "martian"})
    assert str(unknown) in problem(unknown)
    assert "martian" in problem(unknown)


def test_a_folder_of_models_has_a_row_for_each(file: Path, tmp_path: Path) -> None:
    paths = (
        "a-Q8_0.gguf",
        "a-Q8_0.imatrix.gguf",
        "mmproj-F16.gguf",
        "split-00001-of-00002.gguf",
        "split-00002-of-00002.gguf",
        "alone/x.gguf",
        "alone/mmproj-x.gguf",
        "org/pair/a.gguf",
        "org/pair/b.gguf",
        "both/config.json",
        "both.gguf",
        ".hidden.gguf",
    )
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        os.link(file, tmp_path / path)
    assert {name: str(path.relative_to(tmp_path)) for name, path in models_folder.scan(tmp_path).items()} == {
        "a-Q8_0": "a-Q8_0.gguf",
        "split": "split-00001-of-00002.gguf",
        "alone": "alone/x.gguf",
        "org/pair/a": "org/pair/a.gguf",
        "org/pair/b": "org/pair/b.gguf",
        "both": "both",
        "both.gguf": "both.gguf",
    }


def test_a_cache_entry_in_a_folder_of_models_has_a_row_for_each_file(cache: Path) -> None:
    folder = cache / ".cache/huggingface/hub"
    assert set(models_folder.scan(folder)) == {"org/two:Q8_0", "org/two:Q4_0", "org/one:b"}
    assert hub.split("org/two:Q8_0") == ("org/two", "Q8_0")
    assert hub.split("https://x") == ("https", "//x")
