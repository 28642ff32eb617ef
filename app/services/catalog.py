"""From a model's name to a checked folder, without reading its weights and without the network."""

import ast
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import msgspec

from app.services.errors import LoadFailed

CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "context_length", "max_sequence_length")
LARGEST_CONTEXT = 262_144
UNKNOWN_CONTEXT = 8_192
LARGEST_HEADER = 100_000_000  # bytes; the safetensors format's own limit

TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
WEIGHTS = "model*.safetensors"
FOREIGN = {
    "*.gguf": "GGUF weights, which are for llama.cpp",
    "pytorch_model*.bin": "PyTorch weights",
    "*.pth": "PyTorch weights",
    "*.onnx": "ONNX weights",
    "*.npz": "weights of an old MLX format",
    "*.safetensors": f"safetensors under a name that mlx-lm does not read (it reads {WEIGHTS})",
}
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
DTYPE_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}

REPO_ID = re.compile(r"[A-Za-z0-9_.-]{1,96}(/[A-Za-z0-9_.-]{1,96})?")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that holds all a model needs, as far as can be told without reading its weights."""

    id: str
    path: Path
    model_type: str
    context_length: int  # tokens
    weight_bytes: int
    parameters: int  # packed weights count as what they unpack to
    precision: str  # "float32", "bfloat16", "4-bit", "mxfp4"
    created: int  # seconds since 1970
    has_chat_template: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A model in a cache: `folder` when it can be loaded, else `problem` says why not."""

    id: str
    path: Path
    disk_bytes: int
    folder: ModelFolder | None = None
    problem: str | None = None


class Tensor(msgspec.Struct, frozen=True):
    """What a safetensors header says of one tensor; `data_offsets` are bytes from the end of the header."""

    dtype: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    data_offsets: tuple[Annotated[int, msgspec.Meta(ge=0)], int]

    @property
    def bytes(self) -> int:
        """Size of its data."""
        return self.data_offsets[1] - self.data_offsets[0]

    @property
    def is_sound(self) -> bool:
        """Whether its shape and its place in the file agree."""
        whole = DTYPE_BYTES.get(self.dtype)
        return self.bytes >= 0 if whole is None else self.bytes == whole * math.prod(self.shape)


def resolve(model: str, cache_path: str | None = None, environ: Mapping[str, str] = os.environ) -> ModelFolder:
    """Find the folder of a model and check it.

    `model` is a folder, a Hugging Face cache entry, or a repo id in a cache of this machine. A `cache_path` says where
    it lies instead: one of these too, or a hub folder that has `model`. Raises LoadFailed.
    """
    place = cache_path or model
    with _explained(place):
        if not place:
            raise LoadFailed("No model is named: give a folder or a repo id.")
        path = Path(place).expanduser()
        if REPO_ID.fullmatch(place) and not path.exists():
            return _first_sound([hub / entry_name(place) for hub in caches(environ)], _unknown(place))
        if not cache_path:
            return inspect(path)
        in_hub = path / entry_name(model) if REPO_ID.fullmatch(model) else path
        return inspect(in_hub if in_hub.is_dir() else path, model)


def inspect(path: Path, model_id: str | None = None) -> ModelFolder:
    """Check a model folder or a Hugging Face cache entry.

    Of an entry it takes the snapshot of `refs/main`, else the newest that is whole. The id is the entry's `org/name`,
    else `model_id`, else the folder's name. Raises LoadFailed; its message names the file and what is wrong with it.
    """
    path = path.absolute()
    with _explained(path):
        if (path / "snapshots").is_dir():
            return _first_sound(_snapshots(path), f"{path} has no snapshot: its download has not finished.")
        return _checked(path, model_id)


def available(environ: Mapping[str, str] = os.environ) -> Iterator[Found]:
    """Every model in the caches of this machine, loadable or not, in the order in which they are searched."""
    for hub in caches(environ):
        for entry in sorted(hub.glob("models--*")):
            yield _found(entry)


