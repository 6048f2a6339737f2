"""Where models and adapters lie: a file in a folder's place is told from nothing at all."""

import pytest

from lorascope.errors import InputError
from lorascope.models.places import adapter_folder, model_address


@pytest.mark.parametrize(
    ("find", "what"),
    [
        (lambda path: adapter_folder("mine", path), 'adapter "mine": folder'),
        (model_address, "model folder"),
    ],
)
def test_a_file_is_no_folder(tmp_path, find, what):
    path = tmp_path / "notes.txt"
    with pytest.raises(InputError, match=rf'^{what} "{path}" does not exist: check the path$'):
        find(str(path))
    path.write_text("x")
    with pytest.raises(InputError, match=rf'^{what} "{path}" is a file: give the folder'):
        find(str(path))


@pytest.mark.parametrize("command", ["check", "scan"])
def test_commands_say_so(lorascope, tmp_path, command):
    path = tmp_path / "adapter_model.bin"
    path.write_text("x")
    code, _, err = lorascope(command, path)
    assert code == 2
    assert "is a file: give the folder that holds it" in err
