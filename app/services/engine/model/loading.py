"""Loads a model's weights and tokenizer, in steps, so that other models go on answering meanwhile."""

import gc
import json
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar, cast

import mlx.core as mx
import structlog
from mlx.utils import tree_flatten
from mlx_lm import tokenizer_utils
from mlx_lm.utils import (
    _tokenizer_defaults,
    dequantize_model,
    load_config,
    load_model,
    maybe_set_recommended_wired_limit,
)

from app.services import free_memory, heap
from app.services.engine.model import gguf_weights
from app.services.engine.model.model_files import ModelFiles, open_folder, open_gguf
from app.services.engine.model.sentence_piece import follow_model_file
from app.services.engine.model.text_models import model_classes
from app.services.errors import GroupNotFormed, LoadFailed
from app.services.errors.base import first_line
from app.services.facts import DeviceFacts
from app.services.gguf.cache import GGUFCache
from app.services.model_folder import ModelFolder

log = structlog.get_logger()

_SLICE_BYTES = 256 * 2**20  # of weights, read in one step
_RESERVE = 2 * 2**30  # bytes that stay free for other programs

Result = TypeVar("Result")
Step = Generator[float, None, tuple[Any, Any]]
Split = Callable[[Path, Any, bool], Generator[float, None, int]]


def open_files(model: ModelFolder, cache: GGUFCache) -> Generator[float, None, ModelFiles]:
    """Yield progress from 0 to 1 and return the files of a model, which are to be closed. Raises LoadFailed.

    A GGUF file becomes a folder of the cache first, unless its weights are to be widened from the file itself.
    """
    if not model.is_gguf:
        return open_folder(model)
    is_cpu = _is_cpu()
    packed = not (is_cpu and _fits_widened(4 * model.parameters))
    return (yield from open_gguf(model, cache, packed=packed, half=not is_cpu))


def load(files: ModelFiles, split: Split | None = None) -> Step:
    """Yield progress from 0 to 1 and return mlx-lm's model and tokenizer wrapper.

    `split` leaves of a model, before its weights are read, what this machine computes; it takes the folder, the model,
    and whether that was widened, and gives over how many machines each array is shared out.

    Raises LoadFailed with a message for users. On the engine thread only, like everything that touches arrays.
    """
    start, folder, name = time.perf_counter(), files.folder, files.model.path.name
    try:
        config = load_config(folder)
        tokenizer = read_tokenizer(folder, config.get("eos_token_id"))
        heap.trim()  # reading a large vocabulary takes several times what stays of it
        yield 0.1
        if files.gguf is not None:
            model = yield from scaled(gguf_weights.build(files.gguf), 0.1, 0.9)
            files.check()
        else:
            model, _ = load_model(folder, lazy=True, get_model_classes=model_classes)
            widened = _is_cpu() and widen(model)
            machines = 1 if split is None else (yield from split(folder, model, widened))
            yield from read_weights(model, machines)
    except LoadFailed as error:
        is_whole = name in error.message or isinstance(error, GroupNotFormed)
        raise (error if is_whole else LoadFailed(f"{name}: {error.message}")) from error
    except MemoryError as error:
        raise LoadFailed(f"{name}: there is not enough memory for this model") from error
    except Exception as error:
        raise LoadFailed(f"{name}: {_reason(error)}") from error
    if files.loss is not None:
        log.info("weights are not exactly as in the file", model=name, loss=files.loss)
    log.info("model read", folder=name, seconds=round(time.perf_counter() - start, 2))
    return model, tokenizer


def load_at_once(model: ModelFolder, cache: GGUFCache) -> tuple[Any, Any]:
    """Return what `load` does where nobody goes on meanwhile."""
    with at_once(open_files(model, cache)) as files:
        return at_once(load(files))


def scaled(steps: Generator[float, None, Result], start: float, end: float) -> Generator[float, None, Result]:
    """Give the progress of a part of a load as that of the whole."""
    while True:
        try:
            progress = next(steps)
        except StopIteration as stop:
            result: Result = stop.value
            return result
        yield start + progress * (end - start)


def at_once(steps: Generator[float, None, Result]) -> Result:
    """Take all steps of a load, where nobody goes on meanwhile."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


def read_tokenizer(folder: Path, end_tokens: Any) -> Any:
    """Give mlx-lm's tokenizer wrapper of a folder, with its chat template wherever that is."""
    settings: dict[str, Any] = {"trust_remote_code": False}
    tokenizer = _load_tokenizer(folder, settings, end_tokens)
    if not tokenizer.has_chat_template and (template := _template_of_processor(folder)):
        tokenizer = _load_tokenizer(folder, settings | {"chat_template": template}, end_tokens)
    follow_model_file(folder, tokenizer)
    return tokenizer