def caches(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Hub folders in the order in which a repo id is searched: Tiles' own, the machine's, Hugging Face's."""
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    hubs = [
        home / ".local/share/tiles/data/models/huggingface/hub",
        Path("/usr/local/share/tiles/models/huggingface/hub"),
        hugging_face_cache(environ),
        home / ".cache/huggingface/hub",
    ]
    return list(dict.fromkeys(hubs))


def hugging_face_cache(environ: Mapping[str, str] = os.environ) -> Path:
    """The hub folder that huggingface_hub itself reads and writes."""
    for variable, below in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if environ.get(variable):
            return Path(environ[variable]).expanduser() / below
    cache_home = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache"
    return Path(cache_home).expanduser() / "huggingface/hub"


def entry_name(repo_id: str) -> str:
    """Name of a repo's folder in a hub folder: models--org--name."""
    return "models--" + repo_id.replace("/", "--")


def _unknown(repo_id: str) -> str:
    return (
        f"{repo_id} is no folder, and no cache of this machine has a model of that name. "
        f"`tiles-server models` lists what is here; `tiles-server pull {repo_id}` downloads it."
    )


def _found(entry: Path) -> Found:
    repo_id, size = _repo_id(entry), _disk_bytes(entry)
    try:
        return Found(repo_id, entry, size, folder=inspect(entry))
    except LoadFailed as error:
        return Found(repo_id, entry, size, problem=error.message)


def _repo_id(entry: Path) -> str:
    return entry.name.removeprefix("models--").replace("--", "/")


def _disk_bytes(entry: Path) -> int:
    total = 0
    for path in (Path(root, name) for root, _, names in os.walk(entry) for name in names):
        with suppress(OSError):
            total += path.lstat().st_size
    return total


def _snapshots(entry: Path) -> list[Path]:
    """Snapshots of a cache entry: that of refs/main first, then the newest first."""
    main = entry / "refs/main"
    wanted = main.read_text(errors="replace").strip() if main.is_file() else None
    newest = sorted((entry / "snapshots").glob("*/"), key=lambda path: path.stat().st_mtime, reverse=True)
    return sorted(newest, key=lambda path: path.name != wanted)


def _first_sound(paths: Iterable[Path], otherwise: str) -> ModelFolder:
    """The first that passes its inspection; when none does, what is wrong with the first that is there."""
    problem = None
    for path in paths:
        if path.is_dir():
            try:
                return inspect(path)
            except LoadFailed as error:
                problem = problem or error
    raise problem or LoadFailed(otherwise)


def _checked(folder: Path, model_id: str | None) -> ModelFolder:
    _check_folder(folder)
    config = _config(folder)
    _check_tokenizer(folder)
    tensors = _tensors(folder)
    return ModelFolder(
        id=_hub_id(folder) or model_id or folder.name,
        path=folder,
        model_type=config["model_type"],
        context_length=_context_length(config),
        weight_bytes=sum(tensor.bytes for tensor in tensors.values()),
        parameters=_parameters(tensors, config),
        precision=_precision(tensors, config),
        created=int((folder / "config.json").stat().st_mtime),
        has_chat_template=_has_chat_template(folder),
    )


def _hub_id(folder: Path) -> str | None:
    entry = folder.parent.parent
    return _repo_id(entry) if folder.parent.name == "snapshots" and entry.name.startswith("models--") else None


@contextmanager
def _explained(path: object) -> Iterator[None]:
    """Turn what the system says of a path into a LoadFailed."""
    try:
        yield
    except OSError as error:
        raise _bad(
            error.filename or path, f"cannot be read: {(error.strerror or 'unknown reason').lower()}."
        ) from error
    except (ValueError, RuntimeError) as error:
        raise _bad(path, f"is no usable path: {error}.") from error


def _bad(path: object, what: str) -> LoadFailed:
    # A path may hold bytes that are no UTF-8; a message must not.
    return LoadFailed(f"{path} {what}".encode("utf-8", "replace").decode())


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        kind = next((what for name, what in FOREIGN.items() if folder.match(name)), "a file")
        raise _bad(folder, f"is {kind}; a folder with an MLX model is needed.")
    if not folder.exists():
        raise _bad(folder, "does not exist.")
    if not any(folder.iterdir()):
        raise _bad(folder, "is empty; a folder with an MLX model is needed.")


def _foreign(folder: Path) -> str | None:
    """What a folder without the expected files holds instead."""
    strange = [path for path in sorted(folder.iterdir()) if not path.match(WEIGHTS)]
    for pattern, what in FOREIGN.items():
        if path := next((path for path in strange if path.match(pattern)), None):
            return f"{path.name} is there, but that is {what}"
    return None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"is no JSON: {error}.") from error
    if not isinstance(content, dict):
        raise _bad(path, "is no JSON object.")
    return content


