"""safetensors files, through the package of that name."""


def _package(path):
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            f"headloom: expected the package safetensors for {path}; found none. Run `pip install "
            "safetensors`."
        ) from error
    return safetensors.torch


def read(path):
    return _package(path).load_file(str(path))


def write(path, tensors, metadata=None):
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    _package(path).save_file(tensors, str(path), metadata=metadata)