def _load_tokenizer(folder: Path, settings: dict[str, Any], end_tokens: Any) -> Any:
    """Give mlx-lm's tokenizer, as its `load_tokenizer` does, but without a fast detokenizer: we have our own."""
    defaults = _tokenizer_defaults(folder)
    return tokenizer_utils.load(_WithoutTokenizerFile(folder), settings, eos_token_ids=end_tokens, defaults=defaults)


class _WithoutTokenizerFile(type(Path())):  # type: ignore[misc]
    """A folder that hides its tokenizer.json from mlx-lm, but not from transformers, which joins names of its own.

    mlx-lm reads it to choose a detokenizer, and makes a map for that: a second and 16 MB for 262,144 tokens.
    """

    def __truediv__(self, name: str) -> Path:
        return Path(self, f"no {name}" if name == "tokenizer.json" else name)


def _template_of_processor(folder: Path) -> str | None:
    """Give the template of chat_template.json, where older vision models have it: transformers reads it for images."""
    try:
        template = json.loads((folder / "chat_template.json").read_bytes())["chat_template"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return template if isinstance(template, str) else None


def back_end() -> str:
    """Where MLX computes: metal, cuda or cpu."""
    if _is_cpu():
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def dtype() -> mx.Dtype:
    """In which numbers models compute here, unless their files have others."""
    return mx.float32 if _is_cpu() else mx.bfloat16


def device() -> DeviceFacts | None:
    """The GPU, with the memory that it may use; None on the CPU."""
    if _is_cpu():
        return None
    facts = mx.device_info()
    size = facts.get("max_recommended_working_set_size") or facts.get("total_memory") or 0
    return DeviceFacts(str(facts.get("device_name") or back_end()), int(size))


def prepare() -> None:
    """Wire as much memory as Metal recommends, as mlx-lm does; other back ends have no such limit."""
    maybe_set_recommended_wired_limit()


def release() -> None:
    """Return unreferenced memory to the system."""
    gc.collect()
    mx.clear_cache()
    heap.trim()


def memory() -> tuple[int, int, int]:
    """Give MLX's memory in bytes: in use, cached for reuse, and the peak of what was in use."""
    return mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory()


def weights(model: Any) -> dict[str, mx.array]:
    """Give the arrays of a model by name."""
    return dict(cast("list[tuple[str, mx.array]]", tree_flatten(model.parameters())))


def _is_cpu() -> bool:
    return bool(mx.default_device() == mx.Device(mx.cpu))


def _fits_widened(size: int) -> bool:
    return size <= free_memory.available() - _RESERVE


def widen(model: Any) -> bool:
    """Use float32 on the CPU, where it is several times faster than 16 bits or quantized, if memory allows.

    Returns whether anything was widened.
    """
    arrays = list(weights(model).values())
    narrow = [array for array in arrays if array.dtype in (mx.float16, mx.bfloat16, mx.uint32)]
    if not narrow:
        return False
    needed = sum(array.size * (32 if array.dtype == mx.uint32 else 4) for array in arrays)
    if not _fits_widened(needed):
        log.warning("too little memory for float32: this model will be slow on the CPU", needed_gib=needed >> 30)
        return False
    _to_float32(model)
    return True


def _to_float32(model: Any) -> None:
    dequantize_model(model)
    model.set_dtype(mx.float32)


def unread(folder: Path, widened: bool) -> Any:
    """Give a model whose weights are still to be read, in float32 if they are `widened`."""
    model, _ = load_model(folder, lazy=True, get_model_classes=model_classes)
    if widened:
        _to_float32(model)
    return model


def load_share(folder: Path, share: Callable[[Any], int], widened: bool) -> Any:
    """Load of a model what `share` leaves of it: a machine of a group does what the one has done that leads."""
    model = unread(folder, widened)
    machines = share(model)
    at_once(read_weights(model, machines))
    return model


def read_weights(model: Any, machines: int = 1) -> Generator[float, None, None]:
    """Read the weights of a model, some at a time. Yields the progress of the load, from 0.1 to 0.9.

    Where machines share each array out, all of it is read for the part that stays.
    """
    arrays = list(weights(model).values())
    total, bytes_read, pending = sum(array.nbytes for array in arrays) or 1, 0, []
    for array in arrays:
        pending.append(array)
        if (size := sum(item.nbytes for item in pending)) * machines >= _SLICE_BYTES:
            mx.eval(pending)
            bytes_read, pending = bytes_read + size, []
            yield 0.1 + 0.8 * bytes_read / total
    mx.eval(pending)
    yield 0.9


def _reason(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            "its tokenizer is Python code of the folder, and this server runs no code of a model folder. Get a "
            "conversion of this model whose tokenizer_config.json has no auto_map"
        )
    return first_line(error)