def _read(path: Path) -> bytes:
    if path.is_symlink() and not path.exists():
        raise _bad(path, "points to a file that is not there: its download has not finished.")
    if not path.is_file():
        raise _bad(path, "is missing.")
    content = path.read_bytes()
    if not content:
        raise _bad(path, "is empty.")
    return content


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists() and (foreign := _foreign(folder)):
        raise _bad(path, f"is missing. {foreign}; a folder with an MLX model is needed.")
    config = _json(path)
    if config.get("model_file") is not None:
        raise _bad(path, "asks to run code of its own (model_file), and this server runs no code of a model folder.")
    if not isinstance(config.get("model_type"), str):
        raise _bad(path, "names no model_type.")
    if not _is_known(config):
        raise _bad(path, f"says model_type {config['model_type']!r}, which the installed mlx-lm does not know.")
    return config


def _is_known(config: Mapping[str, Any]) -> bool:
    """Whether mlx-lm has a module for this config, as its own loader would choose it."""
    model_type, names = config["model_type"], config.get("architectures")
    names = names if isinstance(names, list) else [names]
    by_type, by_architecture = _remappings()
    if any(isinstance(name, str) and (model_type, name) in by_architecture for name in names):
        return True
    return by_type.get(model_type, model_type) in _architectures()


@cache
def _mlx_lm() -> Path:
    # mlx-lm takes seconds to import, so its files are read instead.
    spec = find_spec("mlx_lm")
    if spec is None or not spec.submodule_search_locations:
        raise LoadFailed("mlx-lm is not installed.")
    return Path(spec.submodule_search_locations[0])


@cache
def _architectures() -> frozenset[str]:
    # Its helpers lie in the same folder and know no ModelArgs.
    modules = (_mlx_lm() / "models").glob("*.py")
    return frozenset(module.stem for module in modules if re.search(rb"\bModelArgs\b", module.read_bytes()))


@cache
def _remappings() -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    tree = ast.parse((_mlx_lm() / "utils.py").read_bytes())
    tables = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Dict)
        if node.targets[0].id in {"MODEL_REMAPPING", "MODEL_ARCHITECTURE_REMAPPING"}
    }
    return tables.get("MODEL_REMAPPING", {}), tables.get("MODEL_ARCHITECTURE_REMAPPING", {})


def _check_tokenizer(folder: Path) -> None:
    if (settings := folder / "tokenizer_config.json").exists():
        _json(settings)
    present = next((names for names in TOKENIZERS if any(os.path.lexists(folder / name) for name in names)), None)
    if present is None:
        raise _bad(folder, "has no tokenizer: tokenizer.json or tokenizer.model is missing.")
    for name in present:
        content = _read(folder / name)
        if name.endswith(".json"):
            _check_json_syntax(folder / name, content)


