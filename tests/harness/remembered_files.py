"""A FileIO that reads what its own process wrote from memory, so that building a table asks little of a store."""

from __future__ import annotations

from io import BytesIO

from pyiceberg.io import InputFile, InputStream, OutputFile, OutputStream
from pyiceberg.io.pyarrow import PyArrowFileIO

_MOST_FILES = 1000
_written: dict[str, bytes] = {}


class RememberingFileIO(PyArrowFileIO):
    """For a catalog's property ``py-io-impl``."""

    def new_input(self, location: str) -> InputFile:
        content = _written.get(location)
        return super().new_input(location) if content is None else _Remembered(location, content)

    def new_output(self, location: str) -> OutputFile:
        return _Output(super().new_output(location))


class _Remembered(InputFile):
    def __init__(self, location: str, content: bytes) -> None:
        super().__init__(location)
        self._content = content

    def __len__(self) -> int:
        return len(self._content)

    def exists(self) -> bool:
        return True

    def open(self, seekable: bool = True) -> InputStream:
        return BytesIO(self._content)


class _Output(OutputFile):
    """Names are unique, so that nothing is looked for before it is written."""

    def __init__(self, output: OutputFile) -> None:
        super().__init__(output.location)
        self._output = output

    def __len__(self) -> int:
        return len(_written[self.location])

    def exists(self) -> bool:
        return self._output.exists()

    def to_input_file(self) -> InputFile:
        return _Remembered(self.location, _written[self.location])

    def create(self, overwrite: bool = False) -> OutputStream:
        return _Buffer(self._output)


class _Buffer(BytesIO):
    def __init__(self, output: OutputFile) -> None:
        super().__init__()
        self._output = output

    def close(self) -> None:
        if not self.closed:
            content = self.getvalue()
            with self._output.create(overwrite=True) as stream:
                stream.write(content)
            if len(_written) >= _MOST_FILES:
                _written.clear()
            _written[self._output.location] = content
        super().close()
