from tests.teaching.exercises.wrong import Wrong

WRONG = [
    Wrong(
        "utilisation",
        """
def utilisation(rows):
    cells = [cell for row in rows for cell in row]
    return cells.count(".") / len(cells)
""",
        says="the bubble fraction. Return the busy fraction",
    ),
    Wrong(
        "utilisation",
        """
def utilisation(rows):
    cells = [cell for row in rows for cell in row]
    return 100 * sum(cell != "." for cell in cells) / len(cells)
""",
        says="That is a percentage",
    ),
    Wrong(
        "utilisation",
        """
def utilisation(rows):
    cells = [cell for row in rows for cell in row]
    return round(100 * sum(cell != "." for cell in cells) / len(cells))
""",
        says="That is a percentage",
    ),
    Wrong(
        "utilisation",
        """
def utilisation(rows):
    cells = [cell for row in rows for cell in row]
    return round(100 * cells.count(".") / len(cells), 1)
""",
        says="the idle time, as a percentage",
    ),
    Wrong(
        "utilisation",
        """
def utilisation(rows):
    cells = [cell for row in rows for cell in row]
    return f"{sum(cell != '.' for cell in cells) / len(cells):.1%}"
""",
        says="returned the text '33.3%'",
    ),
    Wrong(
        "utilisation",
        """
def utilisation(rows):
    return sum(cell != "." for cell in rows[0]) / len(rows[0])
""",
        says="device 0 alone. Count the cells of all devices",
        open=("any table",),
    ),
    Wrong(
        "utilisation",
        """
def utilisation(rows):
    busy = sum(cell != "." for row in rows for cell in row)
    return busy / len(rows[0])
""",
        says="by the cells of one row",
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
