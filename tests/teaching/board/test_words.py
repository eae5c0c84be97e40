from pipelab.teaching.board.words import columns, counted, held, listed, microbatches


def test_lists_are_read_aloud():
    assert [listed("a"), listed("ab"), listed("abc"), listed("")] == ["a", "a and b", "a, b and c", ""]


def test_one_is_singular():
    assert [columns(1), columns(2), counted(1, "action"), counted(0, "action")] == [
        "1 column",
        "2 columns",
        "1 action",
        "0 actions",
    ]
    assert [microbatches(1), microbatches(3)] == ["1 micro-batch", "3 micro-batches"]


def test_shares_have_no_dust():
    assert [held(1.0), held(2.5), held(4 / 3)] == ["1 micro-batch", "2.5 micro-batches", "1.33 micro-batches"]
