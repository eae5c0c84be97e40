from tests.teaching.exercises.wrong import Wrong

WRONG = [
    Wrong(
        "utilisation",
        """
def utilisation(rows):
    cells = [cell for row in rows for cell in row]
    return cells.count(".") / len(cells)
""",
        says="the bubble fraction; the busy part is asked for",
    ),
    Wrong(
        "utilisation",
        """
def utilisation(rows):
    cells = [cell for row in rows for cell in row]
    return 100 * sum(cell != "." for cell in cells) / len(cells)
""",
        says="in per cent",
    ),
    Wrong(
        "utilisation",
        """
def utilisation(rows):
    return sum(cell != "." for cell in rows[0]) / len(rows[0])
""",
        says="device 0 alone",
        open=("any table",),
    ),
    Wrong(
        "utilisation",
        """
def utilisation(rows):
    busy = sum(cell != "." for row in rows for cell in row)
    return busy / len(rows[0])
""",
        says="over the slots of one",
    ),
    Wrong(
        "utilisation",
        """
def utilisation(rows):
    cells = [cell for row in rows for cell in row]
    return sum(cell != "." for cell in cells) // len(cells)
""",
        says="rounds down",
    ),
]
