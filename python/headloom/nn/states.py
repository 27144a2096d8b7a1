"""What mixers remember between decoding steps."""

import torch


def reorder_rows(tensor, index):
    return None if tensor is None else tensor.index_select(0, index)


def all_bytes(*tensors):
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))


class GrowingState:
    """Tensors of the tokens so far, by name; the room for them doubles, so that a step writes in place.

    ``axes`` says along which axis each grows. Attributes of these names are views of what is there.
    """

    def __init__(self, **axes):
        self._axes = axes
        self._rooms = dict.fromkeys(axes)
        self.length = 0

    def append(self, **tensors):
        """As many new tokens in each; None for what this mixer does not keep."""
        new = next(t.size(self._axes[name]) for name, t in tensors.items() if t is not None)
        for name, tensor in tensors.items():
            if tensor is not None:
                self._write(name, tensor, self.length + new)
        self.length += new

    def _write(self, name, tensor, needed):
        axis, room = self._axes[name], self._rooms[name]
        if room is None or needed > room.size(axis):
            sizes = list(tensor.shape)
            sizes[axis] = max(16, 2 * needed)
            grown = tensor.new_empty(sizes)
            if self.length:
                grown.narrow(axis, 0, self.length).copy_(room.narrow(axis, 0, self.length))
            self._rooms[name] = room = grown
        room.narrow(axis, self.length, tensor.size(axis)).copy_(tensor)

    def __getattr__(self, name):
        if name.startswith("_") or name not in self._axes:
            raise AttributeError(name)
        room = self._rooms[name]
        return None if room is None else room.narrow(self._axes[name], 0, self.length)

    def reorder(self, index):
        self._rooms = {name: reorder_rows(room, index) for name, room in self._rooms.items()}

    def bytes(self):
        return all_bytes(*self._rooms.values())


class MemoryState:
    """Tensors made of a memory once, by name, and its padding mask."""

    def __init__(self, length, padding_mask=None, **tensors):
        self.length = length
        self._tensors = {"padding_mask": padding_mask, **tensors}

    def __getattr__(self, name):
        if name.startswith("_") or name not in self._tensors:
            raise AttributeError(name)
        return self._tensors[name]

    def reorder(self, index):
        self._tensors = {name: reorder_rows(x, index) for name, x in self._tensors.items()}

    def bytes(self):
        return all_bytes(*self._tensors.values())
