from pipelab.view.widgets.saving import MOVING, PICTURES, unknown, unused


def test_what_moves_can_stand_still_too():
    assert MOVING == PICTURES | {"gif": ".gif"}
    assert str(unknown("exe", MOVING)) == "'exe' cannot be saved; save picture, svg and gif"


def test_a_name_that_is_free_is_taken(tmp_path):
    assert unused("picture.png", tmp_path) == tmp_path / "picture.png"
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_taken_gets_the_first_number_that_is_free(tmp_path):
    for expected in ("a.csv", "a-2.csv", "a-3.csv"):
        path = unused("a.csv", tmp_path)
        assert path.name == expected
        path.write_text("mine")
    (tmp_path / "a-2.csv").unlink()
    assert unused("a.csv", tmp_path).name == "a-2.csv"
    assert unused("a.png", tmp_path).name == "a.png"


def test_a_folder_of_that_name_is_in_the_way_too(tmp_path):
    (tmp_path / "a.csv").mkdir()
    assert unused("a.csv", tmp_path).name == "a-2.csv"


def test_a_dot_within_the_name_stays_where_it_is(tmp_path):
    (tmp_path / "p4.m8.json").write_text("")
    assert unused("p4.m8.json", tmp_path).name == "p4.m8-2.json"


def test_without_a_folder_it_is_the_notebooks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert unused("a.csv").parent == tmp_path


def test_a_file_that_holds_the_same_already_does_not_take_the_name(tmp_path):
    (tmp_path / "a.csv").write_text("one")
    assert unused("a.csv", tmp_path, b"one") == tmp_path / "a.csv"
    assert unused("a.csv", tmp_path, b"two") == tmp_path / "a-2.csv"
