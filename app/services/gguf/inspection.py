"""Checks a GGUF file by its header: whether it can be served, and its sizes. Nothing of it is loaded."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

from app.services.context_length import context_length
from app.services.errors import LoadFailed
from app.services.files import explained
from app.services.gguf import architectures, mmproj, names, tokenizer
from app.services.gguf.file import GGUFFile, read
from app.services.model_folder import ModelFolder


def inspect(path: Path, model_id: str | None = None) -> ModelFolder:
    """Check a GGUF file, given it or any of its shards. Raises LoadFailed for all that cannot be served."""
    with explained(path):
        file = read(path)
        architecture = architectures.for_file(file)
        _check_tokenizer(file)
        named = names.of_file(file.path)
        part, problem = mmproj.choose(file, architecture.config)
        return ModelFolder(
            id=model_id or named.name,
            path=file.path,
            model_type=architecture.config["model_type"],
            context=replace(context_length(architecture.config, {}), source="context_length of the file"),
            weight_bytes=sum(tensor.data.nbytes for tensor in file.tensors.values()),
            parameters=sum(math.prod(tensor.shape) for tensor in file.tensors.values()),
            precision=named.quant if named.quant != named.name else _precision(file),
            created=int(file.path.stat().st_mtime),
            has_chat_template="tokenizer.chat_template" in file.metadata,
            is_gguf=True,
            sees=part is not None,
            mmproj=part,
            vision_problem=problem,
        )


def with_vision_part(model: ModelFolder, path: Path) -> ModelFolder:
    """Have a model see with this file, if it fits; what is wrong with it stands in what is returned."""
    if not model.is_gguf:
        return replace(model, vision_problem=f"{path} is for models that are GGUF files themselves")
    try:
        file = read(model.path)
        mmproj.read(path, file, architectures.for_file(file).config)
    except LoadFailed as error:
        return replace(model, sees=False, mmproj=None, vision_problem=error.message)
    return replace(model, sees=True, mmproj=path, vision_problem=None)


def _check_tokenizer(file: GGUFFile) -> None:
    try:
        tokenizer.check(file.metadata)
    except LoadFailed as error:
        raise LoadFailed(f"{file.path}: {error.message}") from error


def _precision(file: GGUFFile) -> str:
    """Give the type that most bytes are in."""
    sizes: Counter[str] = Counter()
    for tensor in file.tensors.values():
        sizes[tensor.type.name] += tensor.data.nbytes
    return max(sizes, key=lambda name: sizes[name], default="unknown")
