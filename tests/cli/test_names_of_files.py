"""What is said of a file that is there and that this project does not open."""

import pytest

from cifar_fast.cli.main import main


@pytest.mark.parametrize("command", [["predict"], ["evaluate"]])
def test_a_file_that_cannot_be_opened_is_not_said_to_be_missing(command, tmp_path, capsys):
    page = tmp_path / "final.html"
    page.write_text("<!doctype html>")
    assert main([*command, str(page), *(["x.png"] if command == ["predict"] else [])]) == 2
    said = capsys.readouterr().err
    assert f"{page} cannot be opened here" in said and ".tflite" in said and said.count("\n") == 1