def _check_json_syntax(path: Path, content: bytes) -> None:
    try:
        # Raw checks the syntax and builds nothing: these files are large.
        msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"is no JSON object: {error}.") from error


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the folder, by name, with each file checked against its header."""
    files = _weight_files(folder)
    if not files:
        reason = _foreign(folder) or "model.safetensors is missing"
        raise _bad(folder, f"has no weights: {reason}; an MLX model keeps them in {WEIGHTS}.")
    return {name: tensor for file in files for name, tensor in _header(file).items()}


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    listed = _listed(index) if index.exists() else set()
    for name in sorted(listed):
        if not (folder / name).exists():
            raise _bad(folder / name, "is missing; model.safetensors.index.json lists it.")
    return sorted(folder.glob(WEIGHTS))


def _listed(index: Path) -> set[str]:
    shards = _json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(_is_name(name) for name in shards.values()):
        raise _bad(index, "has no weight_map from tensors to files.")
    return set(shards.values())


def _is_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and "\0" not in name


def _header(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise _bad(path, "points to a file that is not there: its download has not finished.")
    size = path.stat().st_size
    if size == 0:
        raise _bad(path, "is empty.")
    with path.open("rb") as file:
        start = file.read(8)
        length = _header_length(path, start, size)
        tensors = _parsed(path, file.read(length))
    return _fitting(path, tensors, size - 8 - length)


def _header_length(path: Path, start: bytes, size: int) -> int:
    """Length of the header in bytes, once it is sure that the file holds all of it."""
    length = int.from_bytes(start, "little")
    if start == b"version ":
        raise _bad(
            path, "is a Git LFS pointer, not the weights; fetch them with `git lfs pull` or `tiles-server pull`."
        )
    if size >= 8 and length > LARGEST_HEADER:
        raise _bad(path, "is no safetensors file.")
    missing = 8 + length - size if size >= 8 else 8 - size
    if missing > 0:
        raise _bad(path, f"is cut short: at least {missing} bytes of its header are missing. Download it again.")
    return length


def _parsed(path: Path, header: bytes) -> dict[str, Tensor]:
    try:
        entries = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        entries.pop("__metadata__", None)
        return {name: msgspec.json.decode(entry, type=Tensor) for name, entry in entries.items()}
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"has a broken header: {error}.") from error


def _fitting(path: Path, tensors: dict[str, Tensor], data_bytes: int) -> dict[str, Tensor]:
    """Give the tensors back once their data is all in the file."""
    for name, tensor in tensors.items():
        if not tensor.is_sound:
            raise _bad(path, f"has a broken header: shape and place of the tensor {name!r} do not agree.")
    missing = max((tensor.data_offsets[1] for tensor in tensors.values()), default=0) - data_bytes
    if missing > 0:
        raise _bad(path, f"is cut short: {missing} bytes are missing. Download it again.")
    return tensors


def _context_length(config: Mapping[str, Any]) -> int:
    inner = config.get("text_config")
    for source in (config, inner if isinstance(inner, dict) else {}):
        for key in CONTEXT_KEYS:
            if type(length := source.get(key)) is int and length > 0:
                return min(length, LARGEST_CONTEXT)
    return UNKNOWN_CONTEXT


def _quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    given = config.get("quantization") or config.get("quantization_config")
    return given if isinstance(given, dict) else {}


def _precision(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    quantization = _quantization(config)
    mode = quantization.get("mode") or quantization.get("quant_method")
    if isinstance(bits := quantization.get("bits"), int) and mode in (None, "affine", "awq", "gptq"):
        return f"{bits}-bit"
    if isinstance(mode, str):
        return mode
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.bytes
    dtype = max(sizes, key=lambda name: sizes[name], default="unknown")
    return DTYPES.get(dtype, dtype.lower())


def _parameters(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> int:
    """Count weights; a packed matrix has as many as its scales times the group that each of them serves."""
    quantization = _quantization(config)
    return sum(
        math.prod(tensors[f"{layer}.scales"].shape) * _group_size(quantization, layer)
        if name.endswith(".weight") and (layer := name.removesuffix(".weight")) + ".scales" in tensors
        else math.prod(tensor.shape)
        for name, tensor in tensors.items()
        if not name.endswith((".scales", ".biases"))
    )


def _group_size(quantization: Mapping[str, Any], layer: str) -> int:
    own = quantization.get(layer)
    size = (own if isinstance(own, dict) else quantization).get("group_size")
    return size if isinstance(size, int) else 64


def _has_chat_template(folder: Path) -> bool:
    if any((folder / name).exists() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    settings = folder / "tokenizer_config.json"
    return settings.exists() and bool(_json(settings).get("chat_template"))
